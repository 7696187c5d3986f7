"""Pages under `contexts/` that are written from the code itself: every command, and every message of an error."""
