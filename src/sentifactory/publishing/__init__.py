"""Publishing: a checkpoint with its evidence goes to a hub, or into another form that is proven to say the same."""
