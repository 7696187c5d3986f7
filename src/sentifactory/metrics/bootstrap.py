"""Bootstrap intervals for the metrics of one model, and for the difference of two models on the same reviews.

Seeded and vectorised. Label metrics are functions of a table of counts, so that resampling n reviews is one
multinomial draw of its cells; probability metrics take a weight for each review (how often it was drawn). The
intervals are percentile intervals (Efron and Tibshirani 1993, chapter 13).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sentifactory.metrics.significance import Interval, take_percentiles

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESAMPLES = 2000
LABEL_METRICS = ("accuracy", "precision", "recall", "f1", "macro_precision", "macro_recall", "macro_f1", "mcc")
# Weights per batch (cells times resamples): as many as fit into a processor's cache.
_WEIGHTS_PER_BATCH = 200_000


def draw_tables(counts: NDArray, seed: int, resamples: int = RESAMPLES) -> NDArray:
    """Return resampled tables of counts (resamples, *counts.shape); each has as many reviews as `counts`."""
    import numpy as np

    shares = counts.ravel() / counts.sum()
    draws = np.random.default_rng(seed).multinomial(int(counts.sum()), shares, size=resamples)
    return draws.reshape(resamples, *counts.shape)


def score_tables(tables: NDArray) -> dict[str, NDArray]:
    """Return the label metrics of confusion matrices.

    Args:
        tables: (n_tables, n_labels, n_labels + 1); rows are true labels, columns answers, the last one unparsed.

    Returns:
        (n_tables,) for each of `LABEL_METRICS`; 0 where the denominator is 0, as in `label_metrics`.
    """
    import numpy as np

    n_labels = tables.shape[1]
    hits = np.diagonal(tables[:, :, :n_labels], axis1=1, axis2=2).astype(float)  # (tables, n_labels)
    support = tables.sum(axis=2).astype(float)
    claims = tables.sum(axis=1).astype(float)  # (tables, n_labels + 1)
    precision = _divide(hits, claims[:, :n_labels])
    recall = _divide(hits, support)
    f1 = _divide(2 * hits, claims[:, :n_labels] + support)
    total = support.sum(axis=1)
    correct = hits.sum(axis=1)
    macro = {"precision": precision.mean(axis=1), "recall": recall.mean(axis=1), "f1": f1.mean(axis=1)}
    headline = {"precision": precision[:, 1], "recall": recall[:, 1], "f1": f1[:, 1]} if n_labels == 2 else macro
    # Gorodkin 2004, with unparsed as an additional answer that is never true.
    covariance = correct * total - (claims[:, :n_labels] * support).sum(axis=1)
    spread = (total**2 - (claims**2).sum(axis=1)) * (total**2 - (support**2).sum(axis=1))
    return {
        "accuracy": correct / total,
        **headline,
        **{f"macro_{name}": values for name, values in macro.items()},
        "mcc": _divide(covariance, np.sqrt(spread)),
    }


def bootstrap_labels(confusion: Sequence[Sequence[int]], seed: int = 0) -> dict[str, Interval]:
    """Return the intervals of `LABEL_METRICS` except accuracy, from a confusion matrix with an unparsed column."""
    import numpy as np

    values = score_tables(draw_tables(np.asarray(confusion), seed))
    return {name: take_percentiles(values[name]) for name in LABEL_METRICS if name != "accuracy"}


def bootstrap_label_differences(
    truth: Sequence[int], first: Sequence[int | None], second: Sequence[int | None], n_labels: int, seed: int = 0
) -> dict[str, Interval]:
    """Return the paired intervals of the differences (second minus first) of `LABEL_METRICS`.

    Args:
        truth: (n_reviews,) true labels.
        first: (n_reviews,) answers of the first model, None where unparsed.
        second: (n_reviews,) answers of the second model.
        n_labels: number of labels.
        seed: seed of the draws.
    """
    import numpy as np

    columns = n_labels + 1
    joint = np.zeros((n_labels, columns, columns), dtype=int)
    given = ([n_labels if answer is None else answer for answer in answers] for answers in (first, second))
    np.add.at(joint, (np.asarray(truth), *(np.asarray(answers) for answers in given)), 1)
    draws = draw_tables(joint, seed)
    before, after = score_tables(draws.sum(axis=3)), score_tables(draws.sum(axis=2))
    return {name: take_percentiles(after[name] - before[name]) for name in LABEL_METRICS}


def bootstrap_weighted(
    measures: dict[str, Callable[[NDArray], NDArray]], counts: NDArray, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Interval]:
    """Return the interval of each measure.

    Args:
        measures: by name, a function from weights (rows, n_cells) to values (rows,).
        counts: (n_cells,) number of reviews of each cell; all ones where every review is a cell of its own.
        seed: seed of the draws, which are the same for all measures.
        resamples: number of draws.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    total = int(counts.sum())
    rows = max(1, _WEIGHTS_PER_BATCH // len(counts))
    values: dict[str, list[NDArray]] = {name: [] for name in measures}
    for start in range(0, resamples, rows):
        n_rows = min(rows, resamples - start)
        weights = rng.multinomial(total, counts / total, size=n_rows).astype(float)
        for name, measure in measures.items():
            values[name].append(measure(weights))
    return {name: take_percentiles(np.concatenate(parts)) for name, parts in values.items()}


def _divide(upper: NDArray, lower: NDArray) -> NDArray:
    import numpy as np

    return np.divide(upper, lower, out=np.zeros_like(upper, dtype=float), where=lower > 0)
