"""LLaMA-Factory's trainer with what callbacks cannot do: labels in every evaluation, and an end that stays one.

While a recipe runs, LLaMA-Factory's supervised trainer is replaced by a subclass of it:

- each evaluation also gives `macro_f1` and `label_accuracy`, before anything is logged, so that the log, TensorBoard,
  the choice of the best checkpoint and early stopping all see them;
- where the recipe loads the best checkpoint at the end and does not say by what, it is chosen by macro-F1 (stock
  LLaMA-Factory chooses it by the loss, from the same file);
- data that were prepared with `--balance weights` weigh the labels in the training loss (`class_weights.py`);
- a run that had reached its end when it was killed does not train a step more when it is continued.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sentifactory.errors import ConfigError
from sentifactory.progress import say
from sentifactory.task import Task
from sentifactory.training.class_weights import weigh_labels
from sentifactory.training.label_answers import read_answers
from sentifactory.training.label_scores import LABEL_ACCURACY, MACRO_F1, LabelScores, find_obstacle_to_labels


@contextmanager
def extend_trainer(settings: Mapping[str, Any], card: dict[str, Any], task: Task) -> Iterator[None]:
    """Let LLaMA-Factory make our trainer for a while.

    Args:
        settings: what LLaMA-Factory gets.
        card: gets a chapter `validation` when there are validation reviews.
        task: by whose answers validation reviews are scored.
    """
    from llamafactory.train.sft import workflow

    stock = workflow.CustomSeq2SeqTrainer
    workflow.CustomSeq2SeqTrainer = _build_class(stock, settings, card, task)
    try:
        yield
    finally:
        workflow.CustomSeq2SeqTrainer = stock


def find_label_scores(
    trainer: Any, settings: Mapping[str, Any], card: dict[str, Any], task: Task
) -> LabelScores | None:
    """Return what scores the validation reviews, and say how the best checkpoint is chosen.

    Raises:
        ConfigError: when the recipe chooses by labels that cannot be scored.
    """
    given = trainer.eval_dataset
    if given is None:
        return None
    validation = list(given.values()) if isinstance(given, dict) else [given]
    wish = str(settings.get("metric_for_best_model") or "")
    try:
        if obstacle := find_obstacle_to_labels(settings, trainer.args):
            raise ConfigError(obstacle)
        answers = read_answers(trainer.train_dataset, validation, trainer.processing_class, task)
    except ConfigError as error:
        if wish.endswith((MACRO_F1, LABEL_ACCURACY)):
            raise ConfigError(
                f"metric_for_best_model is {wish}, but the labels of the validation reviews cannot be scored: "
                f"{error.what}",
                next_step="name the task that the data were prepared with (--task), or choose by eval_loss",
            ) from error
        say(f"Validation: by loss alone, as the labels cannot be scored ({error.what}).")
        card["validation"] = {"labels_scored": False, "note": error.what}
        return None
    if trainer.args.load_best_model_at_end and not wish and not isinstance(given, dict):
        trainer.args.metric_for_best_model, trainer.args.greater_is_better = f"eval_{MACRO_F1}", True
    chosen_by = trainer.args.metric_for_best_model if trainer.args.load_best_model_at_end else None
    n_reviews = sum(map(len, validation))
    ending = f"the best checkpoint by {chosen_by} is loaded at the end" if chosen_by else "the last weights are kept"
    say(f"Validation: {n_reviews} reviews, scored by label (task {answers.task.name}); {ending}.")
    card["validation"] = {
        "labels_scored": True, "task": answers.task.name, "reviews": n_reviews, "chosen_by": chosen_by,
    }  # fmt: skip
    return LabelScores(answers)


def _build_class(stock: Any, settings: Mapping[str, Any], card: dict[str, Any], task: Task) -> type:
    """Return the subclass of LLaMA-Factory's trainer for one run."""

    class SentimentTrainer(stock):
        """See the module."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.label_scores = find_label_scores(self, settings, card, task)
            self.label_weights = weigh_labels(self, settings, card, task)

        def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            """Weigh the labels in training, and keep those that the model gives in an evaluation."""
            batch = dict(inputs)
            if self.label_weights is not None and model.training:
                with self.label_weights.weigh(inputs["labels"]):
                    return super().compute_loss(model, inputs, *args, **kwargs)
            result = super().compute_loss(model, inputs, *args, **kwargs)
            if self.label_scores is not None and kwargs.get("return_outputs") and not model.training:
                self.label_scores.note_batch(model, batch, result[1].logits)
            return result

        def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
            """Add macro-F1 and accuracy of the labels to what an evaluation finds."""
            if self.label_scores is None:
                return super().evaluation_loop(*args, **kwargs)
            self.label_scores.begin()
            output = super().evaluation_loop(*args, **kwargs)
            output.metrics.update(self.label_scores.finish(kwargs.get("metric_key_prefix", "eval")))
            return output

        def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
            """Train an epoch, but not after the end: stock training would go on for a step."""
            if self._is_over():
                self.control.should_training_stop = True
                return
            super()._run_epoch(*args, **kwargs)

        def _is_over(self) -> bool:
            """Return whether the checkpoint that was loaded is the last one of its run."""
            saved = self.state.stateful_callbacks.get("TrainerControl") or {}
            return bool(saved.get("args", {}).get("should_training_stop"))

    return SentimentTrainer
