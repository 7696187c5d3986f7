"""The ladder: many models on the same test reviews, from the majority label to a tuned language model."""
