"""The interface of backends: one review in, one prediction out, many concurrently."""

from __future__ import annotations

from typing import Protocol

from sentifactory.errors import EngineError
from sentifactory.records import Prediction, Review


class NotReadyError(EngineError):
    """There is no engine at the moment, or it is starting."""


class Backend(Protocol):
    """Predicts single reviews within the event loop."""

    def is_ready(self) -> bool:
        """Return whether it can predict now."""
        ...

    async def open(self) -> None:
        """Start, within the event loop."""
        ...

    async def ask(self, review: Review) -> Prediction:
        """Return the prediction for one review; cancelling the call cancels the review.

        Raises:
            NotReadyError: when there is no engine at the moment.
            EngineError: when the engine fails.
        """
        ...

    async def close(self) -> None:
        """Stop what it started."""
        ...
