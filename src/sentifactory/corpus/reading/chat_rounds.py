"""Reads the rounds of chats: sharegpt and OpenAI messages, alpaca rows with a history, pairs of prompt and answer."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from sentifactory.corpus.files.columns import LABEL_COLUMNS, TEXT_COLUMNS, Columns, normalise_name
from sentifactory.corpus.files.tables import BrokenRow, Table, spell_cell
from sentifactory.system.json_text import parse_json

CHAT_KEYS = ("messages", "conversations")
# Question and answer in rows of one turn: alpaca, ms-swift, OpenAI and TRL.
PAIR_KEYS = (("instruction", "output"), ("query", "response"), ("prompt", "completion"), ("prompt", "response"))
_PAIR_NAMES = {"input", "history", *(key for keys in PAIR_KEYS for key in keys)}
_USER_ROLES = ("user", "human")
_MODEL_ROLES = ("assistant", "gpt", "model")


class Round(NamedTuple):
    """A question to a model and its answer.

    Attributes:
        line: line on which its row begins.
        row: number of the row among the valid ones, from 0.
        number: number of the round in its chat, from 1; None if the chat has no other.
        review: the text that contains the review: the words of the user, without what is known to be the question.
        is_apart: whether the form of the row shows that this text is exactly the review.
        answer: the answer of the model, or the label next to the chat; "" where there is none.
        around: all other texts of the row; only its first round has them.
    """

    line: int
    row: int
    number: int | None
    review: str
    is_apart: bool
    answer: str
    around: tuple[str, ...]


class _Exchange(NamedTuple):
    review: str
    answer: str
    around: tuple[str, ...] = ()
    is_apart: bool = False


def iter_rounds(table: Table, *, takes_any_words: bool = False) -> Iterator[Round | BrokenRow]:
    """Yield the rounds of all chats of a table, in their order; `takes_any_words` as in `iter_split_prompts`."""
    columns = Columns(0, 0, None, has_chats=True)

    def iter_objects() -> Iterator[tuple[int, dict[str, Any]] | BrokenRow]:
        for row in table.iter_rows(columns):
            yield row if isinstance(row, BrokenRow) else (row.line, parse_json(row.text))

    inputs = _InputColumns(lambda: (one[1] for one in iter_objects() if not isinstance(one, BrokenRow)))
    n_rows = 0
    for one in iter_objects():
        if isinstance(one, BrokenRow):
            yield one
            continue
        line, row = one
        rounds = _read_row(row, inputs)
        if not rounds and takes_any_words and (words := "\n".join(_iter_strings(row))):
            rounds = [_Exchange(words, "")]
        if not rounds:
            shown = json.dumps(row, ensure_ascii=False)
            yield BrokenRow(line, "the chat has no turn of a user", shown)
            continue
        for number, (review, answer, around, is_apart) in enumerate(rounds, start=1):
            yield Round(line, n_rows, number if len(rounds) > 1 else None, review, is_apart, answer, around)
        n_rows += 1


class _InputColumns:
    """Decides whether instruction or input is the review: the question occurs in many rows, with different reviews."""

    def __init__(self, open_rows: Callable[[], Iterable[dict[str, Any]]]) -> None:
        self._open_rows = open_rows
        self._n_partners: Counter[tuple[str, str]] | None = None

    def split(self, question: str, extra: str, answer: str) -> _Exchange:
        if self._n_partners is None:
            pairs = {pair[:2] for row in self._open_rows() if (pair := _find_pair(row)) is not None and pair[1]}
            self._n_partners = Counter(
                (kind, pair[at]) for pair in pairs for at, kind in enumerate(("question", "input"))
            )
        n_inputs, n_questions = self._n_partners["question", question], self._n_partners["input", extra]
        if n_questions > n_inputs:
            return _Exchange(question, answer, (extra,), is_apart=True)
        return _Exchange(extra, answer, (question,), is_apart=n_inputs > 1)


def _read_row(row: dict[str, Any], inputs: _InputColumns) -> list[_Exchange]:
    """Return the rounds of a row of any form; [] where it has none."""
    known = {normalise_name(name): value for name, value in row.items()}
    label = next((spell_cell(known[name]) or "" for name in LABEL_COLUMNS if known.get(name) is not None), "")
    chat = next((key for key in CHAT_KEYS if isinstance(row.get(key), list)), None)
    if chat is not None:
        rounds, used = _read_turns(row[chat]), {chat}
        if rounds and not rounds[-1].answer and label:
            # ms-swift's rows for classifiers. Next to an answer, a label rates the answer instead.
            rounds[-1] = rounds[-1]._replace(answer=label, is_apart=len(rounds) == 1)
    elif (pair := _find_pair(row)) is not None:
        question, extra, answer = pair
        asked = inputs.split(question, extra, answer) if extra else _Exchange(question, answer)
        rounds, used = [*_read_history(row.get("history")), asked], _PAIR_NAMES
    else:
        text = next((known[name] for name in TEXT_COLUMNS if isinstance(known.get(name), str)), None)
        return [] if text is None else [_Exchange(text, label, (), is_apart=bool(label))]
    if rounds:
        # All other texts of the row are trained on as well: a system prompt, a preferred reply.
        others = tuple(words for name, value in row.items() if name not in used for words in _iter_strings(value))
        rounds[0] = rounds[0]._replace(around=(*rounds[0].around, *others))
    return rounds


def _find_pair(row: dict[str, Any]) -> tuple[str, str, str] | None:
    """Return question, input and answer of a row of one turn, None for other rows."""
    for question, answer in PAIR_KEYS:
        if isinstance(row.get(question), str) and answer in row:
            extra = row.get("input")
            return row[question], extra if isinstance(extra, str) else "", spell_cell(row[answer]) or ""
    return None


def _read_history(history: Any) -> list[_Exchange]:
    """Return the earlier rounds of an alpaca row: pairs of question and answer, or turns as in a chat."""
    pairs = history if isinstance(history, list) else []
    if pairs and all(isinstance(turn, dict) for turn in pairs):
        return _read_turns(pairs)
    return [
        _Exchange(*pair)
        for pair in pairs
        if isinstance(pair, list) and len(pair) == 2 and all(isinstance(words, str) for words in pair)
    ]


def _read_turns(turns: list[Any]) -> list[_Exchange]:
    """Return the rounds of a chat: the words of the user since the last answer, and the answer."""
    rounds: list[_Exchange] = []
    asked: list[str] = []
    around: list[str] = []
    for turn in turns:
        speaker, words = _read_turn(turn)
        if speaker in _USER_ROLES:
            asked.append(words)
        elif speaker in _MODEL_ROLES and asked:
            rounds.append(_Exchange("\n".join(asked), words, tuple(around)))
            asked, around = [], []
        else:
            around.append(words)
    if asked:
        rounds.append(_Exchange("\n".join(asked), "", tuple(around)))
    elif rounds and around:
        rounds[-1] = rounds[-1]._replace(around=(*rounds[-1].around, *around))
    return rounds


def _read_turn(turn: Any) -> tuple[str, str]:
    """Return the role and the text of a turn; the text parts of a multimodal turn are joined."""
    if not isinstance(turn, dict):
        return "", " ".join(_iter_strings(turn))
    speaker = turn.get("role", turn.get("from"))
    words = turn.get("content", turn.get("value"))
    if isinstance(words, list):
        texts = [piece.get("text") for piece in words if isinstance(piece, dict)]
        words = "\n".join(text for text in texts if isinstance(text, str))
    return (speaker.casefold() if isinstance(speaker, str) else ""), (words if isinstance(words, str) else "")


def _iter_strings(value: Any) -> Iterator[str]:
    """Yield every text within a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for piece in value.values() if isinstance(value, dict) else value:
            yield from _iter_strings(piece)
