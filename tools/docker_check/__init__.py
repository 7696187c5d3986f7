"""Runs Dockerfiles and compose files in a plain Debian root, where there is no Docker."""
