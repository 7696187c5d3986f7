"""A reason not to publish a checkpoint, and the error that lists all of them."""

from __future__ import annotations

from dataclasses import dataclass

from sentifactory.bilingual import Sentence
from sentifactory.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Refusal:
    """One reason not to publish.

    Attributes:
        code: stable across changes of wording; the web page has a next step of its own for each.
        what: the reason, as a clause.
        next_step: how to resolve it on the command line.
    """

    code: str
    what: Sentence
    next_step: str


class PublishRefusedError(ConfigError):
    """A checkpoint is not published.

    Args:
        refusals: all reasons.
        where: its folder.
    """

    code = "publish-refused"

    def __init__(self, refusals: list[Refusal], where: str) -> None:
        n = len(refusals)
        super().__init__(
            f"This cannot be published, for {n} reason{'s' if n > 1 else ''}: "
            + "; ".join(f"({number}) {one.what.en}" for number, one in enumerate(refusals, start=1)),
            where=where,
            next_step="; ".join(f"({number}) {one.next_step}" for number, one in enumerate(refusals, start=1)),
        )
        self.refusals = refusals


def refuse(refusals: list[Refusal], where: str) -> None:
    """Raise all refusals as one error.

    Raises:
        PublishRefusedError: when there is any.
    """
    if refusals:
        raise PublishRefusedError(refusals, where)
