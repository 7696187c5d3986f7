"""SentiFactory: from a CSV of Chinese reviews to a tuned, compared, served and published sentiment model."""

__version__ = "0.1.0"
