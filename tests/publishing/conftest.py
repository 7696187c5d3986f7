"""Fixtures of publishing: a tiny encoder and its float32 graph, with reviews to ask."""

from onnx_workshop import checkpoint, float32_graph, reviews, val_csv

__all__ = ["checkpoint", "float32_graph", "reviews", "val_csv"]
