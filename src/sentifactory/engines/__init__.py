"""Engines: whatever answers reviews with Predictions (vLLM, an OpenAI-compatible address, transformers, an encoder, ONNX, TF-IDF)."""
