"""Engines classify reviews: vLLM, a server's address, transformers, an encoder, ONNX Runtime, TF-IDF.

`registry.build_engine` creates an engine, `ask.collect_answers` asks it, `vllm/start_vllm.py` starts vLLM.
"""
