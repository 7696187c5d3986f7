"""Linear probes: how well a linear classifier tells the labels from the hidden states of one layer.

Method: Alain and Bengio 2016, "Understanding intermediate layers using linear classifier probes" (arXiv 1610.01644). A
probe says what can be read off a layer as it is, and not what tuning could make of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOLDS = 5
_MAX_ITERATIONS = 2000
_C_TIMES_HIDDEN_SIZE = 10.0


def probe_layer_states(states: NDArray, labels: NDArray, seed: int) -> NDArray:
    """Return for each review whether a probe that was fitted on the other folds names its label, (n,) of bool.

    All layers are split into the same folds. States are standardised within the training folds, and `C` is in inverse
    proportion to the hidden size: the regularisation then means the same for models of any size.

    Args:
        states: (n, hidden size) of one layer.
        labels: (n,) of integers, each at least `FOLDS` times.
        seed: of the folds.

    Example:
        >>> import numpy as np
        >>> labels = np.array([0, 1] * 20)
        >>> bool(probe_layer_states(labels[:, None] * 4.0, labels, 0).all())
        True
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    regression = LogisticRegression(C=_C_TIMES_HIDDEN_SIZE / states.shape[1], max_iter=_MAX_ITERATIONS)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    # On matrices of this size a second thread costs more than it computes, many times more on a busy machine.
    with threadpool_limits(1):
        named = cross_val_predict(make_pipeline(StandardScaler(), regression), states, labels, cv=folds)
    return np.asarray(named == labels)
