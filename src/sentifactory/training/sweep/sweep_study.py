"""The Optuna study of a sweep, in a journal file from which an interrupted sweep continues.

Proposals depend on the seed and the earlier trials, not on how often the sweep was started: a continued sweep proposes
what an uninterrupted one would have, as long as its trials have the same results.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentifactory.training.sweep.search_space import Space, count_points

if TYPE_CHECKING:
    from optuna.study import Study

JOURNAL = "optuna.journal"
_STUDY_NAME = "sweep"
# Random proposals before the sampler uses earlier results.
_RANDOM_TRIALS = 5


def open_study(folder: Path, start: Mapping[str, Any] | None) -> Study:
    """Open the study in a folder, or create it.

    The caller ensures that no other process uses it.

    Args:
        folder: of the sweep.
        start: values of the first trial; None: chosen by Optuna.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = folder / JOURNAL
    _repair_journal(path)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(path))),
        study_name=_STUDY_NAME,
        direction="maximize",
        load_if_exists=True,
    )
    if start is not None and not study.get_trials(deepcopy=False):
        study.enqueue_trial(dict(start))
    return study


def _repair_journal(path: Path) -> None:
    """Remove what a process killed while writing leaves behind: the lock, and a partial last line."""
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    if path.exists() and not (content := path.read_bytes()).endswith(b"\n"):
        with path.open("r+b") as stream:
            stream.truncate(content.rfind(b"\n") + 1)


def propose_trials(study: Study, space: Space, trials: int, seed: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield number and values of every trial to run: first killed ones, then new ones.

    Where the number of trials suffices for all points of the space, each is tried once. Otherwise Optuna's
    tree-structured Parzen estimator proposes (Bergstra et al., Algorithms for Hyper-Parameter Optimization, 2011).

    Args:
        study: the caller records the result of each trial before requesting the next one.
        space: the search space.
        trials: total number; a space with fewer points ends the sweep earlier.
        seed: of the proposals.
    """
    from optuna.samplers import TPESampler
    from optuna.trial import TrialState

    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        if trial.params.keys() == space.keys():
            yield trial.number, trial.params
        else:  # killed between two suggestions: there is nothing to continue
            study.tell(trial.number, state=TrialState.FAIL)
    n_points = count_points(space)
    is_exhaustive = n_points is not None and n_points <= trials
    limit = n_points if is_exhaustive and n_points is not None else trials
    while len(begun := list_trials(study, space)) < limit:
        if not is_exhaustive:
            study.sampler = TPESampler(seed=seed + len(begun), n_startup_trials=_RANDOM_TRIALS)
        elif not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            untried = (point for point in shuffle_points(space, seed) if point not in begun.values())
            study.enqueue_trial(next(untried))
        asked = study.ask()
        yield asked.number, {key: dimension.suggest(asked) for key, dimension in space.items()}


def shuffle_points(space: Space, seed: int) -> list[dict[str, Any]]:
    """Return every point of a countable space, in random order."""
    values = [dimension.list_values() for dimension in space.values()]
    points = [dict(zip(space, point, strict=True)) for point in itertools.product(*values)]
    random.Random(seed).shuffle(points)  # noqa: S311 - an order, not a secret
    return points


def list_trials(study: Study, space: Space) -> dict[int, dict[str, Any]]:
    """Return the values of every started trial by number, in order."""
    return {
        trial.number: trial.params
        for trial in study.get_trials(deepcopy=False)
        if trial.params.keys() == space.keys() and trial.state.name != "WAITING"
    }


def tell_result(study: Study, number: int, score: float | None) -> None:
    """Record the score of a trial in the study; None for a failed one."""
    from optuna.trial import TrialState

    if score is None:
        study.tell(number, state=TrialState.FAIL)
    else:
        study.tell(number, score)
