"""Before a comparison: has training seen the test reviews?

The training files are those of the tuned model's run card, and those that the user names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sentifactory.corpus.leak_guard import LEAKS, LeakFinding, TrainFile, find_leaks_by_file, find_readable
from sentifactory.corpus.manifest import hash_file
from sentifactory.corpus.shared_texts import EXACT, NEAR
from sentifactory.errors import DataError
from sentifactory.evaluation.verdict import Sentence, describe_overlap
from sentifactory.progress import say
from sentifactory.training.leak_check import list_train_files
from sentifactory.training.recipe import Recipe
from sentifactory.training.run_card import CARD_NAME, read_card

NO_TRAINING_FILE = (
    "No training file is known (the tuned model has no run card; --train_file names one), so nothing was compared."
)


@dataclass(frozen=True, slots=True)
class KnownTraining:
    """The training files of a model as its run card has them.

    Attributes:
        files: those that stand there as they were trained on.
        problem: why others cannot be compared, as a sentence.
    """

    files: list[TrainFile]
    problem: str = ""


def check_test_files(
    test_files: Sequence[str], tuned_model: str | None, named: Sequence[str], *, allow_leaks: bool
) -> tuple[list[LeakFinding], list[Sentence]]:
    """Refuse test files of which training has seen reviews; say what was found.

    Args:
        test_files: each with reviews to test on.
        tuned_model: folder of the tuned model; its run card tells what it was trained on. None: there is none.
        named: training files that the user names.
        allow_leaks: go on, with the warning.

    Returns:
        What was found in each, and the warnings with which the report begins.

    Raises:
        LeakError: when there is a leak.
        DataError: when a file that the user names cannot be read as reviews.
    """
    known = read_training(tuned_model) if tuned_model is not None else KnownTraining([])
    train = list(dict.fromkeys([*known.files, *(TrainFile(Path(name)) for name in named)]))
    found = [LeakFinding(test_files=(file,), problem=known.problem or NO_TRAINING_FILE) for file in test_files]
    if train:
        try:
            compared = find_leaks_by_file(train, [*map(Path, test_files)])
            found = [replace(one, problem=known.problem) for one in compared]
        except DataError as error:
            if named:
                raise
            readable, why = find_readable(train)
            if readable and why:
                problem = f"Not all was compared, since a file is not read as reviews: {why}"
                found = find_leaks_by_file(readable, [*map(Path, test_files)])
            else:
                problem = f"Nothing was compared, since a file is not read as reviews: {error}"
            found = [replace(one, problem=problem) for one in found]
    return _warn_or_refuse(found, "train", allow_leaks)


def check_validation_file(
    test_files: Sequence[str], val_file: str, *, allow_leaks: bool
) -> tuple[list[LeakFinding], list[Sentence]]:
    """Do the same for the reviews that calibrations are fitted on.

    Raises:
        LeakError: when there is a leak.
        DataError: when one of the files cannot be read as reviews.
    """
    found = find_leaks_by_file([TrainFile(Path(val_file))], [*map(Path, test_files)])
    return _warn_or_refuse(found, "val", allow_leaks)


def _warn_or_refuse(
    findings: list[LeakFinding], part: str, allow_leaks: bool
) -> tuple[list[LeakFinding], list[Sentence]]:
    warnings = []
    for finding in findings:
        if not allow_leaks:
            finding.refuse(
                next_step="leave them out of the test file (sentifactory data check --unseen writes it without them), "
                "or pass --allow_leaks, which the report then says first"
            )
        say(f"Leak check: {finding.summarise()}")
        if finding.status == LEAKS and finding.report is not None:
            file = finding.test_files[0]
            warnings.append(describe_overlap(finding.n_leaked, finding.report.n_test, file, part))
    return findings, warnings


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
        unparted = ((finding.report.n_unparted, n_train, "训练"), (finding.report.n_unparted_test, n_test, "测试"))
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


def read_training(model: str) -> KnownTraining:
    """Return what a model was trained on, by the run card in its folder."""
    card = read_card(model)
    if card is None or not isinstance(card.get("recipe"), dict):
        return KnownTraining([])
    stated = {item.get("file"): item.get("sha256") for item in card.get("data", ()) if isinstance(item, dict)}
    try:
        now = list_train_files(Recipe(Path(CARD_NAME), settings=card["recipe"]))
        same = [one for one in now if stated.get(str(one.path)) == hash_file(one.path)]
    except (OSError, ValueError):  # dataset_info.json is broken now
        now, same = [], []
    if now and len(same) == len(now):
        return KnownTraining(same)
    return KnownTraining(
        same,
        f"Not all of what {model} was trained on stands there as it was then, so not all was compared.",
    )
