"""Benchmarks; no test depends on their results."""
