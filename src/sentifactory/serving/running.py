"""Puts the parts of a service together and runs it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from sentifactory.missing_package import require_packages
from sentifactory.progress import say
from sentifactory.serving.api import build_app
from sentifactory.serving.loading import ModelChoice, open_backend
from sentifactory.serving.reporting import build_reporter
from sentifactory.serving.server import bind_socket, describe_calls, run_server
from sentifactory.serving.service import PredictionService
from sentifactory.serving.settings import KEY_VARIABLE, Access, Limits, is_weak_key


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What is served, how it is reached, and how much is taken.

    Attributes:
        choice: the model and what runs it.
        task: name or YAML file of the task; None: what the model was taught.
        name: what the model is called in answers; None: as its folder.
        threshold: below this probability no label is given: a number, "calibrated", or None.
        access: address, key and CORS.
        limits: how much is taken at once.
    """

    choice: ModelChoice
    task: str | None = None
    name: str | None = None
    threshold: str | None = None
    access: Access = field(default_factory=Access)
    limits: Limits = field(default_factory=Limits)


def run_service(options: ServeOptions, tell: Callable[[str], None]) -> None:
    """Serve until a signal comes.

    Args:
        options: what is served and how.
        tell: prints a line for the user.

    Raises:
        ConfigError: when an option, the address or the model cannot be used.
        DataError: when the reviews that tfidf learns from cannot be used.
        EngineError: when the engine does not start.
    """
    access, limits = options.access, options.limits
    limits.check()
    require_packages("fastapi", "fastapi_offline", "httptools", "prometheus_client", "uvicorn")
    options.choice.check()
    task = options.choice.find_task(options.task).announce().task
    reporter = build_reporter(options.choice.model, task, options.threshold, options.name)
    if access.is_open:
        say(
            f"WARNING: everybody who reaches {access.host}:{access.port} may use this service. "
            f"Set {KEY_VARIABLE} to ask for a key. Without one it answers under its addresses and under names of "
            "the local network; --allowed_host NAME adds another name."
        )
    elif access.is_public and access.key is not None and is_weak_key(access.key):
        say(
            f"WARNING: {KEY_VARIABLE} holds a key that can be guessed, and other machines reach "
            f"{access.host}:{access.port}. Set it to the output of `openssl rand -hex 32`."
        )
    with ExitStack() as stack:
        bound = stack.enter_context(bind_socket(access))
        backend, engine = open_backend(
            options.choice,
            task,
            reporter.model,
            limits,
            on_batch=lambda n_texts: service.metrics.batches.observe(n_texts),
            on_restart=lambda: service.metrics.restarts.inc(),
        )
        if engine is not None:
            stack.enter_context(engine)
        service = PredictionService(backend, reporter, limits)
        port = bound.getsockname()[1]

        def announce() -> None:
            corrected = "calibrated probabilities" if reporter.calibration else "probabilities as the model gives them"
            tell(f"{reporter.model} is ready ({corrected}). Ask it:")
            for line in describe_calls(access, port):
                tell(f"  {line}")

        run_server(build_app(service, access), service, bound, announce)
