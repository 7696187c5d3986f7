"""Checks before a comparison whether training has seen the test reviews.

The training files are those of the run cards of all models that are compared, and those that the user names. A model
that was trained further has those of the model that its training started from as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sentifactory.bilingual import PARTS, Sentence
from sentifactory.corpus.leakage.leak_guard import LEAKS, LeakFinding, TrainFile, find_known_leaks, find_leaks_by_file
from sentifactory.corpus.leakage.overlap import EXACT, NEAR
from sentifactory.engines.local.stack_folder import find_member, is_fitted_on
from sentifactory.errors import ConfigError, LeakError
from sentifactory.metrics.calibration import find_calibration
from sentifactory.system.fingerprint import hash_file
from sentifactory.system.progress import say
from sentifactory.task.task import Task
from sentifactory.training.recipe.known_training import read_training

NO_TRAINING_FILE = (
    "No training file is known (the tuned model has no run card; --train_file names one), so nothing was compared."
)

OTHER_VALIDATION = (
    "take other validation reviews, or a copy of the file without these (sentifactory data check --unseen writes one)"
)


def check_test_files(
    test_files: Sequence[str], models: Sequence[str], named: Sequence[str], *, allow_leaks: bool
) -> tuple[list[LeakFinding], list[Sentence]]:
    """Refuse test files with reviews that training has seen.

    Args:
        test_files: files of test reviews.
        models: folders of the models that are compared, whose run cards list their training files, the tuned one
            first.
        named: training files that the user names.
        allow_leaks: warn and continue.

    Returns:
        What was found in each file, and the warnings with which the report begins.

    Raises:
        LeakError: when there is a leak.
        DataError: when a file that the user names cannot be read as reviews.
    """
    return _warn_or_refuse(compare_with_training(test_files, models, named), "train", allow_leaks)


def compare_with_training(test_files: Sequence[str], models: Sequence[str], named: Sequence[str]) -> list[LeakFinding]:
    """Return for each file what training has seen of it; arguments and errors are those of `check_test_files`.

    A test file that is one of the training files is known by its hash, wherever that lay then.
    """
    known = [read_training(model) for model in models]
    # Of a base model from a hub nothing is known, and nothing is missed; of a tuned one there should be something.
    missing = "" if named or (known and (known[0].files or known[0].problem)) else NO_TRAINING_FILE
    missing = next((one.problem for one in known if one.problem), missing)
    files = [file for one in known for file in one.files]
    hashes = frozenset[str]().union(*(one.hashes for one in known))
    trained_on = [name for name in test_files if Path(name).is_file() and hash_file(Path(name)) in hashes]
    train = list(dict.fromkeys([*files, *(TrainFile(Path(name)) for name in (*named, *trained_on))]))
    found = [LeakFinding(test_files=(file,), problem=missing) for file in test_files]
    if train:
        tests = [*map(Path, test_files)]
        compared, problem = (find_leaks_by_file(train, tests), "") if named else find_known_leaks(train, tests)
        found = [replace(one, problem=problem or missing) for one in compared or found]
    return found


def check_validation_file(
    test_files: Sequence[str], val_file: str, *, allow_leaks: bool
) -> tuple[list[LeakFinding], list[Sentence]]:
    """Do the same as `check_test_files` for the reviews on which calibrations are fitted.

    Raises:
        LeakError: when there is a leak.
        DataError: when one of the files cannot be read as reviews.
    """
    found = find_leaks_by_file([TrainFile(Path(val_file))], [*map(Path, test_files)])
    return _warn_or_refuse([one.call(seen_as="validation") for one in found], "val", allow_leaks)


def check_saved_calibrations(
    test_files: Sequence[str], models: Sequence[str], task: Task, *, allow_leaks: bool
) -> list[Sentence]:
    """Refuse test files with reviews that the calibrations saved with models were fitted on.

    A test file that is one of the fitted files is known by its hash. Fitted files that are not here any more, or were
    changed, cannot be compared.

    Args:
        test_files: files of test reviews.
        models: folders; other names of models have no calibration.
        task: what is asked; calibrations of another prompt are not used.
        allow_leaks: warn and continue.

    Returns:
        The warnings with which the report begins.

    Raises:
        LeakError: when there is a leak.
    """
    tests = {hash_file(Path(name)): name for name in test_files}
    warnings = []
    for model in models:
        try:
            calibration = find_calibration(model, task)
        except ConfigError:  # whoever uses it says what is wrong with it
            continue
        fitted_on = calibration.fitted_on if calibration is not None else {}
        sha256, place = fitted_on.get("sha256"), Path(str(fitted_on.get("file")))
        place = Path(tests[sha256]) if sha256 in tests else place
        if not place.is_file() or hash_file(place) != sha256:
            continue
        for finding in find_leaks_by_file([TrainFile(place)], [*map(Path, test_files)]):
            if finding.status != LEAKS or finding.report is None:
                continue
            (file,), n, total = finding.test_files, finding.n_leaked, finding.report.n_test
            if not allow_leaks:
                raise LeakError(
                    f"{n} of the {total} test reviews are among those that the calibration of {model} was fitted on",
                    where=file,
                    expected="test reviews that nothing was fitted on",
                    next_step="take other test reviews, or give --val_path, so that a calibration is fitted anew; "
                    "with --allow_leaks the report begins with a warning",
                )
            warnings.append(
                Sentence.write(
                    f"{n} of the {total} test reviews are among those that the calibration of {model} was fitted on "
                    f"({file}): its probabilities and thresholds look better than they are.",
                    f"{total} 条测试评论中有 {n} 条曾用于拟合 {model} 的校准（{file}），其概率和阈值因此偏好。",
                )
            )
    return warnings


def check_validation_unseen(
    val_file: str, models: Sequence[str], named: Sequence[str], *, allow_leaks: bool
) -> list[Sentence]:
    """Refuse validation reviews that training has seen: what is fitted on them would hold for no other review.

    Arguments are those of `check_test_files`. Of a stack that was fitted on this very file, only the model within
    counts: the stack keeps its own calibration (`choose_calibration`).

    Returns:
        A warning where there are such reviews and that is allowed; else [].

    Raises:
        LeakError: when there are any.
        DataError: when a file that the user names cannot be read as reviews.
    """
    sha256 = hash_file(Path(val_file))
    counted = [find_member(model) if is_fitted_on(model, sha256) else model for model in models]
    (finding,) = compare_with_training([val_file], counted, named)
    if finding.status != LEAKS or finding.report is None:
        return []
    if not allow_leaks:
        finding.call(held_as="validation").refuse(next_step=OTHER_VALIDATION)
    n, total = finding.n_leaked, finding.report.n_test
    return [
        Sentence.write(
            f"{n} of the {total} validation reviews are also among the training reviews ({val_file}): calibrations "
            "and thresholds are fitted on answers that are too good.",
            f"{total} 条验证评论中有 {n} 条也出现在训练评论中（{val_file}）：校准和阈值据此拟合，会过于乐观。",
        )
    ]


def _warn_or_refuse(
    findings: list[LeakFinding], part: str, allow_leaks: bool
) -> tuple[list[LeakFinding], list[Sentence]]:
    warnings = []
    for finding in findings:
        if not allow_leaks:
            finding.refuse(
                next_step="leave them out of the test file (sentifactory data check --unseen writes it without them), "
                "or pass --allow_leaks; the report then begins with a warning"
            )
        say(f"Leak check: {finding.summarise()}")
        if finding.status == LEAKS and finding.report is not None:
            file = finding.test_files[0]
            warnings.append(describe_leaks(finding.n_leaked, finding.report.n_test, file, part))
    return findings, warnings


def describe_leaks(n_overlaps: int, n_test: int, file: str, part: str) -> Sentence:
    """Return the warning that test reviews of a file were seen in a part (`train` or `val`)."""
    part_en, part_zh = PARTS[part]
    return Sentence.write(
        f"{n_overlaps} of the {n_test} test reviews are also among the {part_en} reviews ({file}): the accuracies are "
        "too high.",
        f"{n_test} 条测试评论中有 {n_overlaps} 条也出现在{part_zh}的评论中（{file}），准确率因此偏高。",
    )


def describe_finding(finding: LeakFinding) -> Sentence:
    """Return what was found, for the report."""
    zh = []
    if finding.report is not None:
        n_test, n_train, counts = finding.report.n_test, finding.report.n_train, finding.report.count_leaked()
        zh.append(
            f"{n_test} 条测试评论均未出现在 {n_train} 条训练评论中。"
            if finding.report.is_clean
            else f"{n_test} 条测试评论中有 {finding.n_leaked} 条出现在 {n_train} 条训练评论中："
            f"完全相同 {counts[EXACT]} 条，近似重复 {counts[NEAR]} 条。"
        )
        unparted = ((finding.report.n_unsplit, n_train, "训练"), (finding.report.n_unsplit_test, n_test, "测试"))
        zh += [
            f"{n_rows} 条{part}数据中有 {n} 条无法区分评论与提示词，已按整段文本比对。"
            for n, n_rows, part in unparted
            if n
        ]
    if finding.manifests:
        zh.append(f"清单 {'、'.join(finding.manifests)} 证明这些文件之间没有相同的文本。")
    if finding.problem:
        zh.append("未能全部比对：训练文件未知、已有改动或无法读取。")
    return Sentence.write(finding.summarise(), "".join(zh))
