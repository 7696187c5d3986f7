"""What every training run has: callbacks, checkpoints, run card, errors."""
