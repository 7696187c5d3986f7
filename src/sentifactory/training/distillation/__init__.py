"""Distillation: soft labels of a teacher model."""
