"""Test reviews among training texts."""
