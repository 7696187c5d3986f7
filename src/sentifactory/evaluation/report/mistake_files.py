"""The mistakes of a comparison as CSV files: wrong answers, changed answers, groups, words, unparsed replies."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sentifactory.errors import ConfigError
from sentifactory.system.atomic import replace_directory

MODELS = ("base", "few_shot", "tuned", "tfidf", "tfidf_all")
_FILES = ("mistakes.csv", "flips.csv", "groups.csv", "words.csv", "unparsed.csv")
_EARLIER_FILES = ("surest.csv",)  # of earlier versions


def check_mistakes_place(folder: Path) -> None:
    """Make sure that replacing the folder of CSV files removes nothing else.

    Raises:
        ConfigError: when it contains other files.
    """
    if not os.path.lexists(folder):
        return
    if not folder.is_dir() or any(
        path.name not in (*_FILES, *_EARLIER_FILES) or not path.is_file() for path in folder.iterdir()
    ):
        raise ConfigError(
            "The CSV files of mistakes would replace files that are not from a report",
            where=str(folder),
            expected="no such folder, or one of an earlier report",
            next_step="choose another --output_file",
            code="output-foreign",
        )


def write_mistakes(report: Mapping[str, Any], folder: Path) -> None:
    """Write mistakes.csv, flips.csv, groups.csv, words.csv and unparsed.csv into a folder, which is replaced.

    Each row names its test file. Texts are unchanged.

    Raises:
        ConfigError: when the folder cannot be written, or contains other files.
    """
    tables: dict[str, tuple[Sequence[str], Iterable[Sequence[Any]]]] = {
        "mistakes.csv": (
            ("test", "line", "model", "label", "answer", "probability", "tuned_is_right", "tfidf_is_right", "text"),
            list_mistakes(report),
        ),
        "flips.csv": (("test", "line", "flip", "label", "base", "tuned", "text"), list_flips(report)),
        "groups.csv": (
            ("test", "model", "kind", "group", "reviews", "wrong", "accuracy", "low", "high", "coverage"),
            list_groups(report),
        ),
        "words.csv": (("test", "model", "word", "reviews", "wrong", "error_rate", "p_value"), list_words(report)),
        "unparsed.csv": (("test", "line", "model", "label", "reply", "text"), list_unparsed(report)),
    }
    with replace_directory(folder, check_mistakes_place) as new_folder:
        for name, (header, rows) in tables.items():
            with (new_folder / name).open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
                writer = csv.writer(stream, lineterminator="\n")
                writer.writerow(header)
                writer.writerows(rows)


def list_results(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the results of all test files, that of the first file first."""
    return [report, *report["further_tests"]]


def list_flips(report: Mapping[str, Any]) -> Iterator[Sequence[Any]]:
    """Yield the answers that tuning changed from wrong to right (`fixed`) and from right to wrong (`broken`)."""
    names = report["task"]["labels"]
    for result in list_results(report):
        for row in result["predictions"]:
            was_right, is_right = (row[side]["label"] == row["label"] for side in ("base", "tuned"))
            if was_right != is_right:
                answers = [_name(row[side]["label"], names) for side in ("base", "tuned")]
                flip = "fixed" if is_right else "broken"
                yield (*_locate(row), flip, names[row["label"]], *answers, row["text"])


def list_mistakes(report: Mapping[str, Any]) -> Iterator[Sequence[Any]]:
    """Yield every wrong answer of every model, those of the tuned model first, in the order of `find_mistakes`."""
    names = report["task"]["labels"]
    for result in list_results(report):
        for model in sorted(MODELS, key=lambda name: name != "tuned"):
            for row in find_mistakes(result, model):
                share = f"{max(row[model]['probabilities']):.6f}" if "probabilities" in row[model] else ""
                rights = (
                    "" if (right := is_right(row, other)) is None else int(right) for other in ("tuned", "tfidf")
                )
                answer = _name(row[model]["label"], names)
                yield (*_locate(row), model, names[row["label"]], answer, share, *rights, row["text"])


def find_mistakes(result: Mapping[str, Any], model: str) -> list[Mapping[str, Any]]:
    """Return the rows that a model answered wrong: first those that TF-IDF has right, each by descending confidence.

    What TF-IDF has right is in the words, and a language model should have it. Of the others the confident ones are
    worth reading first: often the label is wrong. Answers without probabilities keep the order of the file.
    """
    wrong = [row for row in result["predictions"] if is_right(row, model) is False]
    return sorted(wrong, key=lambda row: (not is_right(row, "tfidf"), -max(row[model].get("probabilities", [0]))))


def is_right(row: Mapping[str, Any], model: str) -> bool | None:
    """Return whether a model's answer in a row of predictions is the true label; None if the model is not there."""
    return bool(row[model]["label"] == row["label"]) if model in row else None


def list_groups(report: Mapping[str, Any]) -> Iterator[Sequence[Any]]:
    """Yield the scores by domain and length."""
    for result in list_results(report):
        for model in MODELS:
            for group in result["models"].get(model, {}).get("groups", []):
                wrong = group["reviews"] - round(group["accuracy"] * group["reviews"])
                figures = (group["accuracy"], group["interval"]["low"], group["interval"]["high"], group["coverage"])
                yield (
                    result["data"]["test"]["file"], model, group["kind"], group["name"], group["reviews"], wrong,
                    *(f"{figure:.4f}" for figure in figures),
                )  # fmt: skip


def list_words(report: Mapping[str, Any]) -> Iterator[Sequence[Any]]:
    """Yield the words that are frequent in mistakes."""
    for result in list_results(report):
        for model, words in result["words"].items():
            for word in words:
                rate, p_value = f"{word['error_rate']:.4f}", f"{word['p_value']:.3g}"
                file = result["data"]["test"]["file"]
                yield (file, model, word["word"], word["reviews"], word["wrong"], rate, p_value)


def list_unparsed(report: Mapping[str, Any]) -> Iterator[Sequence[Any]]:
    """Yield the replies that state no label."""
    names = report["task"]["labels"]
    for result in list_results(report):
        for model in MODELS:
            for row in result["predictions"]:
                if model in row and row[model]["label"] is None:
                    yield (*_locate(row), model, names[row["label"]], row[model]["raw"], row["text"])
    for reply in report.get("written", {}).get("replies", ()):
        if reply["label"] is None:
            row = report["predictions"][reply["row"]]
            yield (*_locate(row), "written", names[row["label"]], reply["raw"], row["text"])


def _locate(row: Mapping[str, Any]) -> tuple[str, int | str]:
    source = row["source"]
    return (source["file"], source["line"]) if source else ("", "")


def _name(label: int | None, names: Sequence[str]) -> str:
    return "unparsed" if label is None else names[label]
