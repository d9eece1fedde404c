"""Releases of models and controllers: signed, installed, tried, and taken back when they fail."""
