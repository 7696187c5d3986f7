"""What leaves the house: exported models, and the proof that they answer as the checkpoint does."""
