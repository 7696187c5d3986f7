"""Exact accelerations of a training step."""
