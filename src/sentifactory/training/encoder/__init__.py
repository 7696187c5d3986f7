"""Training of encoder classifiers."""
