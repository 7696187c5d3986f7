"""From an engine's name and a model to an engine, with the mistakes found before anything is started."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from sentifactory.engines.base import MAX_NEW_TOKENS, MODES, Engine, Mode
from sentifactory.engines.calibration import CalibratedEngine, find_calibration
from sentifactory.errors import ConfigError
from sentifactory.models.hostile import find_hostile
from sentifactory.models.published import find_task_folder
from sentifactory.models.weights import list_weights
from sentifactory.network_settings import is_this_machine, refuse_unusable_proxies
from sentifactory.task import Task

LOCAL_KINDS = ("vllm", "transformers", "encoder", "onnx")
# Classifiers, which write nothing.
SCORING_KINDS = ("encoder", "onnx")
# Stands for the engine that fits the model.
AUTO = "auto"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HOW_TO_MAKE = (
    "`sentifactory model fetch gemma-3-270m` makes the pretrained model, "
    "`sentifactory train examples/train_freeze/gemma3_270m_freeze_demo.yaml` the tuned one"
)


def is_address(kind: str) -> bool:
    """Return whether an engine is named by the address of a server."""
    return kind.startswith(("http://", "https://"))


def check_engine(kind: str, model: str) -> None:
    """Refuse an engine or a model that cannot work, in less than a second and without starting anything.

    Raises:
        ConfigError: when there is no such engine, the model's folder is not there or is not a whole checkpoint, or the
            way to a server elsewhere is by a proxy that cannot be used.
    """
    if is_address(kind):
        if not is_this_machine(urlsplit(kind).hostname or ""):
            refuse_unusable_proxies()
        return
    if kind not in (*LOCAL_KINDS, AUTO):
        raise ConfigError(
            f"There is no engine {kind!r}",
            where="engine",
            expected=f"{', '.join((*LOCAL_KINDS, AUTO))}, or an address such as http://127.0.0.1:8000/v1",
            next_step="choose one of them",
        )
    check_model(model)


def choose_kind(kind: str, model: str) -> str:
    """Return the engine that runs a model: for `auto` the one that fits it, else what was asked for.

    Raises:
        EngineError: when the configuration of a hub's model cannot be fetched.
    """
    if kind != AUTO:
        return kind
    from sentifactory.engines.onnx import is_export
    from sentifactory.models.classifiers import is_classifier

    if is_export(model):
        return "onnx"
    return "encoder" if is_classifier(model) else "transformers"


def is_scoring_kind(kind: str) -> bool:
    """Return whether an engine, by its name or address, runs classifiers, which are shown no prompt."""
    return kind in SCORING_KINDS or kind.rstrip("/").endswith("/classify")


def split_by_prompt(models: Iterable[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """Return the models that are asked in the words of a task, and the classifiers, of pairs of engine and model.

    Of a model of a hub the folder is returned that its task was fetched into.

    Raises:
        ConfigError: when an engine runs models of the other sort.
        EngineError: as `choose_kind`.
    """
    asking: list[str] = []
    heads: list[str] = []
    for kind, model in models:
        _refuse_other_sort(kind, model)
        place = model if is_address(kind) else find_task_folder(model)
        (heads if is_scoring_kind(choose_kind(kind, model)) else asking).append(place)
    return asking, heads


def _refuse_other_sort(kind: str, model: str) -> None:
    """Refuse a language model that would answer by a random head, and a classifier that would be asked to write.

    Raises:
        ConfigError: naming the engine that fits.
    """
    from sentifactory.models.classifiers import is_surely_of_kind

    is_scoring = is_scoring_kind(kind)
    if kind not in LOCAL_KINDS or not is_surely_of_kind(model, classifier=not is_scoring):
        return
    fitting = choose_kind(AUTO, model)
    raise ConfigError(
        f"The model is a {'language model' if is_scoring else 'classifier'}, which the engine {kind} cannot run",
        where=model,
        expected=f"the engine {fitting}" + (" or vllm" if is_scoring else ""),
        next_step=f"pass --engine {fitting}",
    )


def check_mode(mode: str, kind: str = "") -> None:
    """Refuse a mode that there is not, or that the engine does not have.

    Raises:
        ConfigError: naming the modes.
    """
    if is_scoring_kind(kind) and mode != "score":
        raise ConfigError(
            f"A classifier has no mode {mode!r}: it writes nothing",
            where="mode",
            expected="score",
            next_step="pass --mode score",
        )
    if mode not in MODES:
        raise ConfigError(
            f"There is no mode {mode!r}", where="mode", expected=", ".join(MODES), next_step="choose one of them"
        )


def check_model(model: str) -> None:
    """Refuse a model that is neither a folder with a whole checkpoint nor of the form of a hub id.

    Raises:
        ConfigError: saying what is missing and which command makes it.
    """
    folder = Path(model).expanduser()
    if not folder.exists():
        # "saves/demo" has the form of a hub id as well, but whoever has a folder "saves" means that one.
        if _HUB_ID.fullmatch(model.removeprefix("ms:")) and not folder.parent.is_dir():
            return
        raise ConfigError(
            "There is no such model folder",
            where=model,
            expected="a folder with a checkpoint, or a hub id of the form org/name",
            next_step=_HOW_TO_MAKE,
        )
    if (folder / "adapter_config.json").exists() and not (folder / "config.json").exists():
        raise ConfigError(
            "This is a LoRA adapter, not a whole model, and adapters cannot be compared yet",
            where=model,
            expected="a folder with config.json and weights",
            next_step="merge it into its base model with `sentifactory export merge`, then give the merged folder",
        )
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    missing += [] if list_weights(folder) else ["weights (*.safetensors)"]
    if missing:
        raise ConfigError(
            f"This is not a whole checkpoint: {' and '.join(missing)} missing",
            where=model,
            expected="a folder as `save_pretrained` writes it",
            next_step=_HOW_TO_MAKE,
        )
    if fault := find_hostile(folder):
        raise ConfigError(
            f"This model is not loaded: {fault}",
            where=model,
            expected="a checkpoint as `save_pretrained` writes it, with a chat template that ends",
            next_step="take the model from a source that you trust",
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
        kind: "vllm" (a server that begins and ends with the engine), "transformers", "encoder" (a classifier), "onnx"
            (an exported one), "auto" (the one of the last three that fits the model), or the address of a server.
        model: folder of a checkpoint or hub id; with an address, the name under which the server knows the model
            (empty: the only one it serves).
        task: prompt and answer.
        name: what the model is called in progress lines and reports.
        mode: `generate` (free text), `constrain` (only answers can be written) or `score` (probabilities).
        max_new_tokens: longest reply, in tokens.
        vllm_log: file for vLLM's output; None for a temporary one.
        vllm_dtype: the numbers that vLLM computes with; None: as `VllmOptions` says.
        is_calibrated: correct the probabilities by the calibration.json in the model's folder, where there is one for
            this prompt and these weights.

    Raises:
        ConfigError: when there is no such engine, model or environment, or a calibration cannot be used.
        EngineError: when the model cannot be loaded, or its server does not start or cannot be reached.
    """
    check_engine(kind, model)
    kind = choose_kind(kind, model)
    check_mode(mode, kind)
    calibration = find_calibration(model, task) if is_calibrated and mode != "generate" else None
    if model.startswith("~") and not is_address(kind):
        model = str(Path(model).expanduser())
    engine: Engine
    if is_address(kind):
        from sentifactory.engines.openai_api import OpenAiEngine

        engine = OpenAiEngine(kind, model or None, task, name=name, mode=mode, max_new_tokens=max_new_tokens)
    elif kind == "encoder":
        from sentifactory.engines.encoder import EncoderEngine

        engine = EncoderEngine(model, task, name=name)
    elif kind == "onnx":
        from sentifactory.engines.onnx import OnnxEngine

        engine = OnnxEngine(model, task, name=name)
    elif kind == "transformers":
        from sentifactory.engines.transformers import TransformersEngine

        engine = TransformersEngine(model, task, name=name, mode=mode, max_new_tokens=max_new_tokens)
    else:
        from sentifactory.engines.vllm import VllmEngine
        from sentifactory.engines.vllm_process import VllmOptions

        options = VllmOptions(dtype=vllm_dtype, log_path=Path(vllm_log) if vllm_log else None)
        engine = VllmEngine(model, task, name=name, mode=mode, options=options, max_new_tokens=max_new_tokens)
    return engine if calibration is None else CalibratedEngine(engine, calibration)
