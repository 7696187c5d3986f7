"""The engine for an OpenAI-compatible address."""
