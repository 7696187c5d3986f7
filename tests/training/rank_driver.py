"""Trains recipes as one of several processes, one after the other; the main one writes what it saw into found.json.

Usage: torchrun ... rank_driver.py RECIPE FOLDER JOBS, where JOBS is a JSON list of {name, output, words, options,
stop_at}. All jobs run in one start of the processes, because a start takes longer than the training. `stop_at` sends
SIGTERM to the last process in that step.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from recorded_runs import LossRecorder

from sentifactory.errors import ConfigError
from sentifactory.system.ranks import is_main_process, read_rank
from sentifactory.system.stop_signals import StoppedError
from sentifactory.training.llamafactory.train_recipe import train_recipe
from sentifactory.training.run.collectives import compare_machines, run_on_main


class SignalSender:
    """Sends SIGTERM to the last process in one step."""

    def __init__(self, step: int | None) -> None:
        self._step = step

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step + 1 == self._step and read_rank() == args.world_size - 1:
            os.kill(os.getpid(), signal.SIGTERM)


class DeepSpeedRecorder(LossRecorder):
    """Records the whole gradients before the step of DeepSpeed, which the trainer's callbacks see only afterwards."""

    def on_train_begin(self, args: Any, state: Any, control: Any, *, model: Any, **kwargs: Any) -> None:
        from deepspeed import DeepSpeedEngine
        from deepspeed.utils import safe_get_full_grad

        stock = getattr(DeepSpeedEngine.step, "stock", DeepSpeedEngine.step)

        def step(engine: Any, *words: Any, **options: Any) -> Any:
            if engine.is_gradient_accumulation_boundary():
                parameters = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
                self.steps.append({name: safe_get_full_grad(value).clone() for name, value in parameters})
            return stock(engine, *words, **options)

        step.stock = stock  # type: ignore[attr-defined]
        DeepSpeedEngine.step = step

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        recorded = list(self.steps)
        super().on_pre_optimizer_step(args, state, control, **kwargs)
        self.steps = recorded


def take_part(value: Any) -> Any:
    """Return the part of a tensor that this process holds."""
    return value.to_local() if hasattr(value, "to_local") else value


class HeldWeights:
    """Copies the weights that this process holds after a step: with FSDP or DeepSpeed ZeRO-3, its part of them."""

    def __init__(self) -> None:
        self.parts: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None

    def on_step_end(self, args: Any, state: Any, control: Any, *, model: Any, **kwargs: Any) -> None:
        parts = (take_part(getattr(value, "ds_tensor", value)) for value in model.parameters())
        self.parts = [part.detach().flatten().clone() for part in parts]


@contextmanager
def let_cpu_split() -> Iterator[None]:
    """Let accelerate use FSDP on the CPU within the block; it does only where it sees a GPU, and says nothing."""
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType

    stock = AcceleratorState.__init__

    def initialize(self: Any, *args: Any, **options: Any) -> None:
        stock(self, *args, **options)
        if (plugin := options.get("fsdp_plugin")) is not None:
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, plugin
            self.device = torch.device("cpu")  # accelerate numbers it, and torch's FSDP compares it with plain `cpu`

    AcceleratorState.__init__ = initialize
    try:
        yield
    finally:
        AcceleratorState.__init__ = stock


def run_job(recipe: Path, folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    recorder = LossRecorder()
    if any(word.startswith("deepspeed=") for word in job["words"]):
        recorder = DeepSpeedRecorder()
    held = HeldWeights()
    callbacks = [recorder, held, SignalSender(job.get("stop_at"))]
    words = [*job["words"], f"output_dir={folder / job.get('output', job['name'])}"]
    try:
        card = train_recipe(recipe, words, callbacks=callbacks, **job.get("options", {}))
    except StoppedError as stop:
        card = {"stopped": stop.what, "code": stop.code}
    rank = "" if is_main_process() else f"-{read_rank()}"  # with FSDP each process has a part of every gradient
    steps = [{name: take_part(value) for name, value in step.items()} for step in recorder.steps]
    torch.save(steps, folder / f"{job['name']}.gradients{rank}.pt")
    torch.save(held.parts, folder / f"{job['name']}.weights{rank}.pt")
    return {"losses": recorder.losses, "card": card}


def compare_unlike_machines() -> str:
    """Return the code of the error for machines with unlike data, in each process as if on a machine of its own."""
    before = {name: os.environ[name] for name in ("LOCAL_RANK", "GROUP_RANK")}
    os.environ |= {"LOCAL_RANK": "0", "GROUP_RANK": os.environ["RANK"]}
    try:
        compare_machines(lambda: {"code": 1, "data": 1})
        compare_machines(lambda: {"code": 1, "data": read_rank()})
    except ConfigError as error:
        return f"{error.code}: {error.what.replace(socket.gethostname(), 'host')}"
    finally:
        os.environ |= before
    return ""


def fail_on_main() -> str:
    """Return the error that every process gets when the main one fails."""

    def fail() -> None:
        raise ConfigError("wrong", where=f"rank {read_rank()}")

    try:
        run_on_main(fail)
    except ConfigError as error:
        return error.where
    return ""


def main(recipe: Path, folder: Path, jobs: list[dict[str, Any]]) -> None:
    end_group = dist.destroy_process_group
    dist.destroy_process_group = lambda *args: None  # LLaMA-Factory's, after each run; the next one needs the group
    with let_cpu_split():
        found: dict[str, Any] = {job["name"]: run_job(recipe, folder, job) for job in jobs}
    words = [None, None]
    dist.all_gather_object(words, [compare_unlike_machines(), fail_on_main()])
    if is_main_process():
        (folder / "found.json").write_text(json.dumps({**found, "words": words}, default=str))
    end_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(Path(sys.argv[3]).read_text()))
