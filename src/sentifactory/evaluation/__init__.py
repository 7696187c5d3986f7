"""Base against tuned: metrics, comparison, report."""
