"""Serving: one model over REST, and files of reviews labelled in bounded memory."""
