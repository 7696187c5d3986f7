"""transformers' Trainer for encoder recipes, with class weights, distillation and batches of similar length."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sentifactory.training.distillation.soft_labels import compute_distill_loss
from sentifactory.training.encoder.encoder_data import BatchCollator, ReviewSampler
from sentifactory.training.encoder.encoder_recipe import EncoderSettings
from sentifactory.training.run.finished_run import FinishedRunGuard


@lru_cache(maxsize=1)
def define_feature_head() -> Any:
    """Return the class of a head that is trained on precomputed features."""
    from torch import nn

    class FeatureHead(nn.Module):
        """Dropout and linear layer of a pooled classifier; it shares the classifier's weights."""

        def __init__(self, model: Any) -> None:
            super().__init__()
            self.dropout = model.dropout
            self.classifier = model.classifier

        def forward(self, features: Any) -> dict[str, Any]:
            """Return the logits (B, n_labels) of features (B, H)."""
            return {"logits": self.classifier(self.dropout(features))}

    return FeatureHead


@lru_cache(maxsize=1)
def define_trainer() -> Any:
    """Return our subclass of transformers' Trainer."""
    from torch import tensor
    from torch.nn.functional import cross_entropy
    from transformers import Trainer

    class EncoderTrainer(FinishedRunGuard, Trainer):
        """Trains with class weights, label smoothing and soft labels, in the order of our sampler."""

        def __init__(
            self,
            *,
            settings: EncoderSettings,
            class_weights: Sequence[float] | None,
            sampler: ReviewSampler,
            **options: Any,
        ) -> None:
            super().__init__(**options)
            # The loss is a mean over the batch, so the trainer divides it by the batches of a step.
            self.model_accepts_loss_kwargs = False
            self._class_weights = class_weights
            self._smoothing = settings.label_smoothing_factor
            self._temperature, self._teacher_weight = settings.distill_temperature, settings.distill_weight
            self._sampler = sampler

        def compute_loss(
            self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            """Return the loss, and on request the logits."""
            tensors = dict(inputs)
            labels, teacher = tensors.pop("labels"), tensors.pop("soft_labels", None)
            logits = model(**tensors)["logits"].float()
            weights = None if self._class_weights is None else tensor(self._class_weights, device=logits.device)
            if teacher is None:
                loss = cross_entropy(logits, labels, weight=weights, label_smoothing=self._smoothing)
            else:
                loss = compute_distill_loss(
                    logits,
                    labels,
                    teacher.to(logits.dtype),
                    temperature=self._temperature,
                    weight=self._teacher_weight,
                    class_weights=weights,
                    smoothing=self._smoothing,
                )
            return (loss, {"logits": logits}) if return_outputs else loss

        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return self._sampler

    return EncoderTrainer


def measure_answers(prediction: Any) -> dict[str, float]:
    """Return accuracy and macro-F1 of the logits (n, n_labels)."""
    from sklearn.metrics import accuracy_score, f1_score

    answers = prediction.predictions.argmax(axis=-1)
    labels = range(prediction.predictions.shape[-1])
    truth = prediction.label_ids
    macro_f1 = f1_score(truth, answers, labels=list(labels), average="macro", zero_division=0)
    return {"accuracy": float(accuracy_score(truth, answers)), "macro_f1": float(macro_f1)}


def build_arguments(settings: EncoderSettings, *, is_evaluated: bool) -> Any:
    """Return the Trainer's arguments."""
    from transformers import TrainingArguments

    steps = settings.eval_steps if settings.eval_steps < 1 else int(settings.eval_steps)
    return TrainingArguments(
        output_dir=settings.output_dir,
        per_device_train_batch_size=settings.per_device_train_batch_size,
        per_device_eval_batch_size=settings.per_device_eval_batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        num_train_epochs=settings.num_train_epochs,
        max_steps=settings.max_steps,
        lr_scheduler_type=settings.lr_scheduler_type,
        warmup_steps=settings.warmup_steps,
        max_grad_norm=settings.max_grad_norm,
        eval_strategy=settings.eval_strategy if is_evaluated else "no",
        eval_steps=steps,
        save_strategy=settings.eval_strategy,
        save_steps=steps,
        save_total_limit=settings.save_total_limit,
        load_best_model_at_end=is_evaluated,
        metric_for_best_model=settings.metric_for_best_model if is_evaluated else None,
        greater_is_better=True if is_evaluated else None,
        logging_steps=settings.logging_steps,
        bf16=settings.bf16,
        fp16=settings.fp16,
        use_cpu=settings.use_cpu,
        seed=settings.seed,
        # Not configurable by a recipe.
        label_names=["labels"],
        remove_unused_columns=False,
        restore_callback_states_from_checkpoint=True,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        report_to="none",
    )


def build_trainer(
    settings: EncoderSettings,
    arguments: Any,
    model: Any,
    tokenizer: Any,
    train_rows: list[dict[str, Any]],
    eval_rows: list[dict[str, Any]],
    class_weights: Sequence[float] | None,
    callbacks: list[Any],
) -> Any:
    """Return the trainer of a run.

    Args:
        settings: the recipe.
        arguments: from `build_arguments`.
        model: to train.
        tokenizer: pads batches.
        train_rows: with `input_ids` or `features`, and `labels`.
        eval_rows: likewise; may be empty.
        class_weights: (n_labels,) or None.
        callbacks: of the trainer.
    """
    from transformers import EarlyStoppingCallback, PrinterCallback

    if settings.early_stopping_patience:
        callbacks = [*callbacks, EarlyStoppingCallback(settings.early_stopping_patience)]
    lengths = [len(row.get("input_ids", ())) if settings.group_by_length else 0 for row in train_rows]
    trainer = define_trainer()(
        class_weights=class_weights,
        settings=settings,
        sampler=ReviewSampler(lengths, arguments.train_batch_size, settings.seed),
        model=model,
        args=arguments,
        data_collator=BatchCollator(tokenizer),
        train_dataset=train_rows,
        # Sorted, so that texts of a batch have similar lengths; the order does not affect the metrics.
        eval_dataset=sorted(eval_rows, key=lambda row: len(row.get("input_ids", ()))) or None,
        compute_metrics=measure_answers,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer
