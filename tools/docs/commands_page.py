"""Writes the page of all commands from the command table; it has the same texts as `--help`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer

HEAD = """# Commands · 命令

Written by `python -m tools.docs.writing` from the command table; do not edit. The texts are those of `--help`.
本页由 `python -m tools.docs.writing` 根据命令表生成，请勿手工修改；内容与各命令的 `--help` 一致。
"""


def write_commands_page(app: typer.Typer) -> str:
    """Return the page of a command table as Markdown."""
    commands = list(iter_commands(typer.main.get_command(app), "sentifactory"))
    lines = [HEAD, "| command | what it does |", "|---|---|"]
    for path, command in commands:
        anchor = path.replace(" ", "-")
        lines.append(f"| [`{path}`](#{anchor}) | {_escape(_first_sentence(command.help or ''))} |")
    parts = [describe_command(path, command) for path, command in commands]
    return "\n".join(lines) + "\n\n" + "\n".join(parts)


def iter_commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the path and object of every command, without groups, in the order of the table."""
    children = getattr(command, "commands", None)
    if children is None:
        yield path, command
        return
    for name, child in children.items():
        yield from iter_commands(child, f"{path} {name}")


def describe_command(path: str, command: Any) -> str:
    """Return the section of one command: help text, arguments and options."""
    lines = [f"## {path}", "", *_split_paragraphs(command.help or "")]
    rows = [_describe_parameter(parameter) for parameter in command.params if parameter.name != "help"]
    if rows:
        lines += ["| option | default | what it is |", "|---|---|---|", *rows, ""]
    return "\n".join(lines)


def _describe_parameter(parameter: Any) -> str:
    is_option = parameter.param_type_name == "option"
    name = ", ".join(parameter.opts) if is_option else parameter.metavar or parameter.name.upper()
    help_text, default = parameter.help or "", _describe_default(parameter)
    # A default that is not a fixed value is given in brackets at the end of the help text.
    if (found := re.search(r"\s*\[([^\]]+)\]$", help_text)) and not default:
        help_text, default = help_text[: found.start()], found[1]
    return f"| `{_escape(name)}` | {_escape(default)} | {_escape(help_text)} |"


def _describe_default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    default = parameter.default
    if default is None or default is False or default == () or default == [] or callable(default):
        return ""
    return str(default)


def _split_paragraphs(text: str) -> list[str]:
    lines = []
    for paragraph in text.strip().split("\n\n"):
        lines += [" ".join(paragraph.split()), ""]
    return lines


def _first_sentence(text: str) -> str:
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    return re.split(r"(?<=[.:]) (?=[A-Z])", paragraph)[0]


def _escape(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
