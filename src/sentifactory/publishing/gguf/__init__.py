"""Language models as GGUF, for llama.cpp and Ollama."""
