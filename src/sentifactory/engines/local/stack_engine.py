"""A stack: TF-IDF and a tuned model answer the same review, and their probabilities are combined.

The tuned model is asked by its own engine, whichever that is; TF-IDF takes a millisecond on top. A review that the
model gives no probabilities for gets no answer, as from the model alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from sentifactory.engines.base import Engine, OnAnswer, WrappingEngine, classify
from sentifactory.engines.local.baselines import TfidfEngine
from sentifactory.metrics.combination import Combination
from sentifactory.records import Prediction, Review


class StackEngine(WrappingEngine):
    """The combination of TF-IDF and a model.

    Args:
        model: engine of the tuned model, which gives probabilities; it is closed with this one.
        tfidf: trained.
        combination: of TF-IDF and the model, in this order.
        name: what the stack is called in progress lines and reports.
    """

    def __init__(self, model: Engine, tfidf: TfidfEngine, combination: Combination, *, name: str = "model") -> None:
        super().__init__(model, name)
        self._tfidf = tfidf
        self._combination = combination

    def predict(self, reviews: Sequence[Review], on_answer: OnAnswer | None = None) -> list[Prediction]:
        """Return the combined answers, in the order of the reviews; raises what the model's engine raises."""
        cheap = self._tfidf.predict(reviews)

        def combine(position: int, prediction: Prediction) -> Prediction:
            return combine_predictions(self._combination, cheap[position], prediction)

        return self.change_answers(reviews, combine, on_answer)


def combine_predictions(combination: Combination, cheap: Prediction, own: Prediction) -> Prediction:
    """Return the answer of a stack to a review from those of TF-IDF and of its model; none where either has none."""
    if own.probabilities is None or cheap.probabilities is None:
        return Prediction(None, raw=own.raw, latency_s=own.latency_s)
    shares = combination.apply([cheap.probabilities, own.probabilities])
    return classify(shares, cheap.latency_s + own.latency_s)
