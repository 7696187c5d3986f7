"""The steps of a comparison: read the reviews, ask the models, score the answers, conclude."""
