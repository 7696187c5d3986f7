"""Reads training files back: the review and its label out of a chat (sharegpt, OpenAI messages) or an alpaca row.

So that any training file can be held against any test file. A prompt of the task (or of a built-in task) gives up the
review in it, in the form in which it was shown to the model. Of other prompts, what all rows of the file have in
common at the beginning and at the end is taken for the question, and what is between for the review.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sentifactory.corpus.columns import LABEL_COLUMNS, TEXT_COLUMNS, Columns, normalise_name
from sentifactory.corpus.tables import BrokenRow, RawRow, Table
from sentifactory.task import TASKS, TEXT_SLOT, Task

_CHAT_KEYS = ("messages", "conversations")
_ALPACA_KEYS = ("instruction", "output")
_USERS = ("user", "human")
_MODELS = ("assistant", "gpt", "model")


def find_chat_reader(
    table: Table, task: Task, text_column: str | None, label_column: str | None
) -> Iterator[RawRow | BrokenRow] | None:
    """Return the rows of a table that holds chats or alpaca rows, None for one that has columns of its own."""
    names = {normalise_name(name) for name in table.header}
    if text_column or label_column or (names & {*TEXT_COLUMNS} and names & {*LABEL_COLUMNS}):
        return None
    if table.format not in ("jsonl", "json", "parquet"):
        return None
    chat = next((key for key in _CHAT_KEYS if key in table.header), None)
    if chat is not None:
        at = table.header.index(chat)
        return _read_answers(lambda: _read_chats(table.iter_rows(Columns(at, at, None, has_chats=True))), task)
    if all(key in table.header for key in _ALPACA_KEYS):
        at, answer_at = (table.header.index(key) for key in _ALPACA_KEYS)
        extra_at = table.header.index("input") if "input" in table.header else None
        return _read_answers(lambda: _read_alpaca(table.iter_rows(Columns(at, answer_at, extra_at))), task)
    return None


def _read_chats(rows: Iterator[RawRow | BrokenRow]) -> Iterator[RawRow | BrokenRow]:
    """Yield prompt and answer of each chat, in the places of text and label."""
    for row in rows:
        if isinstance(row, BrokenRow):
            yield row
            continue
        try:
            turns = [_read_turn(turn) for turn in json.loads(row.text)]
            prompt = next(words for speaker, words in turns if speaker in _USERS)
        except (ValueError, TypeError, AttributeError, StopIteration):
            yield BrokenRow(row.line, "the chat has no turn of a user", row.text)
            continue
        yield RawRow(row.line, prompt, next((words for speaker, words in turns if speaker in _MODELS), ""), "")


def _read_turn(turn: dict[str, Any]) -> tuple[str, str]:
    speaker = turn.get("role", turn.get("from"))
    words = turn.get("content", turn.get("value"))
    if not isinstance(speaker, str) or not isinstance(words, str):
        raise TypeError("a turn needs a speaker and words")
    return speaker, words


def _read_alpaca(rows: Iterator[RawRow | BrokenRow]) -> Iterator[RawRow | BrokenRow]:
    for row in rows:
        if isinstance(row, BrokenRow):
            yield row
        else:
            yield RawRow(row.line, f"{row.text}\n{row.domain}" if row.domain else row.text, row.label, "")


def _read_answers(open_rows: Callable[[], Iterator[RawRow | BrokenRow]], task: Task) -> Iterator[RawRow | BrokenRow]:
    """Yield the rows with the review instead of the prompt, and the answer value instead of the answer."""
    frame: tuple[str, str] | None = None
    for row in open_rows():
        if isinstance(row, BrokenRow):
            yield row
            continue
        review = find_review(row.text, task)
        if review is None:
            frame = frame or find_frame(other.text for other in open_rows() if not isinstance(other, BrokenRow))
            review = row.text[len(frame[0]) : len(row.text) - len(frame[1])]
        label = task.parse_answer(row.label)
        yield RawRow(row.line, review, row.label if label is None else str(task.answer_values[label]), "")


def find_review(prompt: str, task: Task) -> str | None:
    """Return the review in a prompt of the task or of a built-in one, None where it is neither.

    Example:
        >>> from sentifactory.task import BINARY_SENTIMENT
        >>> find_review(BINARY_SENTIMENT.render_prompt("很好"), BINARY_SENTIMENT)
        '很好'
    """
    for asked in (task, *TASKS.values()):
        before, after = asked.prompt_template.split(TEXT_SLOT)
        if prompt.startswith(before) and prompt.endswith(after) and len(prompt) >= len(before) + len(after):
            return prompt[len(before) : len(prompt) - len(after)]
    return None


def find_frame(prompts: Iterable[str]) -> tuple[str, str]:
    """Return what all prompts begin with, and what they end with; ("", "") where they are one and the same.

    Example:
        >>> find_frame(["Good? 很好 Answer:", "Good? 太差 Answer:"])
        ('Good? ', ' Answer:')
    """
    texts = iter(prompts)
    first = next(texts, "")
    before = after = first
    shortest = len(first)
    for text in texts:
        before = before[: _count_common(before, text)]
        n_after = _count_common(after[::-1], text[::-1])
        after = after[len(after) - n_after :]
        shortest = min(shortest, len(text))
    if before == first:
        return "", ""
    return before, after[max(0, len(before) + len(after) - shortest) :]


def _count_common(one: str, other: str) -> int:
    """Return how many characters two texts have in common at their beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (left, right) in pairs if left != right), min(len(one), len(other)))
