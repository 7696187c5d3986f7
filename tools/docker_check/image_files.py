"""Reads Dockerfiles, .dockerignore and compose files, as far as ours use their languages.

Not covered: heredocs, COPY with options, escapes other than the backslash, extends, include, env_file.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?:(:?[-?+])([^{}]*))?\})")


class VariableError(ValueError):
    """A variable that must be set is not."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """An instruction of a Dockerfile.

    Attributes:
        name: in capitals, such as RUN.
        words: all that follows it, in one line.
    """

    name: str
    words: str


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of a Dockerfile.

    Attributes:
        name: after AS; "" without one.
        base: the image or stage before it, with variables.
        instructions: those after FROM.
    """

    name: str
    base: str
    instructions: list[Instruction] = field(default_factory=list)


def replace_variables(text: str, values: Mapping[str, str]) -> str:
    """Return a text with `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME:?message}` and `${NAME:+other}` replaced.

    Raises:
        VariableError: when a variable of the third kind is not set.

    Example:
        >>> replace_variables("${A:-a}/$B${C:+c}", {"B": "b"})
        'a/b'
    """

    def replace(found: re.Match[str]) -> str:
        name, operator, other = found[1] or found[2], found[3] or "", found[4] or ""
        value = values.get(name)
        is_set = bool(value) if operator.startswith(":") else value is not None
        if operator.endswith("+"):
            return other if is_set else ""
        if is_set:
            return value or ""
        if operator.endswith("?"):
            raise VariableError(f"{name}: {other}")
        return other

    return _VARIABLE.sub(replace, text)


def read_dockerfile(path: Path) -> tuple[dict[str, str], list[Stage]]:
    """Return the arguments before the first FROM, and the stages.

    A stage that has the name of an earlier one as base begins with what that one has built.
    """
    text = re.sub(r"^\s*#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for line in filter(str.strip, text.replace("\\\n", " ").splitlines()):
        name, _, words = line.strip().partition(" ")
        instruction = Instruction(name.upper(), words.strip())
        if instruction.name == "FROM":
            base, *rest = instruction.words.split()
            stages.append(Stage(rest[1] if rest else "", base))
        elif stages:
            stages[-1].instructions.append(instruction)
        else:
            arguments |= read_pairs(instruction.words)
    return arguments, stages


def find_stages(stages: list[Stage], target: str | None) -> list[Stage]:
    """Return the stages that make up an image, the first one first.

    Args:
        stages: of a Dockerfile.
        target: name of the last one; None: the last of the file.
    """
    by_name = {stage.name: stage for stage in stages if stage.name}
    chain = [by_name[target] if target else stages[-1]]
    while chain[0].base in by_name:
        chain.insert(0, by_name[chain[0].base])
    return chain


def read_pairs(words: str) -> dict[str, str]:
    """Return the settings of an ARG or ENV; an ARG without a value is empty.

    Example:
        >>> read_pairs('PATH="/a:${PATH}" B=1'), read_pairs("WITHOUT=")
        ({'PATH': '/a:${PATH}', 'B': '1'}, {'WITHOUT': ''})
    """
    return {name: quoted or plain for name, quoted, plain in re.findall(r'(\w+)(?:=(?:"([^"]*)"|(\S*)))?', words)}


def read_command(words: str) -> list[str]:
    """Return a command in its exec form; another form is run by a shell.

    Example:
        >>> read_command('["serve", "a"]'), read_command("serve a")
        (['serve', 'a'], ['/bin/sh', '-c', 'serve a'])
    """
    return json.loads(words) if words.startswith("[") else ["/bin/sh", "-c", words]


def list_context(root: Path) -> list[Path]:
    """Return the files of a repository that are sent to the builder, relative to it: those in git but not ignored."""
    listing = subprocess.run(
        ["git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=True,
        encoding="utf-8",
    )
    patterns = (root / ".dockerignore").read_text(encoding="utf-8").splitlines()
    files = [Path(name) for name in listing.stdout.split("\0") if name and (root / name).is_file()]
    return [file for file in files if is_sent(file, patterns)]


def is_sent(file: Path, patterns: list[str]) -> bool:
    """Return whether a file is sent to the builder; the last pattern that it or a folder of it fits decides.

    Example:
        >>> [is_sent(Path(name), ["*", "!src", "**/*.pyc"]) for name in ("src/a.py", "src/b/a.pyc", "saves/a")]
        [True, False, False]
    """
    names = [file.as_posix(), *(folder.as_posix() for folder in file.parents if folder.name)]
    sent = True
    for line in (line.strip() for line in patterns):
        pattern = line.removeprefix("!").strip("/")
        if not line or line.startswith("#"):
            continue
        forms = [pattern, pattern.removeprefix("**/")]
        # A star does not cross a slash.
        fits = any(fnmatch(name, form) and name.count("/") == form.count("/") for name in names for form in forms)
        fits = fits or (pattern.startswith("**/") and any(fnmatch(Path(name).name, forms[1]) for name in names))
        sent = line.startswith("!") if fits else sent
    return sent


def read_compose(path: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return a compose file with its variables replaced; one without a value has that of the environment.

    A service without a build has that of another service with its image.

    Raises:
        VariableError: when a variable that must be set is not.
    """

    def replace(value: Any) -> Any:
        if isinstance(value, str):
            return replace_variables(value, environment)
        if isinstance(value, list):
            return [replace(each) for each in value]
        return {key: replace(each) for key, each in value.items()} if isinstance(value, dict) else value

    found = replace(yaml.safe_load(path.read_text(encoding="utf-8")))
    services = found["services"].values()
    for service in services:
        service["environment"] = _fill_in(service.get("environment", {}), environment)
        if "args" in service.get("build", ()):
            service["build"]["args"] = _fill_in(service["build"]["args"], environment)
    builds = {service["image"]: service["build"] for service in services if "build" in service}
    for service in services:
        if service.get("image") in builds:
            service.setdefault("build", builds[service["image"]])
    return found


def _fill_in(given: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, str]:
    """Return variables with those that have no value taken from the environment, or left out where it has none."""
    return {
        name: environment[name] if value is None else str(value)
        for name, value in given.items()
        if value is not None or name in environment
    }
