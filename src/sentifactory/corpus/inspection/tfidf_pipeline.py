"""The TF-IDF model of this package: character 1- to 3-grams and logistic regression.

The search for doubtful labels and the TF-IDF engine use it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

SMALL_CORPUS = 100


def build_tfidf_pipeline(*, n_reviews: int, n_labels: int, seed: int = 0) -> Pipeline:
    """Return an untrained pipeline of two steps, the TF-IDF vectoriser and the regression.

    Args:
        n_reviews: number of training reviews.
        n_labels: number of different labels, at least 2.
        seed: of the regression.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    return make_pipeline(
        # N-grams that occur once are most of the vocabulary and do not generalise.
        TfidfVectorizer(
            analyzer="char", ngram_range=(1, 3), sublinear_tf=True, min_df=2 if n_reviews > SMALL_CORPUS else 1
        ),
        LogisticRegression(C=4.0, solver="liblinear", random_state=seed, max_iter=1000)
        if n_labels == 2
        else LogisticRegression(C=4.0, random_state=seed, max_iter=1000),
    )
