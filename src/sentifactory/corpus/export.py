"""Writes a prepared data set in forms that people, pandas and LLaMA-Factory read."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from sentifactory.atomic import open_atomic
from sentifactory.corpus.cleaning import Rejected, clean_text
from sentifactory.corpus.intake import RejectedRow
from sentifactory.corpus.limits import MAX_ROW_CHARS
from sentifactory.corpus.manifest import hash_file
from sentifactory.errors import ConfigError
from sentifactory.json_object import read_json_object
from sentifactory.model_task import MANIFEST
from sentifactory.records import Review
from sentifactory.task import Task

REJECTED = "rejected.csv"
NEAR_REPEATS = "near_repeats.csv"
SHAREGPT = "sharegpt"
ALPACA = "alpaca"
FORMATTINGS = (SHAREGPT, ALPACA)
_OUR_FILE = re.compile(r"(train|val|test)\.csv|(train|val)\.jsonl|rejected\.csv|near_repeats\.csv|manifest\.json")
_FOLD = re.compile(r"fold_\d+")
# The test part is not here: what LLaMA-Factory cannot name it cannot train on by mistake.
_REGISTERED = ("train", "val")


def check_formatting(formatting: str) -> None:
    """Raise a ConfigError for a form that there is not."""
    if formatting not in FORMATTINGS:
        raise ConfigError(f"The choice is {formatting!r}", where="--formatting", expected=" or ".join(FORMATTINGS))


def is_registered(part: str) -> bool:
    """Whether LLaMA-Factory can name a part: every train and val part, of a fold as well.

    Example:
        >>> is_registered("fold_0/val"), is_registered("test")
        (True, False)
    """
    return part.rsplit("/", 1)[-1] in _REGISTERED


def find_strangers(folder: Path) -> list[str]:
    """Return the files and folders in the folder of a data set that no run of this package wrote there."""
    strangers = []
    for path in sorted(folder.iterdir()):
        if path.is_dir() and _FOLD.fullmatch(path.name):
            strangers += [f"{path.name}/{name}" for name in find_strangers(path)]
        elif not _OUR_FILE.fullmatch(path.name):
            strangers.append(path.name)
    return strangers


def write_parts(
    folder: Path, parts: Mapping[str, Sequence[Review]], task: Task, formatting: str = SHAREGPT
) -> list[str]:
    """Write the parts into a folder, and return the names of the files.

    A part without reviews gets no file. The CSV files have a third column `domain` where any review has one. The
    folder is one of `atomic.replace_directory`: it counts when it is whole.
    """
    has_domains = _have_domains(review for reviews in parts.values() for review in reviews)
    written = []
    for part, reviews in parts.items():
        if not reviews:
            continue
        (folder / part).parent.mkdir(exist_ok=True)
        with (folder / f"{part}.csv").open("w", encoding="utf-8", newline="") as stream:
            _write_csv(stream, reviews, task, has_domains)
        written.append(f"{part}.csv")
        if is_registered(part):
            _write_jsonl(folder / f"{part}.jsonl", reviews, task, formatting)
            written.append(f"{part}.jsonl")
    return written


def read_texts_back(folder: Path, parts: Sequence[str]) -> dict[str, list[str]]:
    """Return the texts of the parts that `write_parts` wrote, [] for a part without a file."""
    csv.field_size_limit(MAX_ROW_CHARS)
    texts: dict[str, list[str]] = {}
    for part in parts:
        path = folder / f"{part}.csv"
        if not path.exists():
            texts[part] = []
            continue
        with path.open(encoding="utf-8", errors="surrogatepass", newline="") as stream:
            rows = csv.reader(stream, strict=True)
            at = next(rows).index("text")
            texts[part] = [row[at] for row in rows]
    return texts


def clean_as_trained(reviews: Sequence[Review], path: str | Path) -> list[Review]:
    """Return the reviews of a file with the texts that training sees: cleaned, unless `data prepare` wrote the file.

    An entity that was escaped twice stands in such a file as a plain one, and must stay so.
    """
    if _is_prepared(Path(path).absolute()):
        return list(reviews)
    cleaned = ((review, clean_text(review.text)[0]) for review in reviews)
    return [review if text == review.text else replace(review, text=text) for review, text in cleaned]


def _is_prepared(path: Path) -> bool:
    """Whether a file is a part that the manifest in its folder, or in the one above, names with its present bytes."""
    for folder in path.parents[:2]:
        outputs = (read_json_object(folder / MANIFEST) or {}).get("outputs")
        entry = outputs.get(path.relative_to(folder).as_posix()) if isinstance(outputs, dict) else None
        if isinstance(entry, dict) and entry.get("sha256") == hash_file(path):
            return True
    return False


def write_reviews(path: Path, reviews: Sequence[Review], task: Task) -> None:
    """Write reviews as one CSV file in the form of the parts; raises what `atomic.open_atomic` raises."""
    with open_atomic(path, newline="") as stream:
        _write_csv(stream, reviews, task, _have_domains(reviews))


def _have_domains(reviews: Iterable[Review]) -> bool:
    return any(review.domain is not None for review in reviews)


def _write_csv(stream: IO[str], reviews: Sequence[Review], task: Task, has_domains: bool) -> None:
    stream.write("label,text,domain\n" if has_domains else "label,text\n")
    # Texts are always quoted: csv's minimal quoting leaves a lone carriage return bare, which no reader survives.
    rows = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    if has_domains:
        rows.writerows((_answer_of(review.label, task), review.text, review.domain or "") for review in reviews)
    else:
        rows.writerows((_answer_of(review.label, task), review.text) for review in reviews)


def _write_jsonl(path: Path, reviews: Sequence[Review], task: Task, formatting: str) -> None:
    encode = json.JSONEncoder(ensure_ascii=False).encode
    # Of a line only the prompt depends on the review; the rest is made once for each label. The prompt is the first
    # value of its key: a prompt that is the review alone ("") or a word of the row ("user") stands in a row twice.
    key = "content" if formatting == SHAREGPT else "instruction"
    empty = f'"{key}": {encode(task.render_prompt(""))}'
    frames: dict[int | None, tuple[str, str]] = {}
    for label in range(len(task.labels)):
        row = (
            {"messages": task.render_messages("", label)} if formatting == SHAREGPT else task.render_alpaca("", label)
        )
        before, _, after = encode(row).partition(empty)
        frames[label] = (f'{before}"{key}": ', after)
    with path.open("w", encoding="utf-8", newline="") as stream:
        for review in reviews:
            before, after = frames[review.label]
            stream.write(f"{before}{encode(task.render_prompt(review.text))}{after}\n")


def write_rejected(folder: Path, rejected: Sequence[Rejected | RejectedRow], task: Task) -> str:
    """Write the rows that are in no part, in the order of the files, and return the name of the file."""
    with (folder / REJECTED).open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
        stream.write("file,line,reason,detail,label,text\n")
        rows = sorted((_list_rejected(item, task) for item in rejected), key=lambda row: row[:2])
        csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC).writerows(rows)
    return REJECTED


def _list_rejected(item: Rejected | RejectedRow, task: Task) -> tuple[str, int, str, str, int | str, str]:
    source = item.source if isinstance(item, RejectedRow) else item.review.source
    place = (source.file, source.line) if source else ("", 0)
    detail = item.detail
    if source and source.round:
        detail = f"round {source.round}" + (f": {detail}" if detail else "")
    if isinstance(item, RejectedRow):
        return *place, str(item.reason), detail, "", item.text
    return *place, str(item.reason), detail, _answer_of(item.review.label, task), item.review.text


def write_near_repeats(folder: Path, rows: Sequence[tuple[int, str, Review]], task: Task) -> str:
    """Write groups of near repeats for a person to look at: number of the group, part and review of each row."""
    with (folder / NEAR_REPEATS).open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
        stream.write("group,part,label,file,line,text\n")
        writer = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        for group, part, review in rows:
            place: tuple[Any, Any] = (review.source.file, review.source.line) if review.source else ("", 0)
            writer.writerow([group, part, _answer_of(review.label, task), *place, review.text])
    return NEAR_REPEATS


def _answer_of(label: int | None, task: Task) -> int | str:
    """Return the answer value of a label: what the reader takes first when the file is read back."""
    return "" if label is None else task.answer_values[label]
