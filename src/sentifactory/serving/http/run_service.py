"""Builds a service from its options and runs it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from sentifactory.serving.answer_format import build_formatter
from sentifactory.serving.backends.model_loading import ModelChoice, open_backend
from sentifactory.serving.http.api import build_app
from sentifactory.serving.http.prediction_service import PredictionService
from sentifactory.serving.http.server import bind_socket, describe_calls, run_server
from sentifactory.serving.service_settings import KEY_VARIABLE, Access, Limits, is_weak_key
from sentifactory.system.extras import require_packages
from sentifactory.system.progress import say


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """The options of `sentifactory serve`.

    Attributes:
        choice: the model and its engine.
        task: name or YAML file of the task; None: the one that the model was trained on.
        name: of the model in answers; None: the name of its folder.
        threshold: below this probability no label is given: a number, "calibrated", or None.
        access: address, key and CORS.
        limits: of sizes, times and numbers.
    """

    choice: ModelChoice
    task: str | None = None
    name: str | None = None
    threshold: str | None = None
    access: Access = field(default_factory=Access)
    limits: Limits = field(default_factory=Limits)


def run_service(options: ServeOptions, echo: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        options: model, address and limits.
        echo: prints a line for the user.

    Raises:
        ConfigError: when an option, the address or the model cannot be used.
        DataError: when the reviews that tfidf is trained on cannot be used.
        EngineError: when the engine does not start.
    """
    access, limits = options.access, options.limits
    limits.check()
    require_packages("fastapi", "fastapi_offline", "httptools", "prometheus_client", "uvicorn")
    options.choice.check()
    task = options.choice.find_task(options.task).announce().task
    formatter = build_formatter(options.choice.model, task, options.threshold, options.name)
    is_tuned = options.choice.is_tuned
    if is_tuned is False:
        say(
            f"WARNING: {options.choice.model} contains no record of a training. A language model that was not tuned "
            "guesses, and its probabilities do not show it: train it, and serve the tuned one."
        )
    if access.is_open:
        say(
            f"WARNING: everybody who reaches {access.host}:{access.port} may use this service. "
            f"Set {KEY_VARIABLE} to require a key. Without one it answers under its addresses and under names of "
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
            formatter.model,
            limits,
            on_batch=lambda n_texts: service.metrics.batches.observe(n_texts),
            on_restart=lambda: service.metrics.restarts.inc(),
        )
        if engine is not None:
            stack.enter_context(engine)
        service = PredictionService(backend, formatter, limits, is_tuned=is_tuned)
        port = bound.getsockname()[1]

        def announce() -> None:
            source = "calibrated probabilities" if formatter.calibration else "probabilities as the model gives them"
            echo(f"{formatter.model} is ready ({source}). Try it:")
            for line in describe_calls(access, port):
                echo(f"  {line}")

        run_server(build_app(service, access), service, bound, announce)
