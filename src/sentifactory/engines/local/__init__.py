"""Engines in this process: transformers, encoders, ONNX, TF-IDF."""
