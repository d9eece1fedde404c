"""Split point, exit threshold and compression bits of a neural network, chosen for every frame."""

__version__ = "0.1.0"
