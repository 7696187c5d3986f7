"""The files of a prepared data set: CSV for people and pandas, JSONL for LLaMA-Factory; labelled reviews read back."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from sentifactory.clean_text import clean_text
from sentifactory.corpus.files.limits import MAX_ROW_CHARS
from sentifactory.corpus.reading.read_result import RejectedRow
from sentifactory.corpus.reading.review_files import read_reviews
from sentifactory.errors import ConfigError, DataError
from sentifactory.records import Rejected, Review
from sentifactory.system.atomic import write_new
from sentifactory.system.fingerprint import hash_file
from sentifactory.system.json_text import read_json_object
from sentifactory.task.model_folder import MANIFEST, iter_manifests
from sentifactory.task.reports_folder import REPORTS
from sentifactory.task.task import Task

REJECTED = "rejected.csv"
NEAR_REPEATS = "near_repeats.csv"
SHAREGPT = "sharegpt"
ALPACA = "alpaca"
FORMATTINGS = (SHAREGPT, ALPACA)
_OUR_FILE = re.compile(r"(train|val|test)\.csv|(train|val)\.jsonl|rejected\.csv|near_repeats\.csv|manifest\.json")
_FOLD = re.compile(r"fold_\d+")
# Not the test part: LLaMA-Factory cannot train by mistake on what is not registered.
_REGISTERED = ("train", "val")


def check_formatting(formatting: str) -> None:
    """Raise a ConfigError for an unknown form."""
    if formatting not in FORMATTINGS:
        raise ConfigError(
            f"The choice is {formatting!r}",
            where="--formatting",
            expected=" or ".join(FORMATTINGS),
            code="option-value",
        )


def is_registered(part: str) -> bool:
    """Whether a part is registered for LLaMA-Factory: every train and val part, also those of folds.

    Example:
        >>> is_registered("fold_0/val"), is_registered("test")
        (True, False)
    """
    return part.rsplit("/", 1)[-1] in _REGISTERED


def find_unknown_files(folder: Path) -> list[str]:
    """Return the files and folders in the folder of a data set that this package did not write.

    These are all of them where the manifest.json is not ours: many programs write one. The folder of reports is never
    among them: `keep_reports` keeps it.
    """
    record = (read_json_object(folder / MANIFEST) or {}).get("task")
    if not isinstance(record, dict) or "labels" not in record:
        return sorted(path.name for path in folder.iterdir())
    reports = folder / REPORTS
    has_reports = reports.is_dir() and not reports.is_symlink()
    return [name for name in _find_unknown(folder) if name != REPORTS or not has_reports]


def keep_reports(former: Path, folder: Path) -> None:
    """Copy the reports in the folder of a data set into the one that replaces it: people edit some of them."""
    if (former / REPORTS).is_dir():
        shutil.copytree(former / REPORTS, folder / REPORTS, symlinks=True)


def _find_unknown(folder: Path) -> list[str]:
    unknown = []
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink() and _FOLD.fullmatch(path.name):
            unknown += [f"{path.name}/{name}" for name in _find_unknown(path)]
        elif not _OUR_FILE.fullmatch(path.name) or path.is_symlink() or not path.is_file():
            unknown.append(path.name)
    return unknown


def write_parts(
    folder: Path, parts: Mapping[str, Sequence[Review]], task: Task, formatting: str = SHAREGPT
) -> list[str]:
    """Write the parts into a folder, and return the names of the files.

    A part without reviews gets no file. The CSV files have a third column `domain` if any review has one. The folder
    must be the temporary one of `atomic.replace_directory`.
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
    """Return the reviews of a file as training sees them: cleaned, unless `data prepare` wrote the file.

    Cleaning twice would change texts: an entity that was escaped twice is a plain one in a prepared file.
    """
    if _is_prepared(Path(path)):
        return list(reviews)
    cleaned = ((review, clean_text(review.text)[0]) for review in reviews)
    return [review if text == review.text else replace(review, text=text) for review, text in cleaned]


def _is_prepared(path: Path) -> bool:
    """Whether the manifest in the folder of a file, or in the one above, lists the file with its current hash."""
    for _, name, manifest in iter_manifests(path):
        outputs = manifest.get("outputs")
        entry = outputs.get(name) if isinstance(outputs, dict) else None
        if isinstance(entry, dict) and entry.get("sha256") == hash_file(path):
            return True
    return False


def write_reviews(path: Path, reviews: Sequence[Review], task: Task) -> None:
    """Write reviews as one CSV file in the form of the parts.

    Raises:
        ConfigError: when there is another file already, or the file cannot be written.
    """
    table = io.StringIO()
    _write_csv(table, reviews, task, _have_domains(reviews))
    content = table.getvalue().encode(errors="backslashreplace")
    write_new(path, content, "a new file, or one with exactly these reviews")


def _have_domains(reviews: Iterable[Review]) -> bool:
    return any(review.domain is not None for review in reviews)


def _write_csv(stream: IO[str], reviews: Sequence[Review], task: Task, has_domains: bool) -> None:
    stream.write("label,text,domain\n" if has_domains else "label,text\n")
    # Texts are always quoted: csv's minimal quoting leaves a lone carriage return unquoted, which breaks readers.
    rows = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    if has_domains:
        rows.writerows((_answer_of(review.label, task), review.text, review.domain or "") for review in reviews)
    else:
        rows.writerows((_answer_of(review.label, task), review.text) for review in reviews)


def _write_jsonl(path: Path, reviews: Sequence[Review], task: Task, formatting: str) -> None:
    encode = json.JSONEncoder(ensure_ascii=False).encode
    # Only the prompt in a line depends on the review; the rest is rendered once per label. The prompt is found with
    # its key, because a prompt that is the review alone ("") or a word of the row ("user") occurs in a row twice.
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
    """Write the rows that are in no part, in the order of the source files, and return the name of the file."""
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
    """Write the groups of near duplicates for inspection: number of the group, part and review of each row."""
    with (folder / NEAR_REPEATS).open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
        stream.write("group,part,label,file,line,text\n")
        writer = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        for group, part, review in rows:
            place: tuple[Any, Any] = (review.source.file, review.source.line) if review.source else ("", 0)
            writer.writerow([group, part, _answer_of(review.label, task), *place, review.text])
    return NEAR_REPEATS


def _answer_of(label: int | None, task: Task) -> int | str:
    """Return the answer value of a label, which the reader understands whatever the names of the labels are."""
    return "" if label is None else task.answer_values[label]


def read_labelled(path: str | Path, task: Task, limit: int | None = None) -> tuple[list[Review], int]:
    """Read a file of labelled reviews, cleaned as for training, without the rows that have no text.

    Args:
        path: the file.
        task: says which labels there are.
        limit: read only the first rows, as LLaMA-Factory's `max_samples` does; None: all.

    Returns:
        The reviews, and the number of rows that were left out.

    Raises:
        DataError: when the file cannot be used or no row of it holds a text.
    """
    rows = clean_as_trained(read_reviews(path, task)[:limit], path)
    reviews = [row for row in rows if row.text.strip() and row.label is not None]
    if not reviews:
        raise DataError(
            "No row has a text", where=str(path), expected="at least one review under the header", code="file-empty"
        )
    return reviews, len(rows) - len(reviews)
