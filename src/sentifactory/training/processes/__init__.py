"""Starts a training run in several processes, on one machine or several, by PyTorch's own launcher."""
