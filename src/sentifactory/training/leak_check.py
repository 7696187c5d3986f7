"""Before a run starts: are the reviews that it will be judged on among those that it is trained on?

Known to be judged on are the val and test files beside the training files, as their manifest has them, the recipe's
`eval_dataset`, and what the user names by `--test`. Where the recipe chooses a checkpoint, or its end, by the
`eval_dataset`, no test review may stand in that either.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sentifactory.corpus.leak_guard import LEAKS, LeakFinding, TrainFile, find_held_out, find_leaks, find_readable
from sentifactory.errors import DataError
from sentifactory.progress import say
from sentifactory.training.encoder_recipe import is_encoder_recipe
from sentifactory.training.recipe import Recipe
from sentifactory.training.recipe_checks import list_data_files

NOTHING_KNOWN = "No test file is known (--test FILE names one), so nothing was compared."


def check_recipe_leaks(recipe: Recipe, test_files: Sequence[str | Path], *, allow_leaks: bool) -> LeakFinding:
    """Refuse a recipe that trains on reviews which it will be judged on; say what was found.

    Args:
        recipe: names the training files; of each data set only the first `max_samples` rows count.
        test_files: what `--test` names.
        allow_leaks: say it, and go on.

    Raises:
        LeakError: when there is a leak.
        DataError: when test files were named and a file cannot be read as reviews.
    """
    train = list_train_files(recipe)
    held_out = find_held_out([one.path for one in train])
    judged_on = [path for _, path in list_data_files(recipe.settings, ["eval_dataset"])]
    finding = _compare(train, [*map(Path, test_files), *judged_on, *held_out], is_asked=bool(test_files))
    if chooses_by_validation(recipe) and finding.status != LEAKS:
        test = [*map(Path, test_files), *(file for file in held_out if file.stem == "test")]
        chosen_by = _compare([TrainFile(path) for path in judged_on], test, is_asked=bool(test_files))
        if chosen_by.status == LEAKS and chosen_by.report is not None:
            finding = replace(chosen_by, report=replace(chosen_by.report, seen_as="validation"))
    if not allow_leaks:
        finding.refuse(
            next_step="leave these reviews out of one of the files (sentifactory data check lists them all), or pass "
            "--allow_leaks, which the run card then says"
        )
    if finding.status == LEAKS:
        say(warn_of_leaks(finding))
    else:
        say(f"Leak check: {finding.summarise()}")
    return finding


def chooses_by_validation(recipe: Recipe) -> bool:
    """Return whether the validation reviews decide which weights are kept; those of an encoder recipe always do."""
    settings = recipe.settings
    is_asked_for = settings.get("load_best_model_at_end") or settings.get("early_stopping_steps")
    return is_encoder_recipe(recipe) or bool(is_asked_for)


def warn_of_leaks(finding: LeakFinding) -> str:
    """Return the line with which a run that was allowed to leak begins and ends."""
    return f"WARNING: the test is not honest (--allow_leaks). {finding.summarise()}"


def list_train_files(recipe: Recipe) -> list[TrainFile]:
    """Return the local files that a recipe trains on, with LLaMA-Factory's limit of rows."""
    files = list_data_files(recipe.settings, ["dataset"])
    taught = list_data_files(recipe.settings, ["soft_label_path"])
    n_files = Counter(name for name, _ in files)
    limit = recipe.settings.get("max_samples")
    # The limit is one for each data set: of a data set in several files all are compared.
    limited = [TrainFile(path, limit if n_files[name] == 1 else None) for name, path in files]
    return [*limited, *(TrainFile(path) for _, path in taught)]


def _compare(train: Sequence[TrainFile], test: Sequence[Path], *, is_asked: bool) -> LeakFinding:
    unknown = LeakFinding(tuple(str(one.path) for one in train), tuple(map(str, test)))
    if not train:
        return replace(unknown, problem="The training data are no local files, so nothing was compared.")
    if not test:
        return replace(unknown, problem=NOTHING_KNOWN)
    try:
        return find_leaks(train, test)
    except DataError as error:
        if is_asked:
            raise
        # Data of another kind are no fault of the recipe, and do not hide what stands in its other files.
        readable, why = find_readable(train)
        if readable and why:
            problem = f"Not all was compared, since a file cannot be read as reviews: {why}"
            found = _compare(readable, test, is_asked=False)
            return replace(found, train_files=unknown.train_files, problem=found.problem or problem)
        return replace(unknown, problem=f"Nothing was compared, since a file cannot be read as reviews: {error}")
