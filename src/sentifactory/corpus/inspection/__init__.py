"""Inspection of data: profile, page, doubtful labels, overlaps."""
