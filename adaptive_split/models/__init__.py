"""Torch: the networks, their training and their export."""
