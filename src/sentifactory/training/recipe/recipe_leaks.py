"""Checks before a run that no validation or test review is among the training reviews.

Validation and test reviews are the val and test files that the manifest next to the training files lists, the recipe's
`eval_dataset`, and the files of `--test`. The training reviews are also those that the model learned from which the
recipe starts. Where the recipe selects a checkpoint or stops early by the `eval_dataset`,
that must not contain test reviews either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sentifactory.corpus.leakage.leak_guard import (
    LEAKS,
    LeakFinding,
    TrainFile,
    find_held_out,
    find_known_leaks,
    find_leaks,
    join_findings,
)
from sentifactory.system.progress import say
from sentifactory.training.recipe.known_training import list_train_files, read_earlier_training
from sentifactory.training.recipe.recipe import Recipe, is_encoder_recipe
from sentifactory.training.recipe.recipe_checks import list_data_files

NOTHING_KNOWN = "No test file is known (name one with --test FILE), so nothing was compared."


def check_recipe_leaks(recipe: Recipe, test_files: Sequence[str | Path], *, allow_leaks: bool) -> LeakFinding:
    """Refuse a recipe that trains on validation or test reviews, and report the result.

    Args:
        recipe: names the training files; only the first `max_samples` rows of each data set count.
        test_files: the files of `--test`.
        allow_leaks: report leaks without refusing.

    Raises:
        LeakError: when there is a leak.
        DataError: when `--test` was given and a file cannot be read as reviews.
    """
    own, earlier = list_train_files(recipe), read_earlier_training(recipe.settings)
    train = list(dict.fromkeys([*own, *earlier.files]))
    held_out = find_held_out([one.path for one in own])
    validation = [path for _, path in list_data_files(recipe.settings, ["eval_dataset"])]
    finding = _compare(train, [*map(Path, test_files), *validation, *held_out], is_asked=bool(test_files))
    finding = replace(finding, problem=finding.problem or earlier.problem).call(held_as="held-out")
    if chooses_by_validation(recipe) and finding.status != LEAKS:
        test = [*map(Path, test_files), *(file for file in held_out if file.stem == "test")]
        chosen_by = _compare([TrainFile(path) for path in validation], test, is_asked=bool(test_files))
        if chosen_by.status == LEAKS:
            finding = chosen_by.call(seen_as="validation")
    if not allow_leaks:
        finding.refuse(
            next_step="sentifactory data check lists them all, and with --unseen writes a test file without them; or "
            "pass --allow_leaks, which the run card records"
        )
    if finding.status == LEAKS:
        say(warn_of_leaks(finding))
    else:
        say(f"Leak check: {finding.summarise()}")
    return finding


def chooses_by_validation(recipe: Recipe) -> bool:
    """Return whether the validation reviews decide which weights are kept; for encoder recipes they always do."""
    settings = recipe.settings
    is_asked_for = settings.get("load_best_model_at_end") or settings.get("early_stopping_steps")
    return is_encoder_recipe(recipe) or bool(is_asked_for)


def warn_of_leaks(finding: LeakFinding) -> str:
    """Return the warning of a run with allowed leaks, shown at its start and end."""
    return f"WARNING: the evaluation is contaminated (--allow_leaks). {finding.summarise()}"


def _compare(train: Sequence[TrainFile], test: Sequence[Path], *, is_asked: bool) -> LeakFinding:
    unknown = LeakFinding(tuple(str(one.path) for one in train), tuple(map(str, test)))
    if not train:
        return replace(unknown, problem="The training data are not local files, so nothing was compared.")
    if not test:
        return replace(unknown, problem=NOTHING_KNOWN)
    if is_asked:
        return find_leaks(train, test)
    findings, problem = find_known_leaks(train, test)
    found = join_findings(findings) if findings else unknown
    return replace(found, train_files=unknown.train_files, problem=problem)
