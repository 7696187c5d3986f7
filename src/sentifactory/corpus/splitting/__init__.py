"""Splits, folds, class balance, row order, and samples."""
