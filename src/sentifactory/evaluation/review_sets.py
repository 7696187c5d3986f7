"""The reviews of a comparison: one or more test files, validation and training reviews, and that none has leaked."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sentifactory.corpus.manifest import count_labels, hash_file
from sentifactory.corpus.sampling import read_labelled, take_sample
from sentifactory.errors import ConfigError
from sentifactory.evaluation.leak_check import check_test_files, check_validation_file, describe_finding
from sentifactory.evaluation.verdict import Sentence
from sentifactory.records import Review
from sentifactory.task import Task

MANIFEST_NAME = "manifest.json"


@dataclass(frozen=True, slots=True)
class ReviewOptions:
    """Which reviews a comparison is about.

    Attributes:
        csv_paths: the test files; the verdict is about the first.
        val_path: validation reviews.
        train_csv: what training saw.
        train_files: further files that training saw, besides those of the tuned model's run card.
        tuned_model: its run card tells what it was trained on; None: there is no such model.
        train_samples: only the first so many rows of `train_csv` are learnt from; all of it is looked at for leaks.
        max_samples: most reviews to ask of each test file.
        seed: chooses the sample.
        allow_leaks: go on although test reviews stand among the others.
    """

    csv_paths: tuple[str, ...]
    val_path: str | None = None
    train_csv: str | None = None
    train_files: tuple[str, ...] = ()
    tuned_model: str | None = None
    train_samples: int | None = None
    max_samples: int | None = None
    seed: int = 42
    allow_leaks: bool = False


@dataclass(frozen=True, slots=True)
class TestSet:
    """One file of test reviews.

    Attributes:
        name: the file, as the user gave it.
        reviews: those that are asked.
        everything: all of the file that has a text.
        facts: what the report says about it.
    """

    name: str
    reviews: list[Review]
    everything: list[Review]
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ReviewSets:
    """The reviews of a comparison.

    Attributes:
        tests: the test files; the verdict is about the first.
        val: validation reviews, empty where none were given.
        train: what TF-IDF learns from, empty where none were given.
        facts: what the report says about validation and training reviews.
        warnings: what a reader must know first.
    """

    tests: list[TestSet]
    val: list[Review] = field(default_factory=list)
    train: list[Review] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    warnings: list[Sentence] = field(default_factory=list)


def read_review_sets(options: ReviewOptions, task: Task) -> ReviewSets:
    """Read all files, refuse what training or validation has seen, and take the samples.

    Raises:
        ConfigError: when a file is named twice.
        DataError: when a file cannot be used.
        LeakError: when test reviews stand among the training or validation reviews.
    """
    names = options.csv_paths
    if len({Path(name).resolve() for name in names}) < len(names):
        raise ConfigError("A test file is named twice", where="--csv_path", expected="different files")
    tests = [read_test_set(name, options, task) for name in names]
    sets = ReviewSets(tests)
    note_leaks(sets, options)
    if options.val_path is not None:
        val, _ = read_labelled(options.val_path, task)
        sets.val.extend(val)
        sets.facts["val"] = describe_file(options.val_path, val)
    if options.train_csv is not None:
        seen, _ = read_labelled(options.train_csv, task)
        sets.facts["train"] = describe_file(options.train_csv, seen)
        train = seen
        if options.train_samples is not None:
            train, _ = read_labelled(options.train_csv, task, options.train_samples)
        sets.train.extend(train)
        sets.facts["train"]["used_by_tfidf"] = len(train)
    return sets


def read_test_set(name: str, options: ReviewOptions, task: Task) -> TestSet:
    """Read one test file and take the sample; raises what `read_labelled` raises."""
    everything, n_empty = read_labelled(name, task)
    asked = take_sample(everything, options.max_samples, options.seed)
    facts = {
        **describe_file(name, everything),
        "rows_without_text": n_empty,
        "labels": count_labels(everything, task),
        "asked": len(asked),
        "asked_labels": count_labels(asked, task),
        "sampling": "all reviews" if len(asked) == len(everything) else "stratified: class shares of the file",
        "seed": options.seed,
    }
    return TestSet(name, asked, everything, facts)


def describe_file(name: str, reviews: list[Review]) -> dict[str, Any]:
    """Return file, hash and number of reviews, and the hash of the manifest that stands beside a prepared file."""
    facts: dict[str, Any] = {"file": name, "sha256": hash_file(Path(name)), "reviews": len(reviews)}
    manifest = Path(name).with_name(MANIFEST_NAME)
    if manifest.is_file():
        facts["manifest_sha256"] = hash_file(manifest)
    return facts


def note_leaks(sets: ReviewSets, options: ReviewOptions) -> None:
    """Refuse test files of which training or validation has seen reviews, or write them down where that is allowed.

    Raises:
        LeakError: when there are any and they are not allowed.
    """
    names = [test.name for test in sets.tests]
    named = [*options.train_files, *([options.train_csv] if options.train_csv else [])]
    found, warnings = check_test_files(names, options.tuned_model, named, allow_leaks=options.allow_leaks)
    for test, finding in zip(sets.tests, found, strict=True):
        test.facts["leak_check"] = {**finding.to_json(), "sentence": asdict(describe_finding(finding))}
    sets.warnings.extend(warnings)
    if options.val_path is not None:
        found, warnings = check_validation_file(names, options.val_path, allow_leaks=options.allow_leaks)
        for test, finding in zip(sets.tests, found, strict=True):
            test.facts["leaked_from_val"] = finding.n_leaked
        sets.warnings.extend(warnings)
