"""What goes to a model hub, and what must not."""
