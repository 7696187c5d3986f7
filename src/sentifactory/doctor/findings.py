"""One thing that the doctor has looked at."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["ok", "note", "missing"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        topic: what it is about.
        status: `ok`; `note` for what works but should be known; `missing` for what has to be made or mended.
        summary: one sentence without a final stop.
        next_step: the command that makes or mends it; "" where nothing is to be done.
        facts: the same as plain JSON values.
    """

    topic: str
    status: Status
    summary: str
    next_step: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as plain JSON values."""
        return asdict(self)
