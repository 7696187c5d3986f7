"""The mistakes of a comparison as CSV files, for a spreadsheet: flips, surest mistakes, groups, words, unparsed."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sentifactory.atomic import replace_directory
from sentifactory.errors import ConfigError

MODELS = ("base", "tuned", "tfidf")
_FILES = ("flips.csv", "surest.csv", "groups.csv", "words.csv", "unparsed.csv")


def check_mistakes_place(folder: Path) -> None:
    """Make sure that the folder of tables, which is made anew, replaces nothing else.

    Raises:
        ConfigError: when other files stand there.
    """
    if folder.exists() and (not folder.is_dir() or any(path.name not in _FILES for path in folder.iterdir())):
        raise ConfigError(
            "The tables of mistakes would replace something else",
            where=str(folder),
            expected="a free place beside the report",
            next_step="choose another --output_file",
        )


def write_mistakes(report: Mapping[str, Any], folder: Path) -> None:
    """Write flips.csv, surest.csv, groups.csv, words.csv and unparsed.csv into a folder that is made anew.

    Each row names its test file. Texts stand as they are.

    Raises:
        ConfigError: when the folder may not be written.
    """
    tables: dict[str, tuple[Sequence[str], Iterable[Sequence[Any]]]] = {
        "flips.csv": (("test", "line", "flip", "label", "base", "tuned", "text"), list_flips(report)),
        "surest.csv": (("test", "line", "model", "label", "answer", "probability", "text"), list_surest(report)),
        "groups.csv": (
            ("test", "model", "kind", "group", "reviews", "wrong", "accuracy", "low", "high", "coverage"),
            list_groups(report),
        ),
        "words.csv": (("test", "model", "word", "reviews", "wrong", "error_rate", "p_value"), list_words(report)),
        "unparsed.csv": (("test", "line", "model", "label", "reply", "text"), list_unparsed(report)),
    }
    with replace_directory(folder) as place:
        for name, (header, rows) in tables.items():
            with (place / name).open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
                writer = csv.writer(stream, lineterminator="\n")
                writer.writerow(header)
                writer.writerows(rows)


def each_test(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the results of all test files, the first one first."""
    return [report, *report["further_tests"]]


def list_flips(report: Mapping[str, Any]) -> Iterator[Sequence[Any]]:
    """Yield what tuning put right (`fixed`) and wrong (`broken`)."""
    names = report["task"]["labels"]
    for result in each_test(report):
        for row in result["predictions"]:
            was_right, is_right = (row[side]["label"] == row["label"] for side in ("base", "tuned"))
            if was_right != is_right:
                answers = [_name(row[side]["label"], names) for side in ("base", "tuned")]
                flip = "fixed" if is_right else "broken"
                yield (*_place(row), flip, names[row["label"]], *answers, row["text"])


def list_surest(report: Mapping[str, Any]) -> Iterator[Sequence[Any]]:
    """Yield every wrong answer that has a probability, by model, the surest first."""
    names = report["task"]["labels"]
    for result in each_test(report):
        for model in MODELS:
            for row in find_surest(result, model):
                answer = row[model]
                share = f"{max(answer['probabilities']):.6f}"
                yield (*_place(row), model, names[row["label"]], _name(answer["label"], names), share, row["text"])


def find_surest(result: Mapping[str, Any], model: str) -> list[Mapping[str, Any]]:
    """Return the rows of one test file that a model has wrong, the surest first; none without probabilities.

    What a good model is surest of and has wrong is worth reading first: often it is the label that is wrong.
    """
    wrong = [
        row
        for row in result["predictions"]
        if model in row and "probabilities" in row[model] and row[model]["label"] != row["label"]
    ]
    return sorted(wrong, key=lambda row: -max(row[model]["probabilities"]))


def list_groups(report: Mapping[str, Any]) -> Iterator[Sequence[Any]]:
    """Yield the scores by domain and length."""
    for result in each_test(report):
        for model in MODELS:
            for group in result["models"].get(model, {}).get("groups", []):
                wrong = group["reviews"] - round(group["accuracy"] * group["reviews"])
                figures = (group["accuracy"], group["interval"]["low"], group["interval"]["high"], group["coverage"])
                yield (
                    result["data"]["test"]["file"], model, group["kind"], group["name"], group["reviews"], wrong,
                    *(f"{figure:.4f}" for figure in figures),
                )  # fmt: skip


def list_words(report: Mapping[str, Any]) -> Iterator[Sequence[Any]]:
    """Yield the words that go with mistakes."""
    for result in each_test(report):
        for model, words in result["words"].items():
            for word in words:
                rate, p_value = f"{word['error_rate']:.4f}", f"{word['p_value']:.3g}"
                yield (
                    result["data"]["test"]["file"],
                    model,
                    word["word"],
                    word["reviews"],
                    word["wrong"],
                    rate,
                    p_value,
                )


def list_unparsed(report: Mapping[str, Any]) -> Iterator[Sequence[Any]]:
    """Yield the replies that state no label."""
    names = report["task"]["labels"]
    for result in each_test(report):
        for model in MODELS:
            for row in result["predictions"]:
                if model in row and row[model]["label"] is None:
                    yield (*_place(row), model, names[row["label"]], row[model]["raw"], row["text"])


def _place(row: Mapping[str, Any]) -> tuple[str, int | str]:
    source = row["source"]
    return (source["file"], source["line"]) if source else ("", "")


def _name(label: int | None, names: Sequence[str]) -> str:
    return "unparsed" if label is None else names[label]
