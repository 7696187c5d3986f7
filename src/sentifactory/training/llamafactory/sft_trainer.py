"""A subclass of LLaMA-Factory's supervised trainer, for what callbacks cannot do.

`extend_trainer` installs it while a recipe runs:

- each evaluation also computes `macro_f1` and `label_accuracy` before anything is logged, so that the log,
  TensorBoard, the choice of the best checkpoint and early stopping see them;
- where the recipe loads the best checkpoint at the end without naming a metric, macro-F1 decides (stock LLaMA-Factory
  uses the loss);
- for data prepared with `--balance weights`, class weights apply to the training loss (`class_weights.py`);
- a run that was killed after its last step does not train another step when it is continued.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sentifactory.errors import ConfigError
from sentifactory.system.progress import say
from sentifactory.task.task import Task
from sentifactory.training.acceleration.answer_logits import find_obstacle_in_model
from sentifactory.training.label_loss.class_weights import install_label_weights
from sentifactory.training.label_loss.label_answers import read_answers
from sentifactory.training.label_loss.label_scores import LabelScores, find_obstacle_to_labels
from sentifactory.training.run.finished_run import FinishedRunGuard
from sentifactory.training.run.progress_callback import LABEL_ACCURACY, MACRO_F1


@contextmanager
def extend_trainer(settings: Mapping[str, Any], card: dict[str, Any], task: Task) -> Iterator[None]:
    """Make LLaMA-Factory use our trainer within the block.

    Args:
        settings: the settings passed to LLaMA-Factory.
        card: the run card, which gets an entry `validation` when there are validation reviews.
        task: whose answers are scored on the validation reviews.
    """
    from llamafactory.train.sft import workflow

    stock = workflow.CustomSeq2SeqTrainer
    workflow.CustomSeq2SeqTrainer = _build_class(stock, settings, card, task)
    try:
        yield
    finally:
        workflow.CustomSeq2SeqTrainer = stock


def _expect_all_gradients(trainer: Any) -> None:
    """Tell DDP that each step uses every trainable weight, which saves it a search through the graph of each step.

    That holds for the proven classes; another model may have parts that a batch of text does not use.
    """
    handler = getattr(trainer.accelerator, "ddp_handler", None)
    is_open = trainer.args.ddp_find_unused_parameters is None
    if handler is not None and is_open and find_obstacle_in_model(trainer.model) is None:
        handler.find_unused_parameters = False


def _name_cpu(args: Any) -> None:
    """Call the CPU `cpu`: accelerate numbers it for several processes, and torch loads no checkpoint to `cpu:0`."""
    import torch

    if args.device.type == "cpu":
        vars(args)["_setup_devices"] = torch.device("cpu")


def build_label_scores(
    trainer: Any, settings: Mapping[str, Any], card: dict[str, Any], task: Task
) -> LabelScores | None:
    """Return the scorer of the validation reviews, and report how the best checkpoint is chosen.

    Raises:
        ConfigError: when the recipe selects checkpoints by a label metric that cannot be computed.
    """
    given = trainer.eval_dataset
    if given is None:
        return None
    validation = list(given.values()) if isinstance(given, dict) else [given]
    metric = str(settings.get("metric_for_best_model") or "")
    try:
        if obstacle := find_obstacle_to_labels(settings, trainer.args):
            raise ConfigError(obstacle, code="answers-of-task")
        answers = read_answers(trainer.train_dataset, validation, trainer.processing_class, task)
    except ConfigError as error:
        if metric.endswith((MACRO_F1, LABEL_ACCURACY)):
            raise ConfigError(
                f"metric_for_best_model is {metric}, but the labels of the validation reviews cannot be scored: "
                f"{error.what}",
                next_step="name the task of the data (--task), or set metric_for_best_model: eval_loss",
                code="answers-of-task",
            ) from error
        say(f"Validation: loss only, because the labels cannot be scored ({error.what}).")
        card["validation"] = {"labels_scored": False, "note": error.what}
        return None
    if trainer.args.load_best_model_at_end and not metric and not isinstance(given, dict):
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

    class SentimentTrainer(FinishedRunGuard, stock):
        """See the module docstring."""

        # Not where the user names the checkpoint: `choose_start` sets both for a run of ours.
        continues_own_run = bool(
            settings.get("restore_callback_states_from_checkpoint") or settings.get("resume_from_checkpoint") is None
        )

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            _expect_all_gradients(self)
            _name_cpu(self.args)
            self.label_scores = build_label_scores(self, settings, card, task)
            self.label_weights = install_label_weights(self, settings, card, task)

        def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            """Apply class weights in training; collect the predicted labels in evaluation."""
            batch = dict(inputs)
            if self.label_weights is not None and model.training:
                with self.label_weights.apply_to(inputs["labels"]):
                    return super().compute_loss(model, inputs, *args, **kwargs)
            result = super().compute_loss(model, inputs, *args, **kwargs)
            if self.label_scores is not None and kwargs.get("return_outputs") and not model.training:
                # Not `gather_function`: for generated text the trainer gathers repeated reviews as well.
                gather = self.accelerator.gather_for_metrics
                self.label_scores.add_batch(model, batch, result[1].logits, gather)
            return result

        def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
            """Add macro-F1 and accuracy of the labels to the metrics."""
            if self.label_scores is None:
                return super().evaluation_loop(*args, **kwargs)
            self.label_scores.reset()
            output = super().evaluation_loop(*args, **kwargs)
            output.metrics.update(self.label_scores.compute_metrics(kwargs.get("metric_key_prefix", "eval")))
            return output

    return SentimentTrainer
