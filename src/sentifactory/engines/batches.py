"""What engines in this process have in common: batches are answered one by one; answers come back in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from sentifactory.engines.base import OnAnswer
from sentifactory.progress import show_progress
from sentifactory.records import Prediction


def answer_batches(
    name: str,
    rows: Sequence[list[int]],
    batches: Iterable[list[int]],
    answer: Callable[[list[list[int]]], list[Prediction]],
    on_answer: OnAnswer | None,
) -> list[Prediction]:
    """Return the predictions for rows, in their order, with a progress display.

    Args:
        name: of the engine.
        rows: (n,) token ids.
        batches: positions of the rows that are answered together; each position stands in one of them.
        answer: gives the predictions for the rows of a batch.
        on_answer: told each answer when its batch is through.
    """
    answers: dict[int, Prediction] = {}
    with show_progress(f"Asking {name}", total=len(rows), unit="reviews") as progress:
        for batch in batches:
            for position, prediction in zip(batch, answer([rows[at] for at in batch]), strict=True):
                answers[position] = prediction
                if on_answer is not None:
                    on_answer(position, prediction)
            progress.advance(len(batch))
    return [answers[position] for position in range(len(rows))]
