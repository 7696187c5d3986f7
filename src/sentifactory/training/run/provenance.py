"""Describes where a result comes from: model hashes and run card, and versions."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import sentifactory
from sentifactory.engines.vllm.vllm_install import find_vllm_python, inspect_install
from sentifactory.errors import ConfigError
from sentifactory.models.weights import hash_settings, hash_weights
from sentifactory.training.run.run_card import read_card

PACKAGES = ("llamafactory", "torch", "transformers", "onnxruntime", "scikit-learn", "numpy")


def describe_model(folder: str | Path) -> dict[str, Any]:
    """Return hashes of weights and settings and the run card, if any, of a model folder.

    A name that is not a local folder (a model behind an address) has no description.
    """
    place = Path(folder).expanduser()
    if not place.is_dir():
        return {}
    facts: dict[str, Any] = {"weights": hash_weights(place), "settings": hash_settings(place)}
    card = read_card(place)
    if card is not None:
        facts["run_card"] = card
    return facts


def describe_versions(engines: Iterable[str]) -> dict[str, str]:
    """Return the versions of Python, this package and the installed packages that can change a result.

    Args:
        engines: the engines in use; vLLM is installed in another environment.
    """
    versions = {"python": platform.python_version(), "sentifactory": sentifactory.__version__}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    if "vllm" in engines:
        with contextlib.suppress(ConfigError):
            versions["vllm"] = inspect_install(find_vllm_python()).version
    return versions
