"""Reviews in, training data out: sources, readers, cleaning, splitting, export."""
