"""The callback that keeps a run from being lost: whole checkpoints, exact continuation, SIGTERM, losses that are nan.

Continuation in the middle of an epoch draws the order of this epoch again. The trainer's samplers by length draw it
from torch's generator, which the trainer itself brings back only after the order is drawn; so the generator's state
at the epoch's beginning is kept in the checkpoint's marker and brought back before.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sentifactory.errors import ConfigError
from sentifactory.model_task import TASK_NAME, write_model_task
from sentifactory.progress import say
from sentifactory.task import Task
from sentifactory.training.checkpoints import (
    list_checkpoints,
    mark_complete,
    read_marker,
    remove_checkpoint,
    remove_older,
)
from sentifactory.training.watching import TrainerListener


class RunGuard(TrainerListener):
    """Watches over one training run.

    Args:
        settings: what LLaMA-Factory gets.
        fingerprint: of the run, for the markers.
        stack: closed by the caller when the run ends, in whatever way.
        task: what the run teaches; None where that is not known.
    """

    def __init__(
        self, settings: Mapping[str, Any], fingerprint: str, stack: ExitStack, task: Task | None = None
    ) -> None:
        self._task = task
        self._settings = settings
        self._fingerprint = fingerprint
        self._stack = stack
        self._is_told_to_stop = False
        self._losses: list[Any] = []
        self._epoch_start = ""
        self._resumed_from: str | None = None
        self._limit: int | None = None

    def on_init_end(self, args: Any, state: Any, control: Any, *, model: Any, **kwargs: Any) -> None:
        """Look at every loss that the model gives in training."""
        model.register_forward_hook(self._note_loss)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take over the removal of older checkpoints, and wait for SIGTERM."""
        if isinstance(args.resume_from_checkpoint, str):
            self._resumed_from = args.resume_from_checkpoint
        # The trainer removes older ones before the newest has its marker.
        self._limit, args.save_total_limit = args.save_total_limit, None
        if threading.current_thread() is threading.main_thread():
            former = signal.signal(signal.SIGTERM, self._stop_softly)
            self._stack.callback(signal.signal, signal.SIGTERM, former)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Bring back the generator that the order of an epoch is drawn from, and keep its state."""
        import torch

        if self._resumed_from is not None:
            kept = read_marker(Path(self._resumed_from)).get("order_generator")
            if kept:
                torch.set_rng_state(torch.tensor(list(bytes.fromhex(kept)), dtype=torch.uint8))
            self._resumed_from = None
        self._epoch_start = _read_generator()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop before a loss that is no number gets into the weights.

        Raises:
            ConfigError: when the loss is nan or infinite.
        """
        losses, self._losses = self._losses, []
        if not all(bool(loss.isfinite().all()) for loss in losses):
            raise self._explain_nan(f"The loss of step {state.global_step + 1} is not a number", args)

    def on_step_end(self, args: Any, state: Any, control: Any, *, model: Any, **kwargs: Any) -> None:
        """Let no ruined weights be saved, and save at once where the run was told to stop.

        Raises:
            ConfigError: when a weight that trains is nan or infinite.
        """
        if control.should_save and not _are_finite(model):
            raise self._explain_nan(f"A weight is not a number after step {state.global_step}", args)
        if self._is_told_to_stop:
            if str(getattr(args.save_strategy, "value", args.save_strategy)) == "no":
                raise SystemExit(128 + signal.SIGTERM)
            say(f"SIGTERM: the run ends after step {state.global_step}, with a checkpoint to continue from.")
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Mark the checkpoint as complete; only then older ones may go.

        Raises:
            SystemExit: where the run was told to stop.
        """
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            if folder.is_dir():
                # At the end of an epoch the next one's order is drawn from the generator as it is now.
                is_epoch_over = float(state.epoch or 0).is_integer()
                start = _read_generator() if is_epoch_over else self._epoch_start
                self._keep_task(folder)
                mark_complete(folder, self._fingerprint, order_generator=start)
                remove_older(Path(args.output_dir), self._limit, state.best_model_checkpoint)
        if self._is_told_to_stop:
            raise SystemExit(128 + signal.SIGTERM)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave the best checkpoint alone where one is all that may stay, as the trainer does it; keep the task.

        The weights are written next, and no kill in between shall leave them with the task of an earlier run.
        """
        args.save_total_limit = self._limit
        if state.is_world_process_zero:
            self._keep_task(Path(args.output_dir))
        if state.is_world_process_zero and self._limit == 1 and state.best_model_checkpoint is not None:
            for folder in list_checkpoints(Path(args.output_dir)):
                if folder.name != Path(state.best_model_checkpoint).name:
                    remove_checkpoint(folder)

    def _keep_task(self, folder: Path) -> None:
        """Let a folder say what its model was taught, or nothing where that is not known."""
        if self._task is not None:
            write_model_task(self._task, folder)
        else:
            (folder / TASK_NAME).unlink(missing_ok=True)

    def _note_loss(self, module: Any, args: tuple[Any, ...], output: Any) -> None:
        loss = output.get("loss") if hasattr(output, "get") else None
        if module.training and loss is not None:
            self._losses.append(loss.detach())

    def _stop_softly(self, number: int, frame: Any) -> None:
        self._is_told_to_stop = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends the run at once

    def _explain_nan(self, what: str, args: Any) -> ConfigError:
        last = [folder for folder in list_checkpoints(Path(args.output_dir)) if read_marker(folder)]
        kept = f"; {last[-1]} is from before" if last else ""
        precision = "" if not args.fp16 else "fp16=false (bf16=true where the GPU has it), "
        return ConfigError(
            f"{what}, so the run was stopped{kept}",
            where=f"learning_rate {args.learning_rate:g}, {self._settings.get('dataset')}",
            next_step=f"set {precision}a lower learning_rate, a longer warmup_steps or a smaller max_grad_norm; where "
            "it happens in the first step, look for samples that cutoff_len leaves no answer of",
        )


def _read_generator() -> str:
    import torch

    return bytes(torch.get_rng_state().tolist()).hex()


def _are_finite(model: Any) -> bool:
    """Return whether all weights that train are numbers."""
    return all(bool(value.isfinite().all()) for value in model.parameters() if value.requires_grad)
