"""Assembles a file from the parts in registry packages, and verifies its checksum."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from sentifactory.errors import ConfigError
from sentifactory.system.progress import show_progress

_BLOCK_BYTES = 4 * 1024 * 1024
_SETUP_COMMAND = "run `make setup`, which installs it"


def find_parts(package: str) -> list[Path]:
    """Return the parts of the model in a `*-gguf` package, in order.

    Raises:
        ConfigError: when the package, or one with a part, is not installed.
    """
    try:
        parts: list[Path] = importlib.import_module(package.replace("-", "_")).chunk_paths()
    except ImportError as error:
        raise ConfigError(
            f"The package {package} is not installed completely ({error})", next_step=_SETUP_COMMAND
        ) from error
    for part in parts:
        if not part.is_file():
            raise ConfigError(f"A part of the package {package} is missing", where=str(part), next_step=_SETUP_COMMAND)
    return parts


def find_package_file(package: str, module: str, name: str) -> Path:
    """Return the path of a file in a package, without running the package's code.

    Args:
        package: name in the registry.
        module: name of the installed module.
        name: path of the file inside the module.

    Raises:
        ConfigError: when the package is not installed, or the file is missing.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"The package {package} is not installed", next_step=_SETUP_COMMAND)
    file = Path(next(iter(spec.submodule_search_locations))) / name
    if not file.is_file():
        raise ConfigError(f"A file of the package {package} is missing", where=str(file), next_step=_SETUP_COMMAND)
    return file


def assemble_parts(parts: Sequence[Path], sha256: str, description: str) -> bytearray:
    """Return the concatenated parts, in memory.

    Args:
        parts: in order.
        sha256: of the result.
        description: of the file, for the progress display.

    Raises:
        ConfigError: when a part cannot be read, or the checksum is wrong.
    """
    total = sum(part.stat().st_size for part in parts)
    content = bytearray()
    digest = hashlib.sha256()
    with show_progress(f"Assembling {description}", total=total // 10**6, unit="MB") as progress:
        for part in parts:
            try:
                with part.open("rb") as stream:
                    while block := stream.read(_BLOCK_BYTES):
                        before = len(content)
                        content += block
                        digest.update(block)
                        progress.advance(len(content) // 10**6 - before // 10**6)
            except OSError as error:
                raise ConfigError(
                    f"A part of {description} cannot be read ({error.strerror})", where=str(part)
                ) from error
    if digest.hexdigest() != sha256:
        raise ConfigError(
            f"{description} is damaged: its SHA-256 is {digest.hexdigest()}",
            where=", ".join(str(part) for part in parts),
            expected=sha256,
            next_step="move the folder .venv away and run `make setup`, which installs the package again",
        )
    return content
