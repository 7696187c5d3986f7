"""Backends of a service: a model in this process, or a vLLM server."""
