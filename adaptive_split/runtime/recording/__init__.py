"""Recording a network trace: what a device's own link offers, within a data budget."""
