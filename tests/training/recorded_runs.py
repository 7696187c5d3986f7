"""Records the gradients of every step of a training run, and the final weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


class GradientRecorder:
    """Records the gradients of every step just before the optimizer's step."""

    def __init__(self, *, stop_after: int | None = None) -> None:
        self.steps: list[dict[str, Any]] = []
        self.stop_after = stop_after

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("on_"):
            return lambda *args, **kwargs: None
        raise AttributeError(name)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, *, model: Any, **kwargs: Any) -> None:
        self.steps.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.stop_after == state.global_step:
            raise KeyboardInterrupt


class LossRecorder(GradientRecorder):
    """Records the losses of all processes together, without the rounding of the log, besides the gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []
        self._sum = 0.0

    def on_init_end(self, args: Any, state: Any, control: Any, *, model: Any, **kwargs: Any) -> None:
        model.register_forward_hook(self._add_loss)

    def _add_loss(self, module: Any, args: tuple[Any, ...], output: Any) -> None:
        if module.training and output.get("loss") is not None:
            self._sum += float(output["loss"].detach())

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, *, model: Any, **kwargs: Any) -> None:
        import torch
        import torch.distributed as dist

        super().on_pre_optimizer_step(args, state, control, model=model, **kwargs)
        total = torch.tensor(self._sum, dtype=torch.float64)
        if dist.is_initialized():
            dist.all_reduce(total)
        self.losses.append(float(total))
        self._sum = 0.0


def read_weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")
