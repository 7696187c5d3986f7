"""Engines: whatever answers reviews with Predictions (vLLM, an address, transformers, an encoder, ONNX, TF-IDF)."""
