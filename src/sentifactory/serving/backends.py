"""What the API asks: one review in, one prediction out, many at once; and what it is told when there is no answer."""

from __future__ import annotations

from typing import Protocol

from sentifactory.errors import EngineError
from sentifactory.records import Prediction, Review


class NotReadyError(EngineError):
    """There is no engine at the moment; one is being started."""


class Backend(Protocol):
    """Answers single reviews within the event loop."""

    def is_ready(self) -> bool:
        """Return whether it can answer now."""
        ...

    async def open(self) -> None:
        """Begin to work, within the event loop."""
        ...

    async def ask(self, review: Review) -> Prediction:
        """Return the prediction for one review; a caller that is cancelled frees the review's place.

        Raises:
            NotReadyError: when there is no engine at the moment.
            EngineError: when the engine fails.
        """
        ...

    async def close(self) -> None:
        """End what it started."""
        ...
