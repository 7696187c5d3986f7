"""The page of all messages that an error of ours can have, read from the places in the code where they are made.

A message is made from text and values; values are shown as `…`. The page is complete by the way it is made: a message
that is not on it is not in the code.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path

ERROR_NAMES = ("SentiFactoryError", "DataError", "LeakError", "ConfigError", "EngineError", "ServerGoneError")
UNKNOWN = "…"
_PARTS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
HEAD = """# Error messages · 错误信息

Written by `python scripts/write_guides.py` from the places in the code where errors are made; do not edit. `…` stands
for a value. An error ends with exit code 2, a leak (LeakError) with 3; its message says what is wrong, where, what was
expected and what to do next. Whatever else ends a command is a defect of ours: exit code 70, and a log file that the
last line names. Search this page for the words that you see.
本页由 `python scripts/write_guides.py` 根据代码中产生错误的位置生成，请勿手工修改。`…` 表示某个具体值。
出错时退出码为 2，测试数据泄漏（LeakError）时为 3；信息依次说明哪里有误、在何处、应当如何、下一步做什么。
其余原因导致的中止属于程序缺陷：退出码为 70，最后一行给出日志文件的位置。请用屏幕上的词句在本页中搜索。
"""


@dataclass(frozen=True, slots=True)
class Message:
    """One place where an error is made.

    Attributes:
        kind: name of the error's class.
        module: the file, from the package's folder on.
        what: what is wrong.
        expected: what would have been right.
        next_step: what mends it.
    """

    kind: str
    module: str
    what: str
    expected: str
    next_step: str


def write_errors_page(package: Path) -> str:
    """Return the page of all errors of a package as Markdown, by room."""
    rooms: dict[str, list[Message]] = defaultdict(list)
    for message in find_messages(package):
        rooms[message.module.partition("/")[0] if "/" in message.module else "sentifactory"].append(message)
    parts = [HEAD]
    for room, messages in sorted(rooms.items()):
        parts.append(f"\n## {room}\n")
        for message in sorted(set(messages), key=lambda one: (one.what.lower(), astuple(one))):
            parts.append(_describe(message))
    return "\n".join(parts) + "\n"


def find_messages(package: Path) -> Iterator[Message]:
    """Yield every place of a package where an error of ours is made."""
    for file in sorted(package.rglob("*.py")):
        module = file.relative_to(package).as_posix()
        tree = ast.parse(file.read_text(encoding="utf-8"))
        constants = collect_names(tree.body)
        parts = [node for node in tree.body if isinstance(node, _PARTS)]
        for part in parts:
            names = constants | collect_names(ast.walk(part))
            for node in ast.walk(part):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERROR_NAMES:
                    values = {word.arg: read_text(word.value, names) for word in node.keywords}
                    what = read_text(node.args[0], names) if node.args else values.get("what", UNKNOWN)
                    yield Message(node.func.id, module, what, values.get("expected", ""), values.get("next_step", ""))


def collect_names(nodes: Iterable[ast.AST]) -> dict[str, str]:
    """Return the texts that are given a name, by that name; several texts of one name stand beside each other."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for node in nodes:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id][read_text(node.value)] = None
    return {name: " / ".join(texts) for name, texts in found.items() if not {UNKNOWN, ""} & texts.keys()}


def read_text(node: ast.AST, names: Mapping[str, str] | None = None) -> str:
    """Return the text that an expression gives, with `…` for what is only known when it runs.

    Example:
        >>> read_text(ast.parse("f'--{name} is ' + value", mode="eval").body)
        '--… is …'
    """
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else str(node.value)
    if isinstance(node, ast.Name):
        return (names or {}).get(node.id, UNKNOWN)
    if isinstance(node, ast.FormattedValue):
        return read_text(node.value) if isinstance(node.value, ast.Constant | ast.IfExp) else UNKNOWN
    if isinstance(node, ast.JoinedStr):
        return _join(read_text(part, names) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _join((read_text(node.left, names), read_text(node.right, names)))
    if isinstance(node, ast.IfExp):
        either = list(dict.fromkeys((read_text(node.body, names), read_text(node.orelse, names))))
        return either[0] if len(either) == 1 else UNKNOWN if "" in either else " / ".join(either)
    return UNKNOWN


def _join(parts: Iterator[str] | tuple[str, ...]) -> str:
    text = "".join(parts)
    while UNKNOWN * 2 in text:
        text = text.replace(UNKNOWN * 2, UNKNOWN)
    return text


def _describe(message: Message) -> str:
    lines = [f"- **{_escape(message.what)}** ({message.kind}, `{message.module}`)"]
    if message.expected:
        lines.append(f"  - expected · 应为: {_escape(message.expected)}")
    if message.next_step:
        lines.append(f"  - next · 下一步: {_escape(message.next_step)}")
    return "\n".join(lines)


def _escape(text: str) -> str:
    for mark in "\\*_<>|[]":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())
