"""Fixtures of publishing: a tuned checkpoint with its evidence, a hub on this machine, a tiny encoder, its graph."""

from onnx_workshop import checkpoint, float32_graph, reviews, val_csv
from publishing_workshop import hub, made_workshop, workshop

__all__ = ["checkpoint", "float32_graph", "hub", "made_workshop", "reviews", "val_csv", "workshop"]
