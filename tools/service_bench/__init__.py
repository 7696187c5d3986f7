"""Measures the service and labelling under load, faults and kills."""
