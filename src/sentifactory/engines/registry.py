"""Builds an engine from its name and a model, and checks both before anything is started.

`build_engine` is the one place that creates engines: vllm, transformers, encoder, onnx, or a server's address.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from sentifactory.engines.base import MAX_NEW_TOKENS, MODES, Engine, Mode, OnAnswer, WrappingEngine
from sentifactory.engines.local.stack_folder import check_task, find_member, is_stack, load_stack, read_facts
from sentifactory.engines.vllm.vllm_install import refuse_unwanted_vllm
from sentifactory.errors import ConfigError
from sentifactory.metrics.calibration import Calibration, find_calibration
from sentifactory.models.complete_folder import HOW_TO_MAKE, refuse_incomplete
from sentifactory.models.folder_checks import find_unsafe_content
from sentifactory.models.hub import find_task_folder
from sentifactory.records import Prediction, Review
from sentifactory.system.environments import is_vllm_unwanted
from sentifactory.system.network_settings import is_hub_id, is_loopback_host, refuse_unusable_proxies
from sentifactory.task.task import Task

LOCAL_KINDS = ("vllm", "transformers", "encoder", "onnx")
# Engines that run classifiers, which generate no text.
SCORING_KINDS = ("encoder", "onnx")
# Selects the engine that fits the model.
AUTO = "auto"


def is_address(kind: str) -> bool:
    """Return whether an engine is given as a server's address."""
    return kind.startswith(("http://", "https://"))


def check_engine(kind: str, model: str) -> None:
    """Check an engine's name and its model, in less than a second and without starting anything.

    Raises:
        ConfigError: for an unknown engine, a missing or incomplete checkpoint, or an unusable proxy on the way to a
            remote server.
    """
    if is_address(kind):
        if is_stack(model):
            raise ConfigError(
                "A stack runs its own model and cannot be asked at an address",
                where=model,
                expected=f"one of the engines {', '.join((*LOCAL_KINDS, AUTO))}",
                next_step="leave out the address",
                code="stack-address",
            )
        if not is_loopback_host(urlsplit(kind).hostname or ""):
            refuse_unusable_proxies()
        return
    if kind not in (*LOCAL_KINDS, AUTO):
        raise ConfigError(
            f"Unknown engine {kind!r}",
            where="engine",
            expected=f"{', '.join((*LOCAL_KINDS, AUTO))}, or an address such as http://127.0.0.1:8000/v1",
            next_step="choose one of them",
            code="option-value",
        )
    if kind == "vllm":
        refuse_unwanted_vllm()
    check_model(model)


def choose_kind(kind: str, model: str) -> str:
    """Return the engine for a model: for `auto` the one that fits it, else `kind` itself.

    Of a stack, that is the engine of its tuned model.

    Raises:
        EngineError: when the configuration of a hub model cannot be fetched.
    """
    if kind != AUTO:
        return kind
    from sentifactory.engines.local.onnx_engine import is_export
    from sentifactory.models.classifiers import is_classifier

    model = find_member(model)
    if is_export(model):
        return "onnx"
    return "encoder" if is_classifier(model) else "transformers"


def is_scoring_kind(kind: str) -> bool:
    """Return whether an engine, by its name or address, runs classifiers, which take no prompt."""
    return kind in SCORING_KINDS or kind.rstrip("/").endswith("/classify")


def split_by_prompt(models: Iterable[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """Split (engine, model) pairs into language models, which take a prompt, and classifiers.

    For a hub model, the folder that its task was fetched into is returned.

    Raises:
        ConfigError: when an engine cannot run a model of this type.
        EngineError: as `choose_kind`.
    """
    language_models: list[str] = []
    classifiers: list[str] = []
    for kind, model in models:
        _refuse_wrong_engine(kind, model)
        place = model if is_address(kind) else find_task_folder(model)
        (classifiers if is_scoring_kind(choose_kind(kind, model)) else language_models).append(place)
    return language_models, classifiers


def _refuse_wrong_engine(kind: str, model: str) -> None:
    """Refuse a language model on a classifier's engine, and a classifier on a language model's engine.

    Raises:
        ConfigError: naming the engine that fits.
    """
    from sentifactory.models.classifiers import has_declared_head

    is_scoring = is_scoring_kind(kind)
    if kind not in LOCAL_KINDS or not has_declared_head(find_member(model), classifier=not is_scoring):
        return
    fitting = choose_kind(AUTO, model)
    raise ConfigError(
        f"The model is a {'language model' if is_scoring else 'classifier'}, which the engine {kind} cannot run",
        where=model,
        expected=f"the engine {fitting}" + (" or vllm" if is_scoring and not is_vllm_unwanted() else ""),
        next_step=f"pass --engine {fitting}",
        code="model-engine",
    )


def check_mode(mode: str, kind: str = "", model: str = "") -> None:
    """Check that a mode exists and that the engine and the model support it.

    Raises:
        ConfigError: naming the modes.
    """
    if mode != "score" and (is_scoring_kind(kind) or (model and is_stack(model))):
        raise ConfigError(
            f"A {'classifier' if is_scoring_kind(kind) else 'stack'} has no mode {mode!r}: it generates no text",
            where="mode",
            expected="score",
            next_step="pass --mode score",
            code="model-engine",
        )
    if mode not in MODES:
        raise ConfigError(
            f"Unknown mode {mode!r}",
            where="mode",
            expected=", ".join(MODES),
            next_step="choose one of them",
            code="option-value",
        )


def check_model(model: str) -> None:
    """Check that a model is a complete checkpoint folder, or has the form of a hub id.

    Raises:
        ConfigError: naming what is missing, and the command that creates or finishes it.
    """
    folder = Path(model).expanduser()
    if not os.path.exists(folder):
        # "saves/demo" also has the form of a hub id, but if a folder "saves" exists, a path is meant.
        if is_hub_id(model.removeprefix("ms:")) and not folder.parent.is_dir():
            return
        raise ConfigError(
            "This model folder does not exist",
            where=model,
            expected="a folder with a checkpoint, or a hub id of the form org/name",
            next_step=HOW_TO_MAKE,
            code="model-missing",
        )
    if is_stack(folder):
        read_facts(folder)
        folder = Path(find_member(model))
    if (folder / "adapter_config.json").exists() and not (folder / "config.json").exists():
        raise ConfigError(
            "This is a LoRA adapter, not a complete model; adapters cannot be compared directly",
            where=model,
            expected="a folder with config.json and weights",
            next_step="merge it into its base model with `sentifactory export merge`, and pass the merged folder",
            code="model-adapter",
        )
    refuse_incomplete(folder, model)
    if fault := find_unsafe_content(folder):
        raise ConfigError(
            f"This model is unsafe to load: {fault}",
            where=model,
            expected="a checkpoint written by `save_pretrained`, with a chat template that terminates",
            next_step="get the model from a source that you trust",
            code="model-unsafe",
        )


def build_engine(
    kind: str,
    model: str,
    task: Task,
    *,
    name: str = "model",
    mode: Mode = "generate",
    max_new_tokens: int = MAX_NEW_TOKENS,
    vllm_log: str | None = None,
    vllm_dtype: str | None = None,
    is_calibrated: bool = True,
) -> Engine:
    """Return an engine that is ready to answer; use it in a `with` block.

    Args:
        kind: "vllm" (starts a server for the lifetime of the engine), "transformers", "encoder" (a classifier), "onnx"
            (an exported classifier), "auto" (whichever of the last three fits), or a server's address.
        model: folder of a checkpoint or of a stack, or hub id; with an address, the model's name on the server (empty:
            the only one). For a stack, `kind` is the engine of its tuned model.
        task: prompt and answer.
        name: of the model in progress lines and reports.
        mode: `generate` (free text), `constrain` (answers only) or `score` (probabilities).
        max_new_tokens: longest reply, in tokens.
        vllm_log: file for vLLM's output; None for a temporary file.
        vllm_dtype: dtype that vLLM computes in; None: see `VllmOptions`.
        is_calibrated: apply the calibration.json in the model's folder, if it fits this prompt and these weights.

    Raises:
        ConfigError: when there is no such engine, model or environment, or a calibration cannot be used.
        EngineError: when the model cannot be loaded, or its server does not start or cannot be reached.
    """
    check_engine(kind, model)
    kind = choose_kind(kind, model)
    check_mode(mode, kind, model)
    calibration = find_calibration(model, task) if is_calibrated and mode != "generate" else None
    if model.startswith("~") and not is_address(kind):
        model = str(Path(model).expanduser())
    stack = None
    if is_stack(model):
        check_task(model, task, is_prompted=not is_scoring_kind(kind))
        stack = load_stack(model)  # before a model is loaded: a damaged folder is refused at once
        model = find_member(model)
    engine: Engine
    if is_address(kind):
        from sentifactory.engines.openai.openai_engine import OpenAiEngine

        engine = OpenAiEngine(kind, model or None, task, name=name, mode=mode, max_new_tokens=max_new_tokens)
    elif kind == "encoder":
        from sentifactory.engines.local.encoder_engine import EncoderEngine

        engine = EncoderEngine(model, task, name=name)
    elif kind == "onnx":
        from sentifactory.engines.local.onnx_engine import OnnxEngine

        engine = OnnxEngine(model, task, name=name)
    elif kind == "transformers":
        from sentifactory.engines.local.transformers_engine import TransformersEngine

        engine = TransformersEngine(model, task, name=name, mode=mode, max_new_tokens=max_new_tokens)
    else:
        from sentifactory.engines.vllm.start_vllm import VllmOptions
        from sentifactory.engines.vllm.vllm_engine import VllmEngine

        options = VllmOptions(dtype=vllm_dtype, log_path=Path(vllm_log) if vllm_log else None)
        engine = VllmEngine(model, task, name=name, mode=mode, options=options, max_new_tokens=max_new_tokens)
    if stack is not None:
        from sentifactory.engines.local.baselines import TfidfEngine
        from sentifactory.engines.local.stack_engine import StackEngine

        pipeline, combination = stack
        engine = StackEngine(engine, TfidfEngine(task, pipeline=pipeline), combination, name=name)
    return engine if calibration is None else CalibratedEngine(engine, calibration)


class CalibratedEngine(WrappingEngine):
    """Wraps an engine and calibrates its probabilities.

    Attributes:
        engine: the wrapped engine, closed together with this one.
        calibration: applied to each prediction; its threshold decides which are confident.
    """

    def __init__(self, engine: Engine, calibration: Calibration) -> None:
        super().__init__(engine, engine.name)
        self.calibration = calibration

    def predict(self, reviews: Sequence[Review], on_answer: OnAnswer | None = None) -> list[Prediction]:
        """Return the calibrated predictions; raises what the engine raises."""
        return self.change_answers(reviews, lambda _, prediction: self.calibration.correct(prediction), on_answer)
