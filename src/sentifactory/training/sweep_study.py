"""The Optuna side of a sweep: a study in a journal file, that a killed sweep finds again and goes on with.

What is proposed hangs on the seed and on the trials before, not on how often the sweep was started: a continued sweep
proposes what an undisturbed one would have proposed, as long as its trials ended alike.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentifactory.training.search_space import Space, count_points

if TYPE_CHECKING:
    from optuna.study import Study

JOURNAL = "optuna.journal"
_STUDY_NAME = "sweep"
# Proposals at random before the sampler goes by what it has seen.
_RANDOM_TRIALS = 5


def open_study(folder: Path, start: Mapping[str, Any] | None) -> Study:
    """Return the study in a folder, begun where there is none.

    The caller sees to it that no other process uses it.

    Args:
        folder: of the sweep.
        start: values of the first trial; None lets Optuna choose them.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = folder / JOURNAL
    _mend_journal(path)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(path))),
        study_name=_STUDY_NAME,
        direction="maximize",
        load_if_exists=True,
    )
    if start is not None and not study.get_trials(deepcopy=False):
        study.enqueue_trial(dict(start))
    return study


def _mend_journal(path: Path) -> None:
    """Remove what a process left that was killed while it wrote: the lock, and half a line at the end."""
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    if path.exists() and not (content := path.read_bytes()).endswith(b"\n"):
        with path.open("r+b") as stream:
            stream.truncate(content.rfind(b"\n") + 1)


def propose_trials(study: Study, space: Space, trials: int, seed: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield number and values of every trial that is to be run: first those that were killed, then new ones.

    Where all points of the space can be tried, each is tried once. Otherwise a tree-structured Parzen estimator
    proposes (Bergstra et al., Algorithms for Hyper-Parameter Optimization, 2011, as Optuna has it).

    Args:
        study: told of each trial's end by the caller, before the next one is asked for.
        space: what is searched.
        trials: trials of the whole sweep; a space with fewer points ends it earlier.
        seed: of the proposals.
    """
    from optuna.samplers import TPESampler
    from optuna.trial import TrialState

    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        if trial.params.keys() == space.keys():
            yield trial.number, trial.params
        else:  # killed in the instant between two values: there is nothing to continue
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
    """Return every point of a space whose values can be counted, in the order of a seed."""
    values = [dimension.list_values() for dimension in space.values()]
    points = [dict(zip(space, point, strict=True)) for point in itertools.product(*values)]
    random.Random(seed).shuffle(points)  # noqa: S311 - an order, not a secret
    return points


def list_trials(study: Study, space: Space) -> dict[int, dict[str, Any]]:
    """Return the values of every trial that was begun, by its number, the earliest first."""
    return {
        trial.number: trial.params
        for trial in study.get_trials(deepcopy=False)
        if trial.params.keys() == space.keys() and trial.state.name != "WAITING"
    }


def tell_end(study: Study, number: int, score: float | None) -> None:
    """Tell Optuna how a trial ended: its score, or None for one that failed."""
    from optuna.trial import TrialState

    if score is None:
        study.tell(number, state=TrialState.FAIL)
    else:
        study.tell(number, score)
