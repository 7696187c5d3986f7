"""Training recipes: reading, checks, and the leak check."""
