"""Reliability tests: killed processes, attacks and broken files."""
