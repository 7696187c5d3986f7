"""Encoders as ONNX."""
