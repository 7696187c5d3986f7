"""Checks on a machine with a CUDA GPU, in 8 minutes and without a network, what only a GPU can show."""
