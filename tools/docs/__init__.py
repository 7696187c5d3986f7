"""Writes `contexts/commands.md` and the generated tables of the guides."""
