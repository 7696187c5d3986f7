"""Reads training files back: the review and its label out of a chat (sharegpt, OpenAI messages) or an alpaca row.

So that any training file can be held against any test file. A prompt of the task (or of a built-in task) gives up the
review in it, in the form in which it was shown to the model; any other prompt counts as a review as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
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
        return _read_chats(table.iter_rows(Columns(at, at, None, has_chats=True)), task)
    if all(key in table.header for key in _ALPACA_KEYS):
        at, answer_at = (table.header.index(key) for key in _ALPACA_KEYS)
        extra_at = table.header.index("input") if "input" in table.header else None
        return _read_alpaca(table.iter_rows(Columns(at, answer_at, extra_at)), task)
    return None


def _read_chats(rows: Iterator[RawRow | BrokenRow], task: Task) -> Iterator[RawRow | BrokenRow]:
    for row in rows:
        if isinstance(row, BrokenRow):
            yield row
            continue
        try:
            turns = json.loads(row.text)
            prompt = next(words for speaker, words in map(_read_turn, turns) if speaker in _USERS)
            answer = next((words for speaker, words in map(_read_turn, turns) if speaker in _MODELS), "")
        except (ValueError, TypeError, AttributeError, KeyError, StopIteration):
            yield BrokenRow(row.line, "the chat has no turn of a user", row.text)
            continue
        yield _make_row(row.line, prompt, answer, task)


def _read_turn(turn: dict[str, Any]) -> tuple[str, str]:
    speaker = turn.get("role", turn.get("from"))
    words = turn.get("content", turn.get("value"))
    if not isinstance(speaker, str) or not isinstance(words, str):
        raise TypeError("a turn needs a speaker and words")
    return speaker, words


def _read_alpaca(rows: Iterator[RawRow | BrokenRow], task: Task) -> Iterator[RawRow | BrokenRow]:
    for row in rows:
        if isinstance(row, BrokenRow):
            yield row
            continue
        prompt = f"{row.text}\n{row.domain}" if row.domain else row.text
        yield _make_row(row.line, prompt, row.label, task)


def _make_row(line: int, prompt: str, answer: str, task: Task) -> RawRow:
    label = task.parse_answer(answer)
    return RawRow(line, find_review(prompt, task), answer if label is None else str(task.answer_values[label]), "")


def find_review(prompt: str, task: Task) -> str:
    """Return the review in a prompt of the task or of a built-in one; the whole prompt where there is none.

    Example:
        >>> from sentifactory.task import BINARY_SENTIMENT
        >>> find_review(BINARY_SENTIMENT.render_prompt("很好"), BINARY_SENTIMENT)
        '很好'
    """
    for asked in (task, *TASKS.values()):
        before, after = asked.prompt_template.split(TEXT_SLOT)
        if prompt.startswith(before) and prompt.endswith(after) and len(prompt) >= len(before) + len(after):
            return prompt[len(before) : len(prompt) - len(after)]
    return prompt
