"""Developer tooling, not installed."""
