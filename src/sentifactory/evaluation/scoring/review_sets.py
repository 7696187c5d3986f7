"""Reads the reviews of a comparison: test files, validation and training reviews, and checks them for leaks."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sentifactory.bilingual import Sentence, list_labels
from sentifactory.corpus.cleaning.text_keys import make_keys
from sentifactory.corpus.dataset.dataset_files import read_labelled
from sentifactory.corpus.dataset.manifest import count_labels
from sentifactory.corpus.splitting.sampling import take_sample
from sentifactory.errors import ConfigError
from sentifactory.evaluation.scoring.comparison_leaks import (
    check_saved_calibrations,
    check_test_files,
    check_validation_file,
    check_validation_unseen,
    describe_finding,
)
from sentifactory.records import Review
from sentifactory.system.fingerprint import hash_file
from sentifactory.task.model_folder import MANIFEST
from sentifactory.task.task import Task

# Fewer repeats than this share change no interval that anybody could see.
_MANY_REPEATS = 0.01


@dataclass(frozen=True, slots=True)
class ReviewOptions:
    """Which reviews a comparison uses.

    Attributes:
        csv_paths: the test files; the verdict is about the first.
        val_path: validation reviews.
        train_csv: training reviews.
        train_files: further training files, in addition to those of the models' run cards.
        models: folders of the models that are compared, the tuned one first; run cards list their training files.
        train_samples: only the first rows of `train_csv` are used; all of it is checked for leaks.
        max_samples: most reviews to ask of each test file.
        seed: of the sample.
        allow_leaks: continue although test reviews are among the training or validation reviews.
        uses_saved_calibrations: whether the calibrations in the models' folders are used: then test reviews may not be
            among those that these were fitted on either.
    """

    csv_paths: tuple[str, ...]
    val_path: str | None = None
    train_csv: str | None = None
    train_files: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    train_samples: int | None = None
    max_samples: int | None = None
    seed: int = 42
    allow_leaks: bool = False
    uses_saved_calibrations: bool = False


@dataclass(frozen=True, slots=True)
class TestSet:
    """One file of test reviews.

    Attributes:
        name: the file, as the user gave it.
        reviews: those that are asked.
        everything: all reviews of the file that have a text.
        facts: what the report says about the file.
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
        val: validation reviews; empty where none were given.
        train: training reviews that are used; empty where none were given.
        all_train: all training reviews, where `train` is only a part of them; else empty.
        facts: what the report says about validation and training reviews.
        warnings: what a reader must know first.
    """

    tests: list[TestSet]
    val: list[Review] = field(default_factory=list)
    train: list[Review] = field(default_factory=list)
    all_train: list[Review] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    warnings: list[Sentence] = field(default_factory=list)


def read_review_sets(options: ReviewOptions, task: Task) -> ReviewSets:
    """Read all files, check them for leaks, and draw the samples.

    Raises:
        ConfigError: when a file is named twice.
        DataError: when a file cannot be used.
        LeakError: when test reviews are among the training or validation reviews.
    """
    names = options.csv_paths
    if len({Path(name).resolve() for name in names}) < len(names):
        raise ConfigError(
            "A test file is named twice", where="--csv_path", expected="different files", code="test-file-twice"
        )
    tests = [read_test_set(name, options, task) for name in names]
    sets = ReviewSets(tests)
    check_leaks(sets, options, task)
    for test in tests:
        sets.warnings.extend(warn_of_repeats(test))
        sets.warnings.extend(warn_of_absent_labels(test))
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
        if len(train) < len(seen):
            sets.all_train.extend(seen)
    return sets


def read_test_set(name: str, options: ReviewOptions, task: Task) -> TestSet:
    """Read one test file and draw the sample; raises what `read_labelled` raises."""
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


def warn_of_repeats(test: TestSet) -> list[Sentence]:
    """Return the warning that one review in a hundred, or more, repeats another one's text; else []."""
    n = len(test.reviews)
    n_repeats = n - len(set(make_keys([review.text for review in test.reviews])))
    if n_repeats < _MANY_REPEATS * n:
        return []
    return [
        Sentence.write(
            f"{n_repeats} of the {n} test reviews repeat the text of another one ({test.name}): they say nothing new, "
            "so the intervals are too narrow and the p-values too small. sentifactory data prepare leaves them out.",
            f"{n} 条测试评论中有 {n_repeats} 条与其他评论文本相同（{test.name}）：它们不提供新的信息，"
            "因此置信区间偏窄、p 值偏小。sentifactory data prepare 会去除重复评论。",
        )
    ]


def warn_of_absent_labels(test: TestSet) -> list[Sentence]:
    """Return the warning that no test review has some label of the task; [] where all labels are there."""
    absent = list_labels(name for name, n in test.facts["asked_labels"].items() if not n)
    if not absent.en:
        return []
    return [
        Sentence.write(
            f"No test review is {absent.en} ({test.name}): the accuracy says nothing about such reviews, and macro F1 "
            "and MCC cannot be high, however good a model is.",
            f"测试评论中没有{absent.zh}评论（{test.name}）：准确率不能说明模型在这类评论上的表现，"
            "宏平均 F1 和 MCC 也必然偏低，与模型好坏无关。",
        )
    ]


def describe_file(name: str, reviews: list[Review]) -> dict[str, Any]:
    """Return file, hash, number of reviews, and the hash of the manifest of a prepared file."""
    facts: dict[str, Any] = {"file": name, "sha256": hash_file(Path(name)), "reviews": len(reviews)}
    manifest = Path(name).with_name(MANIFEST)
    if manifest.is_file():
        facts["manifest_sha256"] = hash_file(manifest)
    return facts


def check_leaks(sets: ReviewSets, options: ReviewOptions, task: Task) -> None:
    """Refuse test reviews that are among the training or validation reviews; where that is allowed, record them.

    Raises:
        LeakError: when there are any and they are not allowed.
    """
    names = [test.name for test in sets.tests]
    named = [*options.train_files, *([options.train_csv] if options.train_csv else [])]
    found, warnings = check_test_files(names, options.models, named, allow_leaks=options.allow_leaks)
    for test, finding in zip(sets.tests, found, strict=True):
        test.facts["leak_check"] = {**finding.to_json(), "sentence": asdict(describe_finding(finding))}
    sets.warnings.extend(warnings)
    if options.uses_saved_calibrations:
        fitted = check_saved_calibrations(names, options.models, task, allow_leaks=options.allow_leaks)
        sets.warnings.extend(fitted)
    if options.val_path is not None:
        trained = check_validation_unseen(options.val_path, options.models, named, allow_leaks=options.allow_leaks)
        sets.warnings.extend(trained)
        found, warnings = check_validation_file(names, options.val_path, allow_leaks=options.allow_leaks)
        for test, finding in zip(sets.tests, found, strict=True):
            test.facts["leaked_from_val"] = finding.n_leaked
        sets.warnings.extend(warnings)
