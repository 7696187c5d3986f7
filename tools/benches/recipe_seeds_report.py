"""The figures of the models of a recipe: means over the seeds, their intervals, and differences.

The intervals are bootstrapped over the test reviews: a review is drawn with the answers of all seeds, because these
answer the same reviews and are no independent evidence. Wilson's interval of the mean would take each review as right
or wrong and ignore that averaging over seeds removes some of the chance; and it exists for no difference. The price:
the interval of an accuracy of 100 % has no width. How far the seeds are apart is not part of the intervals (three of
them do not say), so each seed's own accuracy stands beside the mean.

A difference is tested for each seed by the exact McNemar test. Its largest p-value belongs to the claim that every one
of these models differs, at the level of a single test (an intersection-union test: Berger 1982, Technometrics
24:295-300). It is not corrected for the number of recipes and test files.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentifactory.evaluation.report.shown_paths import hide_folders
from sentifactory.metrics.bootstrap import draw_tables
from sentifactory.metrics.significance import Interval, compare_paired, take_percentiles
from sentifactory.system.atomic import write_json, write_text
from sentifactory.system.command_line import describe_command
from sentifactory.system.hardware import describe_machine
from sentifactory.training.run.provenance import describe_versions
from sentifactory.training.run.run_card import read_now
from tools.docs.seeds_part import write_seeds_part

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDES = ("tuned", "tfidf_same", "tfidf_all", "stack")
# The second minus the first.
PAIRS = (("tfidf_same", "tuned"), ("tfidf_all", "tuned"), ("tuned", "stack"), ("tfidf_all", "stack"))

# Whether each review of a test file is answered right (n_reviews,), by side and seed.
Rights = Mapping[str, Mapping[str, Sequence[bool]]]
# By recipe and test file.
RecipeRights = dict[str, dict[str, dict[str, dict[str, list[bool]]]]]


def report_seeds(report_file: Path, rights: RecipeRights, facts: Mapping[str, Any]) -> str:
    """Write the report as JSON and, next to it, as Markdown, and return the table.

    Args:
        report_file: the JSON file.
        rights: which reviews are answered right.
        facts: what else the report says: `models`, `tests`, `train`, `val`.
    """
    report = hide_folders(
        {
            "created_at": read_now(),
            "rows": [row for recipe, by_test in rights.items() for row in summarise_recipe(recipe, by_test)],
            **facts,
            "versions": describe_versions([]),
            "machine": describe_machine(),
            "command": describe_command(),
        }
    )
    table = write_seeds_part(report, "en")
    write_json(report_file, report)
    write_text(
        report_file.with_suffix(".md"),
        f"# Tuned models on reviews that nobody tuned on\n\n{table}\n\nCommand: `{report['command']}`\n",
    )
    return table


def summarise_recipe(recipe: str, by_test: Mapping[str, Rights]) -> list[dict[str, Any]]:
    """Return the figures of a recipe on each test file and, where there are several, the means of all files."""
    rows = [describe_row(recipe, test, [rights]) for test, rights in by_test.items()]
    if len(by_test) > 1:
        rows.append(describe_row(recipe, None, [*by_test.values()]))
    return rows


def describe_row(recipe: str, test: str | None, sets: Sequence[Rights]) -> dict[str, Any]:
    """Return the figures of a recipe on one test file, or the means over several, each of which counts the same.

    Differences over several files have an interval, and no p-value: the test knows reviews, and not files.

    Args:
        recipe: name of the recipe.
        test: name of the test file; None for the means.
        sets: one for each test file.
    """
    differences = {
        f"{second} - {first}": describe_difference([(rights[first], rights[second]) for rights in sets])
        for first, second in PAIRS
    }
    return {
        "recipe": recipe,
        "test": test,
        "reviews": sum(len(next(iter(rights["tuned"].values()))) for rights in sets),
        "sides": {side: describe_side([rights[side] for rights in sets]) for side in SIDES},
        "differences": differences,
    }


def describe_side(sets: Sequence[Mapping[str, Sequence[bool]]]) -> dict[str, Any]:
    """Return mean accuracy, its interval and the accuracy of each seed.

    Args:
        sets: of each test file, whether each review is answered right (n_reviews,) by seed.
    """
    accuracy, interval = estimate_mean([average_seeds(by_seed) for by_seed in sets])
    by_seed = {
        seed: statistics.fmean(statistics.fmean(rights[seed]) for rights in sets)  # each file counts the same
        for seed in sets[0]
    }
    return {"accuracy": accuracy, "interval": asdict(interval), "by_seed": by_seed}


def describe_difference(sets: Sequence[tuple[Mapping[str, Sequence[bool]], ...]]) -> dict[str, Any]:
    """Return the mean difference of two sides (second minus first), its interval, and the tests of one file.

    Args:
        sets: of each test file, for both sides, whether each review is answered right (n_reviews,) by seed.
    """
    difference, interval = estimate_mean([average_seeds(second) - average_seeds(first) for first, second in sets])
    found: dict[str, Any] = {"difference": difference, "interval": asdict(interval)}
    if len(sets) > 1:
        return found | {"p_values": None, "largest_p_value": None, "is_shown": None}
    first, second = sets[0]
    tests = {seed: compare_paired(first[seed], second[seed]) for seed in first}
    has_one_direction = len({test.difference > 0 for test in tests.values()}) == 1
    return found | {
        "p_values": {seed: test.p_value for seed, test in tests.items()},
        "largest_p_value": max(test.p_value for test in tests.values()),
        "is_shown": has_one_direction and all(test.is_shown for test in tests.values()),
    }


def average_seeds(by_seed: Mapping[str, Sequence[bool]]) -> NDArray:
    """Return the share of the seeds that have each review right (n_reviews,)."""
    import numpy as np

    return np.mean([*by_seed.values()], axis=0)


def estimate_mean(sets: Sequence[NDArray]) -> tuple[float, Interval]:
    """Return the mean of the means of several sets of reviews, and its bootstrap interval.

    Reviews are drawn within their set.

    Args:
        sets: (n_reviews,) values of each set.

    Example:
        >>> import numpy as np
        >>> mean, interval = estimate_mean([np.array([0.0, 1.0, 1.0, 1.0]), np.array([1.0, 1.0])])
        >>> mean, interval.low < mean < interval.high
        (0.875, True)
    """
    import numpy as np

    draws = []
    for seed, values in enumerate(sets):
        cells, counts = np.unique(values, return_counts=True)
        draws.append(draw_tables(counts, seed) @ cells / len(values))  # (resamples,)
    mean = float(np.mean([values.mean() for values in sets]))
    return mean, take_percentiles(np.mean(draws, axis=0))
