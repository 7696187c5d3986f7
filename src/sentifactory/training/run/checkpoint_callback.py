"""The trainer callback for complete checkpoints, exact continuation, Ctrl-C and SIGTERM, and nan losses.

A run that is continued in the middle of an epoch draws the order of this epoch again. The trainer's samplers by length
draw it from torch's generator, which the trainer restores only after the order is drawn. So the generator's state at
the start of the epoch is stored in the checkpoint's marker, and restored first.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from sentifactory.errors import ConfigError
from sentifactory.models.complete_folder import list_checkpoints
from sentifactory.models.weights import share_weights
from sentifactory.system.progress import say
from sentifactory.system.ranks import has_launcher
from sentifactory.system.stop_signals import StoppedError, StopRequests, end_by, note_kept
from sentifactory.task.model_folder import TASK_NAME, write_model_task
from sentifactory.task.task import Task
from sentifactory.training.run.checkpoints import (
    mark_complete,
    read_marker,
    remove_checkpoint,
    remove_older,
)
from sentifactory.training.run.collectives import find_largest, wait_for_ranks
from sentifactory.training.run.progress_callback import BaseCallback


class CheckpointCallback(BaseCallback):
    """Protects the checkpoints and weights of one training run.

    Args:
        settings: the settings of the trainer.
        fingerprint: of the run, written into the markers.
        stack: receives the signal handlers; the caller closes it when the run ends or fails.
        task: of the run; None where it is unknown.
    """

    def __init__(self, settings: Mapping[str, Any], fingerprint: str, stack: ExitStack, task: Task | None) -> None:
        self._task = task
        self._settings = settings
        self._fingerprint = fingerprint
        self._stack = stack
        self._stop_requests = StopRequests()
        self._stop_signal: int | None = None  # that this process has got
        self._agreed_stop: int | None = None  # that any process has got, known to all of them
        self._process = os.getpid()
        self._losses: list[Any] = []
        self._epoch_start = ""
        self._resumed_from: str | None = None
        self._limit: int | None = None
        self._best: Path | None = None  # checkpoint of the main process, once the training is over

    def on_init_end(self, args: Any, state: Any, control: Any, *, model: Any, **kwargs: Any) -> None:
        """Record every training loss."""
        model.register_forward_hook(self._record_loss)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take over the removal of older checkpoints, and handle Ctrl-C and SIGTERM."""
        if isinstance(args.resume_from_checkpoint, str):
            self._resumed_from = args.resume_from_checkpoint
            _report_former_rate(args, kwargs.get("optimizer"))
        # The trainer would remove older ones before the newest has its marker.
        self._limit, args.save_total_limit = args.save_total_limit, None
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                previous = signal.getsignal(number)
                if number == signal.SIGTERM or previous != signal.SIG_IGN:  # a script's background job ignores Ctrl-C
                    signal.signal(number, self._request_stop)
                    self._stack.callback(signal.signal, number, previous)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Restore the generator that the order of the epoch is drawn from, and record its state."""
        import torch

        if self._resumed_from is not None:
            stored = read_marker(Path(self._resumed_from)).get("order_generator")
            if stored:
                torch.set_rng_state(torch.tensor(list(bytes.fromhex(stored)), dtype=torch.uint8))
            self._resumed_from = None
        self._epoch_start = _read_generator()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop before a nan loss reaches the weights.

        Raises:
            ConfigError: when the loss is nan or infinite.
        """
        losses, self._losses = self._losses, []
        is_finite = all(bool(loss.isfinite().all()) for loss in losses)
        if find_largest(int(not is_finite), args.device):
            raise self._explain_nan(f"The loss of step {state.global_step + 1} is not a number", args)

    def on_step_end(self, args: Any, state: Any, control: Any, *, model: Any, **kwargs: Any) -> None:
        """Refuse to save nan weights, and save at once where the run was asked to stop.

        Raises:
            ConfigError: when a trainable weight is nan or infinite.
            StoppedError: when the run was asked to stop, and its settings say that it saves nothing.
        """
        if control.should_save and not _are_finite(model):
            raise self._explain_nan(f"A weight is not a number after step {state.global_step}", args)
        self._save_before_stop(args, state, control)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save after an evaluation during which the run was asked to stop; raises what `on_step_end` raises."""
        self._save_before_stop(args, state, control)

    def _save_before_stop(self, args: Any, state: Any, control: Any) -> None:
        # A signal reaches each process in another step; all stop after the same one.
        self._agreed_stop = find_largest(self._stop_signal or 0, args.device) or None
        if self._agreed_stop is None:
            return
        if str(getattr(args.save_strategy, "value", args.save_strategy)) == "no":
            what = f"Stopped after step {state.global_step} without a checkpoint, because save_strategy is no."
            raise StoppedError(what, self._agreed_stop, continues=False)
        control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Mark the checkpoint as complete, then remove older ones.

        Raises:
            StoppedError: when the run was asked to stop.
        """
        # Each process writes the states of its generators, and may be asked to stop meanwhile.
        self._agreed_stop = find_largest(self._stop_signal or 0, args.device) or None
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            if folder.is_dir():
                # At the end of an epoch, the next order is drawn from the current state of the generator.
                is_epoch_over = float(state.epoch or 0).is_integer()
                start = _read_generator() if is_epoch_over else self._epoch_start
                self._write_task(folder)
                share_weights(folder)
                mark_complete(folder, self._fingerprint, order_generator=start, processes=args.world_size)
                remove_older(Path(args.output_dir), self._limit, state.best_model_checkpoint)
                note_kept(args.output_dir, folder.name)
        if self._agreed_stop is not None:
            wait_for_ranks(args.device)  # the main process has marked the checkpoint
            place = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            what = f"Stopped after step {state.global_step} of {state.max_steps}, saved in {place}."
            raise StoppedError(what, self._agreed_stop)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the task: before the weights, so that a kill never leaves them with the task of an earlier run."""
        args.save_total_limit = self._limit
        if state.is_world_process_zero:
            self._write_task(Path(args.output_dir))
            if self._limit == 1 and state.best_model_checkpoint is not None:
                self._best = Path(args.output_dir) / Path(state.best_model_checkpoint).name

    def keep_best(self) -> None:
        """Keep only the best checkpoint where the limit is 1, as the trainer does; call it once the weights are saved.

        Before that, a killed run would continue from the best one instead of the last.
        """
        if self._best is not None:
            for folder in list_checkpoints(self._best.parent):
                if folder.name != self._best.name:
                    remove_checkpoint(folder)

    def _write_task(self, folder: Path) -> None:
        """Write the task into a model folder; remove an older one where the task is unknown."""
        if self._task is not None:
            write_model_task(self._task, folder)
        else:
            (folder / TASK_NAME).unlink(missing_ok=True)

    def _record_loss(self, module: Any, args: tuple[Any, ...], output: Any) -> None:
        loss = output.get("loss") if hasattr(output, "get") else None
        if module.training and loss is not None:
            self._losses.append(loss.detach())

    def _request_stop(self, number: int, frame: Any) -> None:
        if os.getpid() != self._process:  # a worker of the data loader, which inherits the handlers
            if number == signal.SIGTERM:  # the trainer ends it
                end_by(number)
            return  # Ctrl-C reaches every process of the terminal, and the last step still needs its workers
        if not self._stop_requests.add():
            return
        if self._stop_requests.count > 1:
            end_by(number)
            return
        self._stop_signal = number
        if has_launcher():
            return
        name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
        with suppress(RuntimeError):  # the handler may have interrupted another line
            say(f"{name}: the run saves a checkpoint after this step and stops; {name} again stops it at once.")

    def _explain_nan(self, what: str, args: Any) -> ConfigError:
        last = [folder for folder in list_checkpoints(Path(args.output_dir)) if read_marker(folder)]
        earlier = f"; {last[-1]} is from before" if last else ""
        precision = "" if not args.fp16 else "fp16=false (bf16=true where the GPU has it), "
        return ConfigError(
            f"{what}, so the run was stopped{earlier}",
            where=f"learning_rate {args.learning_rate:g}, {self._settings.get('dataset')}",
            next_step=f"set {precision}a lower learning_rate, a longer warmup_steps or a smaller max_grad_norm; if "
            "it happens in the first step, look for samples whose answer cutoff_len removes",
            code="training-diverged",
        )


def _read_generator() -> str:
    import torch

    return bytes(torch.get_rng_state().tolist()).hex()


def _are_finite(model: Any) -> bool:
    """Return whether all trainable weights are finite."""
    return all(bool(value.isfinite().all()) for value in model.parameters() if value.requires_grad)


def _report_former_rate(args: Any, optimizer: Any) -> None:
    """Say that a changed learning rate has no effect: a checkpoint holds the rate of the run that wrote it.

    The schedule multiplies `initial_lr`, which is loaded with the state of the optimizer.
    """
    groups = [] if optimizer is None else optimizer.param_groups
    rates = [group["initial_lr"] for group in groups if "initial_lr" in group]
    if rates and args.learning_rate not in rates:
        say(
            f"learning_rate is {args.learning_rate:g}, but the run continues at {rates[0]:g}, as the optimizer in "
            f"{args.resume_from_checkpoint} does; for another rate start a new run from it (model_name_or_path)."
        )
