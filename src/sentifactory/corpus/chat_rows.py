"""Reads training files back: reviews and their labels out of chats (sharegpt, OpenAI messages) and alpaca rows.

So that any training file can be held against any test file. A chat of several rounds is as many reviews. Which words
of a prompt are the review says `prompt_frames`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from sentifactory.corpus.cleaning import Reason
from sentifactory.corpus.columns import LABEL_COLUMNS, TEXT_COLUMNS, Columns, normalise_name
from sentifactory.corpus.labels import LabelReader
from sentifactory.corpus.prompt_frames import UNPARTED, Kind, Parted, PromptFrames, keep_doubtful
from sentifactory.corpus.tables import BrokenRow, RawRow, Table, spell_cell
from sentifactory.progress import say
from sentifactory.task import Task

_CHAT_KEYS = ("messages", "conversations")
# Question and answer of one-turn rows: alpaca's, ms-swift's, those of OpenAI and of TRL.
_PAIR_KEYS = (("instruction", "output"), ("query", "response"), ("prompt", "completion"), ("prompt", "response"))
_PAIR_WORDS = {"input", "history", *(key for keys in _PAIR_KEYS for key in keys)}
_USERS = ("user", "human")
_MODELS = ("assistant", "gpt", "model")
_DELIMITED = ("csv", "tsv", "excel")
# An answer of more characters, or one that ends as a sentence does, is conversation; a shorter one could be a label.
_LABEL_CHARS = 12
_SENTENCE_ENDS = ("。", "！", "？", ".", "!", "?", "~", "～")


class Round(NamedTuple):
    """A question to a model and its answer.

    Attributes:
        line: on which the row begins that holds it.
        row: number of that row among the sound ones, from 0.
        number: which round of its chat it is, from 1; None where the chat has no other.
        review: the words that hold the review: what the user says, or of it what is known not to be the question.
        is_apart: whether the form of the row says that these words are the review.
        answer: what the model answers, or the label that is next to the chat; "" where there is none.
        around: all other words of the row, each told once, in its first round.
    """

    line: int
    row: int
    number: int | None
    review: str
    is_apart: bool
    answer: str
    around: tuple[str, ...]


def has_chats(table: Table, text_column: str | None, label_column: str | None, *, needs_label: bool = True) -> bool:
    """Return whether a table holds chats or pairs of question and answer, and not columns of its own.

    Args:
        table: of any format.
        text_column: what the user names; then it is no chat.
        label_column: likewise.
        needs_label: whether labels are asked for. If not, chats come before columns: they are what is trained on.
    """
    names = {normalise_name(name) for name in table.header}
    if text_column or label_column or table.format.startswith(_DELIMITED):
        return False
    if names & {*TEXT_COLUMNS} and names & {*LABEL_COLUMNS} and needs_label:
        return False
    return any(key in table.header for key in _CHAT_KEYS) or any(
        question in table.header and answer in table.header for question, answer in _PAIR_KEYS
    )


def has_unknown_keys(table: Table) -> bool:
    """Return whether a table holds objects without a text that is known by its name."""
    return not table.format.startswith(_DELIMITED) and not {*map(normalise_name, table.header)} & {*TEXT_COLUMNS}


def iter_labelled(table: Table, task: Task, labels: LabelReader) -> Iterator[RawRow | BrokenRow]:
    """Yield the review and the label of each round; a round whose answer is no label is told as that."""
    n_labelled = n_unparted = 0
    for rounds in _group_by_row(iter_parted(table, task)):
        if isinstance(rounds, BrokenRow):
            yield rounds
            continue
        cells = [_read_answer(one.answer, task) for one, _ in rounds]
        is_labelled = any(isinstance(labels.find(cell), int) for cell in cells)
        for (one, parted), cell in zip(rounds, cells, strict=True):
            if labels.find(cell) == Reason.UNKNOWN_LABEL and _is_conversation(cell, is_labelled):
                place = "" if one.number is None else f"round {one.number}: "
                detail = f"{place}the answer is no label: {cell if len(cell) <= 40 else cell[:40] + '…'!r}"
                yield BrokenRow(one.line, detail, parted.review, Reason.NO_LABEL)
            else:
                yield RawRow(one.line, keep_doubtful(parted), cell, "", one.number)
                n_labelled += 1
                n_unparted += parted.kind in UNPARTED
    if n_unparted:
        say(
            f"{table.header_at}: in {n_unparted} of {n_labelled} labelled prompts it is not certain where the "
            "question ends and the review begins, so what could be either is kept as part of the review; --task names "
            "the task whose prompt it is"
        )


def iter_parted(
    table: Table, task: Task, *, takes_any_words: bool = False
) -> Iterator[tuple[Round, Parted] | BrokenRow]:
    """Yield each round with its prompt parted into the question and the review.

    Args:
        table: of chats.
        task: its prompt is looked for.
        takes_any_words: whether a row of unknown keys is one round of all its words, and not broken.
    """

    def open_rounds() -> Iterator[Round | BrokenRow]:
        return iter_rounds(table, takes_any_words=takes_any_words)

    frames = PromptFrames(task, lambda: (one.review for one in open_rounds() if isinstance(one, Round)))
    for one in open_rounds():
        if isinstance(one, BrokenRow):
            yield one
            continue
        parted = frames.part(one.review)
        if one.is_apart and parted.kind in UNPARTED:  # reviews end alike as well
            parted = Parted(one.review, Kind.FOUND)
        yield one, parted


def iter_column_texts(table: Table, task: Task | None, columns: Columns) -> Iterator[tuple[Round, Parted] | BrokenRow]:
    """Yield the texts of a table with columns of its own likewise.

    Args:
        table: of any format.
        task: its prompt, and any that nearly all rows have, is looked for in the texts. None: each is a review.
        columns: where the texts are.
    """
    has_labels = any(normalise_name(name) in LABEL_COLUMNS for name in table.header)
    is_for_pretraining = not has_labels and not table.format.startswith(_DELIMITED)
    frames = task and PromptFrames(
        task, lambda: (row.text for row in table.iter_rows(columns) if isinstance(row, RawRow)), are_reviews=True
    )
    n_rows = 0
    for row in table.iter_rows(columns):
        if isinstance(row, BrokenRow):
            yield row
            continue
        parted = frames.part(row.text) if frames else None
        if parted is None or parted.kind == Kind.WHOLE:
            parted = Parted(row.text, Kind.TEXT if is_for_pretraining else Kind.KNOWN)
        yield Round(row.line, n_rows, None, row.text, True, "", ()), parted
        n_rows += 1


def iter_rounds(table: Table, *, takes_any_words: bool = False) -> Iterator[Round | BrokenRow]:
    """Yield the rounds of all chats of a table, in the order of the file; `takes_any_words` as in `iter_parted`."""
    columns = Columns(0, 0, None, has_chats=True)

    def iter_objects() -> Iterator[tuple[int, dict[str, Any]] | BrokenRow]:
        for row in table.iter_rows(columns):
            yield row if isinstance(row, BrokenRow) else (row.line, json.loads(row.text))

    inputs = _Inputs(lambda: (one[1] for one in iter_objects() if not isinstance(one, BrokenRow)))
    n_rows = 0
    for one in iter_objects():
        if isinstance(one, BrokenRow):
            yield one
            continue
        line, row = one
        rounds = _read_row(row, inputs)
        if not rounds and takes_any_words and (words := "\n".join(_iter_words(row))):
            rounds = [_Exchange(words, "")]
        if not rounds:
            shown = json.dumps(row, ensure_ascii=False)
            yield BrokenRow(line, "the chat has no turn of a user", shown)
            continue
        for number, (review, answer, around, is_apart) in enumerate(rounds, start=1):
            yield Round(line, n_rows, number if len(rounds) > 1 else None, review, is_apart, answer, around)
        n_rows += 1


class _Exchange(NamedTuple):
    review: str
    answer: str
    around: tuple[str, ...] = ()
    is_apart: bool = False


class _Inputs:
    """Tells which of instruction and input is the review: the other one is in many rows, with other partners."""

    def __init__(self, open_rows: Callable[[], Iterable[dict[str, Any]]]) -> None:
        self._open_rows = open_rows
        self._partners: Counter[tuple[str, str]] | None = None

    def part(self, question: str, extra: str, answer: str) -> _Exchange:
        if self._partners is None:
            pairs = {pair[:2] for row in self._open_rows() if (pair := _find_pair(row)) is not None and pair[1]}
            self._partners = Counter(
                (kind, pair[at]) for pair in pairs for at, kind in enumerate(("question", "input"))
            )
        n_inputs, n_questions = self._partners["question", question], self._partners["input", extra]
        if n_questions > n_inputs:
            return _Exchange(question, answer, (extra,), is_apart=True)
        return _Exchange(extra, answer, (question,), is_apart=n_inputs > 1)


def _read_row(row: dict[str, Any], inputs: _Inputs) -> list[_Exchange]:
    """Return the rounds of a row of any form; [] where it has none."""
    known = {normalise_name(name): value for name, value in row.items()}
    label = next((spell_cell(known[name]) or "" for name in LABEL_COLUMNS if known.get(name) is not None), "")
    chat = next((key for key in _CHAT_KEYS if isinstance(row.get(key), list)), None)
    if chat is not None:
        rounds, used = _read_turns(row[chat]), {chat}
        if rounds and not rounds[-1].answer and label:
            # ms-swift's rows for classifiers. Beside an answer the label says how good that is.
            rounds[-1] = rounds[-1]._replace(answer=label, is_apart=len(rounds) == 1)
    elif (pair := _find_pair(row)) is not None:
        question, extra, answer = pair
        asked = inputs.part(question, extra, answer) if extra else _Exchange(question, answer)
        rounds, used = [*_read_history(row.get("history")), asked], _PAIR_WORDS
    else:
        text = next((known[name] for name in TEXT_COLUMNS if isinstance(known.get(name), str)), None)
        return [] if text is None else [_Exchange(text, label, (), is_apart=bool(label))]
    if rounds:
        # What else the row says is trained on as well: a system prompt, a reply that was preferred.
        others = tuple(words for name, value in row.items() if name not in used for words in _iter_words(value))
        rounds[0] = rounds[0]._replace(around=(*rounds[0].around, *others))
    return rounds


def _find_pair(row: dict[str, Any]) -> tuple[str, str, str] | None:
    """Return question, input and answer of a row of one turn."""
    for question, answer in _PAIR_KEYS:
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
    """Return the rounds of a chat: what the user said since the last answer, and the answer."""
    rounds: list[_Exchange] = []
    asked: list[str] = []
    around: list[str] = []
    for turn in turns:
        speaker, words = _read_turn(turn)
        if speaker in _USERS:
            asked.append(words)
        elif speaker in _MODELS and asked:
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
    """Return who speaks and what; words in pieces (text beside pictures) are put together."""
    if not isinstance(turn, dict):
        return "", " ".join(_iter_words(turn))
    speaker = turn.get("role", turn.get("from"))
    words = turn.get("content", turn.get("value"))
    if isinstance(words, list):
        texts = [piece.get("text") for piece in words if isinstance(piece, dict)]
        words = "\n".join(text for text in texts if isinstance(text, str))
    return (speaker.casefold() if isinstance(speaker, str) else ""), (words if isinstance(words, str) else "")


def _iter_words(value: Any) -> Iterator[str]:
    """Yield every text within a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for piece in value.values() if isinstance(value, dict) else value:
            yield from _iter_words(piece)


def _group_by_row(
    rounds: Iterator[tuple[Round, Parted] | BrokenRow],
) -> Iterator[list[tuple[Round, Parted]] | BrokenRow]:
    pending: list[tuple[Round, Parted]] = []
    for one in rounds:
        if pending and (isinstance(one, BrokenRow) or one[0].row != pending[0][0].row):
            yield pending
            pending = []
        if isinstance(one, BrokenRow):
            yield one
        else:
            pending.append(one)
    if pending:
        yield pending


def _read_answer(answer: str, task: Task) -> str:
    label = task.parse_answer(answer)
    return answer if label is None else str(task.answer_values[label])


def _is_conversation(answer: str, is_labelled: bool) -> bool:
    """Whether an answer that is no label was never meant as one, in a chat in which another round has a label or not.

    An object is always meant as an answer: when many rows have one of another task, that is to be told.
    """
    if "{" in answer:
        return False
    words = answer.strip()
    return is_labelled or len(words) > _LABEL_CHARS or words.endswith(_SENTENCE_ENDS)
