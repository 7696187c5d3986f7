"""Metrics with intervals, significance tests, statistical power, calibration."""
