"""A base class of trainers for runs that are continued after their last step, such as one killed before it saved."""

from __future__ import annotations

from typing import Any


class FinishedRunGuard:
    """Trains no step of a run that is over, where transformers' Trainer trains one more.

    It belongs before the trainer among the base classes.

    Attributes:
        continues_own_run: whether a loaded checkpoint is of this very run, which may have stopped early. From another
            run's, a run that is longer goes on.
    """

    continues_own_run = True
    state: Any
    control: Any

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        if self._is_over():
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)  # type: ignore[misc]

    def _is_over(self) -> bool:
        if self.state.global_step >= self.state.max_steps:
            return True
        saved = self.state.stateful_callbacks.get("TrainerControl") or {}
        return self.continues_own_run and bool(saved.get("args", {}).get("should_training_stop"))
