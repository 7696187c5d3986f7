"""The callbacks that a trainer calls: they count, show progress and keep the run card; one accelerates as well."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from sentifactory.progress import Progress, say, show_progress
from sentifactory.training.acceleration import Accelerations
from sentifactory.training.answer_loss import find_causal_model
from sentifactory.training.estimate import (
    compare_with_run,
    estimate_run,
    find_estimate_obstacle,
    summarise_estimate,
)
from sentifactory.training.freezing import correct_trainable, summarise_trainable
from sentifactory.training.label_scores import LABEL_ACCURACY, MACRO_F1
from sentifactory.training.run_card import measure_peak_memory, read_device_peak, write_card

LIVE_CARD_EVERY_S = 1.0  # who follows a run reads its card


class TrainerListener:
    """Base of our callbacks: answers every event of the trainer that a subclass does not.

    The trainer calls events by name, so this needs no transformers class, and this module imports without it.
    """

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("on_"):
            return lambda *args, **kwargs: None
        raise AttributeError(name)


class TokenMeter:
    """Counts what passes through the model in training: samples, tokens, and tokens computed with padding."""

    def __init__(self, model: Any) -> None:
        self.samples = 0
        self.computed_tokens = 0
        self._real_tokens: Any = 0
        model.register_forward_pre_hook(self._count, with_kwargs=True)

    @property
    def real_tokens(self) -> int:
        """Tokens that are not padding. They are counted on the device and fetched only here."""
        return int(self._real_tokens)

    def _count(self, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        ids = kwargs.get("input_ids")
        if not module.training or ids is None:
            return
        mask: Any = kwargs.get("attention_mask")
        self.samples += ids.shape[0]
        self.computed_tokens += ids.numel()
        is_flat = mask is not None and mask.dim() == 2  # neat packing has a mask for each pair of tokens
        self._real_tokens = self._real_tokens + (mask.ne(0).sum() if is_flat else ids.numel())


class RunWatcher(TrainerListener):
    """Follows one training run of any trainer.

    Args:
        card: the run card, which is filled as the run goes on.
        stack: closed by the caller when the run ends, in whatever way; takes the progress display.
    """

    def __init__(self, card: dict[str, Any], stack: ExitStack) -> None:
        self.has_begun = False
        self._card = card
        self._stack = stack
        self._progress: Progress | None = None
        self._meter: TokenMeter | None = None
        self._step_start_s = 0.0
        self._train_time_s = 0.0
        self._steps = 0
        self._card_written_s = 0.0

    def on_init_end(self, args: Any, state: Any, control: Any, *, model: Any, **kwargs: Any) -> None:
        """Count what is trained: the model is ready and the optimizer is not made yet."""
        self._meter = TokenMeter(model)
        self._card["parameters"] = summarise_trainable(
            [(name, value.numel(), value.requires_grad) for name, value in model.named_parameters()]
        )

    def on_train_begin(self, args: Any, state: Any, control: Any, *, model: Any, **kwargs: Any) -> None:
        """Open the progress display and write the first run card."""
        self.has_begun = True
        if not state.is_world_process_zero:
            return
        self._card["model_class"] = self.name_model_class(model)
        self._card["device"] = str(args.device)
        self._card["world_size"] = args.world_size
        self._card["max_steps"] = state.max_steps
        write_card(args.output_dir, self._card)
        self._progress = self._stack.enter_context(show_progress("Training", state.max_steps, "steps"))
        self._progress.advance(state.global_step)

    def name_model_class(self, model: Any) -> str:
        """Return what the run card calls the model's class."""
        return type(model).__name__

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock: evaluation and saving between steps are not training time."""
        self._step_start_s = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count a step."""
        self._train_time_s += time.monotonic() - self._step_start_s
        self._steps += 1
        if self._progress is not None:
            self._progress.advance()

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Show the newest loss beside the bar, and put it into the run card."""
        logs: Mapping[str, Any] = kwargs.get("logs") or {}
        if self._progress is None:
            return
        if time.monotonic() - self._card_written_s >= LIVE_CARD_EVERY_S:
            self._fill_card(args, state)
            write_card(args.output_dir, self._card)
            self._card_written_s = time.monotonic()
        shown = ("loss", "eval_loss", "eval_macro_f1")
        words = [f"{key.replace('_', ' ')} {logs[key]:.4f}" for key in shown if key in logs]
        if words and self._meter is not None and self._train_time_s > 0 and self._meter.real_tokens:
            rate = args.world_size / self._train_time_s
            words += [
                f"{self._meter.real_tokens * rate:.0f} tokens/s",
                f"{self._meter.samples * rate:.1f} samples/s",
                f"peak {read_device_peak(measure_peak_memory()) / 2**30:.1f} GiB",
            ]
            self._progress.note(", ".join(words))

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Bring the run card up to date."""
        if state.is_world_process_zero:
            self._fill_card(args, state)
            write_card(args.output_dir, self._card)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the display; the run card is completed by the caller when the weights are written."""
        self._fill_card(args, state)
        self._stack.close()
        if state.best_model_checkpoint is not None and args.load_best_model_at_end:
            is_early = state.global_step < state.max_steps
            ending = f"Stopped early at step {state.global_step} of {state.max_steps}. " if is_early else ""
            say(f"{ending}Loaded the best checkpoint, of step {state.best_global_step}.")

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep the newest evaluation, and say what it found."""
        self._fill_card(args, state)
        metrics: Mapping[str, Any] = kwargs.get("metrics") or {}
        if state.is_world_process_zero and (f1 := metrics.get(f"eval_{MACRO_F1}")) is not None:
            # LLaMA-Factory has an accuracy of tokens, so ours has another name; an encoder has one only.
            key = f"eval_{LABEL_ACCURACY}"
            accuracy = metrics[key if key in metrics else "eval_accuracy"]
            say(
                f"Validation after step {state.global_step}: macro-F1 {f1:.4f}, "
                f"accuracy {accuracy:.4f}, loss {metrics['eval_loss']:.4f}."
            )

    def _fill_card(self, args: Any, state: Any) -> None:
        self._card["metrics"] = [entry for entry in state.log_history if "train_runtime" not in entry]
        for entry in state.log_history:
            kept = {key: value for key, value in entry.items() if key.startswith(("train_", "eval_", "total_"))}
            self._card["result"].update(kept)
        if state.best_global_step and "validation" in self._card:
            best = {"best_step": state.best_global_step, "best_value": state.best_metric}
            self._card["validation"].update(best)
        self._card["memory"] = measure_peak_memory()
        self._card["steps"] = state.global_step
        if self._meter is None or self._train_time_s == 0:
            return
        workers = args.world_size
        self._card["speed"] = {
            "train_time_s": round(self._train_time_s, 3),
            "steps": self._steps,
            "samples": self._meter.samples * workers,
            "tokens": self._meter.real_tokens * workers,
            "computed_tokens": self._meter.computed_tokens * workers,
            "samples_per_s": round(self._meter.samples * workers / self._train_time_s, 3),
            "tokens_per_s": round(self._meter.real_tokens * workers / self._train_time_s, 1),
            "steps_per_s": round(self._steps / self._train_time_s, 4),
        }


class TrainingWatcher(RunWatcher):
    """Follows a run of LLaMA-Factory, and freezes and accelerates it.

    Args:
        settings: what LLaMA-Factory gets.
        card: the run card, which is filled as the run goes on.
        stack: closed by the caller when the run ends, in whatever way; takes the progress display.
        is_accelerated: False leaves LLaMA-Factory as it is, freezing included.
        cache_bytes: what all trunk caches together may take on the disk.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        card: dict[str, Any],
        stack: ExitStack,
        *,
        is_accelerated: bool,
        cache_bytes: int,
    ) -> None:
        super().__init__(card, stack)
        self.accelerations = Accelerations(settings, card, cache_bytes, is_wanted=is_accelerated)
        self._settings = settings
        self._is_accelerated = is_accelerated

    def on_init_end(self, args: Any, state: Any, control: Any, *, model: Any, **kwargs: Any) -> None:
        """Freeze and accelerate: the model is ready and the optimizer is not made yet."""
        if self._is_accelerated and (line := correct_trainable(model, self._settings)):
            say(f"{line}.")
        self.accelerations.install_answer_loss(model)
        super().on_init_end(args, state, control, model=model, **kwargs)

    def on_train_begin(self, args: Any, state: Any, control: Any, *, model: Any, **kwargs: Any) -> None:
        """Accelerate what depends on the data as well."""
        self.has_begun = True
        dataset = getattr(kwargs["train_dataloader"], "dataset", None)
        self.accelerations.install_fast_decoder(model, args, dataset)
        if state.is_world_process_zero:
            self._estimate(args, model, dataset)
        super().on_train_begin(args, state, control, model=model, **kwargs)

    def _estimate(self, args: Any, model: Any, dataset: Any) -> None:
        """Say what the run will take; where that cannot be known the run goes on without."""
        if args.world_size > 1 or find_estimate_obstacle(model, dataset):
            return
        try:
            estimate = estimate_run(model, dataset, None, self._settings, args, self.accelerations.way)
        except Exception as error:  # no run may fail for want of an estimate (a GPU without room to measure, say)
            say(f"No estimate: {error}")
            return
        self._card["estimate"] = {**estimate.to_json(), "compared": None}
        say(summarise_estimate(estimate))

    def name_model_class(self, model: Any) -> str:
        """Return the class of the language model, without what is wrapped around it."""
        return type(find_causal_model(model)).__name__

    def _fill_card(self, args: Any, state: Any) -> None:
        super()._fill_card(args, state)
        self.accelerations.note_use()
        if self._card.get("estimate") and "speed" in self._card:
            self._card["estimate"]["compared"] = compare_with_run(self._card["estimate"], self._card)
