"""The parts of the check: what each measures, how long it may take, and what it needs."""

from __future__ import annotations

from dataclasses import dataclass

# Status of a part in the report. A part that did not get to run is `not measured`, whatever the reason.
MEASURED, NOT_MEASURED, FAILED = "measured", "not measured", "failed"


@dataclass(frozen=True, slots=True)
class CheckPart:
    """A part of the check, which runs in a process of its own.

    Attributes:
        name: of the part, and of its function in `measure`.
        limit_s: after which the process is ended.
        after: the part whose files it uses.
        needs_cuda: also at the small shape.
    """

    name: str
    limit_s: float
    after: str | None = None
    needs_cuda: bool = False


# In the order in which they run: what the goals depend on comes first.
PARTS = (
    CheckPart("model", 90),
    CheckPart("stock", 100, after="model"),
    CheckPart("ours", 100, after="model"),
    CheckPart("exactness", 90),
    CheckPart("qlora", 90, after="model"),
    CheckPart("fp16", 120, after="model", needs_cuda=True),
    CheckPart("kill", 120),
    CheckPart("processes", 120),
)
