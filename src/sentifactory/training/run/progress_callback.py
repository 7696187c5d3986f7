"""The trainer callback that counts samples and tokens, shows progress and updates the run card."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from sentifactory.system.hardware import HeapTrimmer, measure_peak_memory, read_device_peak
from sentifactory.system.progress import Progress, say, show_progress
from sentifactory.system.progress_file import begin_phase, count_done
from sentifactory.training.run.collectives import sum_over_ranks
from sentifactory.training.run.run_card import summarise_trainable, write_card
from sentifactory.training.run.run_phases import PREPARING, SAVING, TRAINING, VALIDATING, announce_phase

MACRO_F1, LABEL_ACCURACY = "macro_f1", "label_accuracy"
# The run card is updated this often while losses are logged; the page reads it to follow a run.
LIVE_CARD_EVERY_S = 1.0
# In a continued run the trainer divides what this session did by the steps of all sessions, or the other way round.
_WRONG_WHEN_CONTINUED = ("train_loss", "train_samples_per_second", "train_steps_per_second")


class BaseCallback:
    """Base of our callbacks: ignores every event of the trainer that a subclass does not handle.

    The trainer calls events by name, so this is not a transformers class, and importing it does not load transformers.
    """

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("on_"):
            return lambda *args, **kwargs: None
        raise AttributeError(name)


class TokenCounter:
    """Counts samples, tokens, and tokens with padding that pass through the model in training."""

    def __init__(self, model: Any) -> None:
        self.samples = 0
        self.computed_tokens = 0
        self._real_tokens: Any = 0
        model.register_forward_pre_hook(self._count, with_kwargs=True)

    def read(self) -> list[int]:
        """Return samples, tokens without padding (counted on the device, and fetched only here), and all tokens."""
        return [self.samples, int(self._real_tokens), self.computed_tokens]

    def _count(self, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        ids = kwargs.get("input_ids")
        if not module.training or ids is None:
            return
        mask: Any = kwargs.get("attention_mask")
        self.samples += ids.shape[0]
        self.computed_tokens += ids.numel()
        is_flat = mask is not None and mask.dim() == 2  # with neat packing the mask is per pair of tokens
        self._real_tokens = self._real_tokens + (mask.ne(0).sum() if is_flat else ids.numel())


class ProgressCallback(BaseCallback):
    """Follows one run of any trainer: progress display, speed and run card.

    Args:
        card: the run card, updated during the run.
        stack: receives the progress display; the caller closes it when the run ends or fails.
    """

    def __init__(self, card: dict[str, Any], stack: ExitStack) -> None:
        self.has_begun = False
        self._card = card
        self._stack = stack
        self._progress: Progress | None = None
        self._counter: TokenCounter | None = None
        self._totals: list[int] | None = None  # what all processes counted, from the end of the training on
        self._step_start_s = 0.0
        self._train_time_s = 0.0
        self._steps = 0
        self._card_written_s = 0.0
        self._began_s = 0.0
        self._first_step = 0
        self._n_scored_batches = 0
        self._has_ended = False
        self._heap = HeapTrimmer()

    def on_init_end(self, args: Any, state: Any, control: Any, *, model: Any, **kwargs: Any) -> None:
        """Count the trainable parameters before the optimizer is created."""
        if state.is_world_process_zero:
            announce_phase(PREPARING)
        self._counter = TokenCounter(model)
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
        self._began_s, self._first_step = time.monotonic(), state.global_step
        self._begin_training_phase(state)

    def name_model_class(self, model: Any) -> str:
        """Return the class of the model for the run card."""
        return type(model).__name__

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the timer; evaluation and saving between steps do not count as training time."""
        self._step_start_s = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop the timer and count the step."""
        self._heap.trim_if_grown()
        self._train_time_s += time.monotonic() - self._step_start_s
        self._steps += 1
        if self._progress is not None:
            self._progress.advance()
            count_done(state.global_step, self._estimate_left(state))

    def _estimate_left(self, state: Any) -> float | None:
        """Return the seconds until the last step, at the pace of this session with its evaluations."""
        n_steps = state.global_step - self._first_step
        pace_s = (time.monotonic() - self._began_s) / n_steps if n_steps else None
        return None if pace_s is None else pace_s * (state.max_steps - state.global_step)

    def _begin_training_phase(self, state: Any) -> None:
        if self._has_ended:
            begin_phase(SAVING)
            return
        begin_phase(TRAINING, state.max_steps, state.global_step)
        count_done(state.global_step, self._estimate_left(state))

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Say how many batches of the validation reviews are scored."""
        if self._progress is None:
            return
        if self._n_scored_batches == 0:
            loader: Any = kwargs.get("eval_dataloader")
            begin_phase(VALIDATING, len(loader) if hasattr(loader, "__len__") else None)
        self._n_scored_batches += 1
        count_done(self._n_scored_batches)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Show the latest metrics next to the progress bar, and update the run card."""
        logs: Mapping[str, Any] = kwargs.get("logs") or {}
        if self._progress is None:
            return
        if time.monotonic() - self._card_written_s >= LIVE_CARD_EVERY_S:
            self._fill_card(args, state)
            write_card(args.output_dir, self._card)
            self._card_written_s = time.monotonic()
        shown = ("loss", "eval_loss", "eval_macro_f1")
        notes = [f"{key.replace('_', ' ')} {logs[key]:.4f}" for key in shown if key in logs]
        if notes and (speed := self._card.get("speed")):  # None until a step has been trained
            notes += [
                f"{speed['tokens_per_s']:.0f} tokens/s",
                f"{speed['samples_per_s']:.1f} samples/s",
                f"peak {read_device_peak(measure_peak_memory()) / 2**30:.1f} GiB",
            ]
            self._progress.note(", ".join(notes))

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Update the run card."""
        if state.is_world_process_zero:
            self._fill_card(args, state)
            write_card(args.output_dir, self._card)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the display; the caller completes the run card after the weights are written."""
        if self._counter is not None:
            self._totals = sum_over_ranks(self._counter.read(), args.device)
        self._fill_card(args, state)
        self._stack.close()
        self._has_ended = True
        if state.is_world_process_zero:
            announce_phase(SAVING)
        if state.best_model_checkpoint is not None and args.load_best_model_at_end:
            is_early = state.global_step < state.max_steps
            ending = f"Stopped early at step {state.global_step} of {state.max_steps}. " if is_early else ""
            say(f"{ending}Loaded the best checkpoint, of step {state.best_global_step}.")

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record the latest evaluation, and print it."""
        self._fill_card(args, state)
        if self._n_scored_batches and self._progress is not None:
            self._n_scored_batches = 0
            self._begin_training_phase(state)
        metrics: Mapping[str, Any] = kwargs.get("metrics") or {}
        if state.is_world_process_zero and (f1 := metrics.get(f"eval_{MACRO_F1}")) is not None:
            # LLaMA-Factory's accuracy is per token, so label accuracy has another name; encoders have only one.
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
            for key in _WRONG_WHEN_CONTINUED if self._first_step else ():
                kept.pop(key, None)
            self._card["result"].update(kept)
        if state.best_global_step and "validation" in self._card:
            best = {"best_step": state.best_global_step, "best_value": state.best_metric}
            self._card["validation"].update(best)
        self._card["memory"] = measure_peak_memory()
        self._card["steps"] = state.global_step
        if self._counter is None or self._train_time_s == 0:
            return
        # Until the end, the other processes are taken to have as much to do as this one.
        samples, tokens, computed = self._totals or [count * args.world_size for count in self._counter.read()]
        self._card["speed"] = {
            "train_time_s": round(self._train_time_s, 3),
            "steps": self._steps,
            "samples": samples,
            "tokens": tokens,
            "computed_tokens": computed,
            "samples_per_s": round(samples / self._train_time_s, 3),
            "tokens_per_s": round(tokens / self._train_time_s, 1),
            "steps_per_s": round(self._steps / self._train_time_s, 4),
        }
