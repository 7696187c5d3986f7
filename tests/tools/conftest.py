"""Fixtures of publishing that tests of the tools need as well."""

from onnx_workshop import checkpoint, float32_graph, reviews, val_csv

__all__ = ["checkpoint", "float32_graph", "reviews", "val_csv"]
