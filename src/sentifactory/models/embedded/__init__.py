"""Models in registry packages, converted into checkpoints for transformers."""
