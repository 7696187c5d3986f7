"""Fixtures of publishing: a tuned checkpoint with all its evidence, and a hub on this machine."""

from publishing_workshop import hub, made_workshop, workshop

__all__ = ["hub", "made_workshop", "workshop"]
