"""What runs on the device and on the edge server, and the simulator that stands in for both."""
