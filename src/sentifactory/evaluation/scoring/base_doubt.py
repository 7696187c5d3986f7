"""Whether the base model is a baseline at all, or only guesses.

A lead over a model that guesses says that training did something, and not that the tuned model is good: TF-IDF or
always answering the commonest label have the same lead. The report then says so wherever it names the base model, and
publishing requires the lead over one of these instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sentifactory.bilingual import Sentence
from sentifactory.evaluation.scoring.scored_predictions import ScoredPredictions
from sentifactory.metrics.label_metrics import Metrics
from sentifactory.metrics.number_formats import format_percent

Reason = Literal["random-head", "unreadable", "guess"]
# A fact of a compared model: its classification head was initialised randomly.
HAS_RANDOM_HEAD = "has_random_head"


@dataclass(frozen=True, slots=True)
class BaseDoubt:
    """Why the base model is no meaningful baseline.

    Attributes:
        reason: `random-head` (an encoder whose classifier was never trained), `unreadable` (most of its replies state
            no label) or `guess` (its answers are not shown to depend on the reviews).
        note: for a tile, a few words.
        sentence: for the headline and the warnings.
    """

    reason: Reason
    note: Sentence
    sentence: Sentence


def doubt_base(base: ScoredPredictions, n_labels: int) -> BaseDoubt | None:
    """Return why the base model is no meaningful baseline; None where it is one.

    Args:
        base: its scored predictions, with the fact `HAS_RANDOM_HEAD` where its head is random.
        n_labels: number of labels of the task.
    """
    figures = base.metrics
    share, chance = format_percent(figures.accuracy), format_percent(1 / n_labels)
    if base.model.facts.get(HAS_RANDOM_HEAD):
        return BaseDoubt(
            "random-head",
            Sentence("random classifier", "分类头为随机值"),
            Sentence.write(
                f"The base model has no trained classifier: its head is random ({share} right), so the lead over it "
                "only says that training did something. The baseline to beat is TF-IDF.",
                f"原始模型没有训练过的分类头，回答是随机的（准确率 {share}），超过它只说明训练起了作用；"
                "应以 TF-IDF 为基准。",
            ),
        )
    if not is_like_guessing(figures, n_labels):
        return None
    if 2 * figures.unparsed > figures.reviews:
        return BaseDoubt(
            "unreadable",
            Sentence("most replies unreadable", "多数回答无法识别"),
            Sentence.write(
                f"The base model gave no readable answer to {figures.unparsed} of {figures.reviews} reviews "
                f"({share} right): the lead over it is mostly the format of the answer. The baseline to beat is "
                "TF-IDF.",
                f"原始模型对 {figures.reviews} 条评论中的 {figures.unparsed} 条没有给出可识别的回答"
                f"（准确率 {share}），"
                "超过它主要是因为学会了回答格式；应以 TF-IDF 为基准。",
            ),
        )
    level = f"a coin has {chance}" if n_labels == 2 else f"chance is {chance}"
    return BaseDoubt(
        "guess",
        Sentence("no better than guessing", "与随机猜测无异"),
        Sentence.write(
            f"The base model is not shown to do better than guessing ({share} right; {level}), so the lead over it "
            "says little. The baseline to beat is TF-IDF.",
            f"未能证明原始模型优于随机猜测（准确率 {share}，随机猜测为 {chance}），超过它说明不了多少问题；"
            "应以 TF-IDF 为基准。",
        ),
    )


def is_like_guessing(figures: Metrics, n_labels: int) -> bool:
    """Return whether answers are not shown to be better than guessing.

    The accuracy must be shown to be above that of a coin, and the correlation with the true labels (MCC) above 0: a
    model that always gives the commonest label has a high accuracy where that label is common, and an MCC of 0. Where
    all reviews have the same label, every model has an MCC of 0, and the accuracy alone decides.

    Args:
        figures: of the model.
        n_labels: number of labels of the task.
    """
    if figures.accuracy_interval.low <= 1 / n_labels:
        return True
    has_labels = sum(scores.support > 0 for scores in figures.classes) > 1
    return has_labels and figures.intervals["mcc"].low <= 0
