"""The one TF-IDF model of this package: groups of 1 to 3 characters, and logistic regression with probabilities.

It stands in the first room because two rooms need it: the search for doubtful labels and the TF-IDF engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

SMALL_CORPUS = 100


def build_tfidf_pipeline(*, n_reviews: int, n_labels: int, seed: int = 0) -> Pipeline:
    """Return an untrained pipeline of two steps, the TF-IDF vectoriser and the regression.

    Args:
        n_reviews: how many reviews it will be trained on.
        n_labels: how many different labels they carry, at least 2.
        seed: seed of the regression.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    return make_pipeline(
        # Groups that occur once are most of the vocabulary and teach nothing that carries over.
        TfidfVectorizer(
            analyzer="char", ngram_range=(1, 3), sublinear_tf=True, min_df=2 if n_reviews > SMALL_CORPUS else 1
        ),
        LogisticRegression(C=4.0, solver="liblinear", random_state=seed, max_iter=1000)
        if n_labels == 2
        else LogisticRegression(C=4.0, random_state=seed, max_iter=1000),
    )
