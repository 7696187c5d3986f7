"""Engines turn reviews into predictions, all behind one Protocol."""
