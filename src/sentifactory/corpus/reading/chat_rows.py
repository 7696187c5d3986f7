"""Reads training files back: each round of a chat, or each text of a table, split into question and review.

So that any training file can be compared with any test file. `chat_rounds` reads the rounds, and `prompt_frames` finds
the review in a prompt.
"""

from __future__ import annotations

from collections.abc import Iterator

from sentifactory.corpus.files.columns import LABEL_COLUMNS, TEXT_COLUMNS, Columns, normalise_name
from sentifactory.corpus.files.tables import BrokenRow, RawRow, Table
from sentifactory.corpus.reading.chat_rounds import CHAT_KEYS, PAIR_KEYS, Round, iter_rounds
from sentifactory.corpus.reading.label_reader import LabelReader
from sentifactory.corpus.reading.prompt_frames import NOT_SPLIT, Kind, PromptFrames, SplitPrompt, keep_uncertain_text
from sentifactory.records import Reason
from sentifactory.system.formats import CELL_CHARS, cut_text
from sentifactory.system.progress import say
from sentifactory.task.task import Task

_DELIMITED = ("csv", "tsv", "excel")
# A longer answer, or one that ends like a sentence, is conversation; a shorter one could be a label.
_LABEL_CHARS = 12
_SENTENCE_ENDS = ("。", "！", "？", ".", "!", "?", "~", "～")


def has_chats(table: Table, text_column: str | None, label_column: str | None, *, needs_label: bool = True) -> bool:
    """Whether a table holds chats, or pairs of question and answer, rather than columns of texts and labels.

    Args:
        table: of any format.
        text_column: named by the user; the table then has columns.
        label_column: likewise.
        needs_label: whether labels are needed. If not, chats take precedence over columns, since they are trained on.
    """
    names = {normalise_name(name) for name in table.header}
    if text_column or label_column or table.format.startswith(_DELIMITED):
        return False
    if names & {*TEXT_COLUMNS} and names & {*LABEL_COLUMNS} and needs_label:
        return False
    return any(key in table.header for key in CHAT_KEYS) or any(
        question in table.header and answer in table.header for question, answer in PAIR_KEYS
    )


def has_unknown_keys(table: Table) -> bool:
    """Whether a table holds objects without a key that is known to hold the text."""
    return not table.format.startswith(_DELIMITED) and not {*map(normalise_name, table.header)} & {*TEXT_COLUMNS}


def iter_labelled(table: Table, task: Task, labels: LabelReader) -> Iterator[RawRow | BrokenRow]:
    """Yield the review and the label of each round; a round whose answer is not a label is a broken row."""
    n_labelled = n_unsplit = 0
    for rounds in _group_by_row(iter_split_prompts(table, task)):
        if isinstance(rounds, BrokenRow):
            yield rounds
            continue
        cells = [_read_answer(one.answer, task) for one, _ in rounds]
        found = [labels.find(cell) for cell in cells]
        is_labelled = any(isinstance(label, int) for label in found)
        for (one, split), cell, label in zip(rounds, cells, found, strict=True):
            if label == Reason.UNKNOWN_LABEL and _is_conversation(cell, is_labelled):
                place = "" if one.number is None else f"round {one.number}: "
                detail = f"{place}the answer is not a label: {cut_text(cell, CELL_CHARS)!r}"
                yield BrokenRow(one.line, detail, split.review, Reason.NO_LABEL)
            else:
                yield RawRow(one.line, keep_uncertain_text(split), cell, "", one.number)
                n_labelled += 1
                n_unsplit += split.kind in NOT_SPLIT
    if n_unsplit:
        say(
            f"{table.header_at}: in {n_unsplit} of {n_labelled} labelled prompts it is not certain where the "
            "question ends and the review begins, so what could be either is kept as part of the review; name the "
            "task of the prompt with --task"
        )


def iter_split_prompts(
    table: Table, task: Task, *, takes_any_words: bool = False
) -> Iterator[tuple[Round, SplitPrompt] | BrokenRow]:
    """Yield each round with its prompt split into the question and the review.

    Args:
        table: of chats.
        task: its prompt is recognised.
        takes_any_words: whether a row of unknown keys is one round of all its texts, and not broken.
    """

    def open_rounds() -> Iterator[Round | BrokenRow]:
        return iter_rounds(table, takes_any_words=takes_any_words)

    frames = PromptFrames(task, lambda: (one.review for one in open_rounds() if isinstance(one, Round)))
    for one in open_rounds():
        if isinstance(one, BrokenRow):
            yield one
            continue
        split = frames.split(one.review)
        if one.is_apart and split.kind in NOT_SPLIT:  # what they share is part of the reviews
            split = SplitPrompt(one.review, Kind.FOUND)
        yield one, split


def iter_column_texts(
    table: Table, task: Task | None, columns: Columns
) -> Iterator[tuple[Round, SplitPrompt] | BrokenRow]:
    """Yield the texts of a table with columns in the same form.

    Args:
        table: of any format.
        task: its prompt, and any that nearly all rows share, is recognised in the texts. None: each text is a review.
        columns: the columns of the table.
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
        split = frames.split(row.text) if frames else None
        if split is None or split.kind == Kind.WHOLE:
            split = SplitPrompt(row.text, Kind.TEXT if is_for_pretraining else Kind.KNOWN)
        yield Round(row.line, n_rows, None, row.text, True, "", ()), split
        n_rows += 1


def _group_by_row(
    rounds: Iterator[tuple[Round, SplitPrompt] | BrokenRow],
) -> Iterator[list[tuple[Round, SplitPrompt]] | BrokenRow]:
    pending: list[tuple[Round, SplitPrompt]] = []
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
    """Whether an answer that is not a label was not meant as one.

    Args:
        answer: the answer.
        is_labelled: whether another round of its chat has a label.

    Returns:
        False for a JSON object, which is always meant as a label: many of another task are an error to report.
    """
    if "{" in answer:
        return False
    words = answer.strip()
    return is_labelled or len(words) > _LABEL_CHARS or words.endswith(_SENTENCE_ENDS)
