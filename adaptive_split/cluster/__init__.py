"""Servers on a Ray cluster: where the runtime's tails are computed when one machine is too few."""
