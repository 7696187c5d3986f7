"""Keeps a model loaded between rounds of questions to it, so that it is started once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol, runtime_checkable

from sentifactory.engines.base import ClosingEngine, Engine, Mode
from sentifactory.task.task import Task


@runtime_checkable
class SwitchableEngine(Protocol):
    """An engine that can ask its loaded model with another prompt or in another mode."""

    def switch_to(self, task: Task, *, mode: Mode, name: str) -> None:
        """Ask with this task in this mode from now on.

        Args:
            task: prompt and answer.
            mode: `generate`, `constrain` or `score`.
            name: of the model in progress lines.
        """
        ...


class HeldEngine(ClosingEngine):
    """The engine of the last model that was asked; its `with` block closes it at the end."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._engine: Engine | None = None
        self._key: tuple[str, str] | None = None

    @contextmanager
    def lend(
        self, key: tuple[str, str], build: Callable[[], Engine], task: Task, *, mode: Mode, name: str
    ) -> Iterator[Engine]:
        """Give an engine for a `with` block that does not close it.

        Args:
            key: kind of engine and model; the held engine is taken if it has the same and can be switched.
            build: returns the engine otherwise, after the held one has been closed.
            task: what it is asked.
            mode: how.
            name: of the model in progress lines.
        """
        if self._engine is not None and self._key == key and isinstance(self._engine, SwitchableEngine):
            self._engine.switch_to(task, mode=mode, name=name)
        else:
            self.close()
            self._engine = self._stack.enter_context(build())
            self._key = key
        yield self._engine

    def close(self) -> None:
        """Close the held engine; may be called twice."""
        self._engine = self._key = None
        self._stack.close()
