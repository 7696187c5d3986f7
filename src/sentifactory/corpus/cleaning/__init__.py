"""Cleaning of reviews: exact and near duplicates, and texts that are too long."""
