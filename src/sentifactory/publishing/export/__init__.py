"""A checkpoint in another form, proven to give the same answers."""
