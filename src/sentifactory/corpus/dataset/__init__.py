"""The files of a prepared data set: reviews, registration, manifest."""
