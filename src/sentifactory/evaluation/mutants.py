"""Reads the mutants that mutmut has written, and says which of them no test could tell from the original.

mutmut 3 writes a changed copy of a function for each small change: beside `x_f__mutmut_orig`, which is the original,
stand `x_f__mutmut_1`, `x_f__mutmut_2` and so on, and the environment decides which of them runs. It changes functions
alone: module-level constants, functions with a decorator (properties among them) and f-strings stay as they are.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

MESSAGE = "words of an error message or of a printed line"
PROGRESS = "what is shown while something takes long"
ENCODING = "letter case of an encoding's name, or UTF-8 not named where it is the default"
OPTION_DEFAULT = "default of a command-line option, which typer reads from the original function"

_MUTANT_NAME = re.compile(r"(x_|xǁ)(?P<function>.+)__mutmut_(?P<number>\d+)")
_PROGRESS_CALLS = ("say", "show_progress")

Change = tuple[tuple[ast.AST, ...], object, object]


@dataclass(frozen=True, slots=True)
class Mutant:
    """One changed copy of a function.

    Attributes:
        name: what mutmut calls it, such as `sentifactory.task.x_parse_answer__mutmut_3`.
        file: the original's file, from the root of the repository.
        line: the first line there that is changed; 1-based.
        diff: the lines as they were, each after a minus sign, and those in their place, each after a plus sign.
        left_out: why no test could kill it or need not, or an empty string.
    """

    name: str
    file: str
    line: int
    diff: str
    left_out: str


def list_mutants(root: Path, file: str) -> list[Mutant]:
    """Return the mutants of one file.

    Args:
        root: the folder with the originals; below its `mutants` stands what mutmut has written.
        file: from there, such as `src/sentifactory/task.py`.
    """
    text = (root / "mutants" / file).read_text(encoding="utf-8")
    written = dict(_list_functions(ast.parse(text)))
    originals = dict(_list_functions(ast.parse((root / file).read_text(encoding="utf-8"))))
    module = file.removeprefix("src/").removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    lines = text.split("\n")
    mutants = []
    for (class_name, name), function in written.items():
        match = _MUTANT_NAME.fullmatch(name)
        if not match:
            continue
        original = written[class_name, name.rpartition("__mutmut_")[0] + "__mutmut_orig"]
        place = originals[class_name, match["function"].rpartition("ǁ")[2]]
        offset, diff = _compare_lines(*(_take_lines(lines, copy, place.name) for copy in (original, function)))
        left_out = say_why_left_out(original, function)
        mutants.append(Mutant(f"{module}.{name}", file, place.lineno + offset, diff, left_out))
    return mutants


def say_why_left_out(original: ast.FunctionDef | ast.AsyncFunctionDef, mutant: ast.AST) -> str:
    """Return why a mutant is not worth a test run, or an empty string."""
    change = find_change(original, mutant)
    if change is None:
        return ""
    above, before, after = change
    if any(_name_call(node) in _PROGRESS_CALLS for node in (*above, before)):
        return PROGRESS
    is_text = isinstance(before, ast.Constant) and isinstance(before.value, str)
    if is_text and isinstance(after, ast.Constant) and isinstance(after.value, str) and _is_message(above):
        return MESSAGE
    if _drops_encoding(above, before, after):
        return ENCODING
    defaults = {id(node) for default in original.args.defaults for node in ast.walk(default)}
    if id(before) in defaults and "typer." in ast.unparse(original.args):
        return OPTION_DEFAULT
    return ""


def find_change(before: object, after: object, above: tuple[ast.AST, ...] = ()) -> Change | None:
    """Return the innermost place at which two syntax trees differ, and the nodes above it, or None.

    The names of the two functions themselves are passed over.

    Example:
        >>> above, before, after = find_change(ast.parse("f(1 + x)"), ast.parse("f(2 + x)"))
        >>> before.value, after.value, [type(node).__name__ for node in above]
        (1, 2, ['Module', 'Expr', 'Call', 'BinOp'])
    """
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return _choose(find_change(one, other, above) for one, other in zip(before, after, strict=True))
    if type(before) is not type(after) or not isinstance(before, ast.AST):
        is_same = type(before) is type(after) and before == after  # 1 == 1.0
        return None if is_same else (above, before, after)
    fields = [name for name in before._fields if above or name != "name"]
    inner = (*above, before)
    change = _choose(find_change(getattr(before, name, None), getattr(after, name, None), inner) for name in fields)
    if change is None or isinstance(change[1], ast.AST):
        return change
    return above, before, after  # a value or a list that is shorter: what holds it is what differs


def _choose(changes: Iterable[Change | None]) -> Change | None:
    return next((change for change in changes if change is not None), None)


def _is_message(above: Sequence[ast.AST]) -> bool:
    return any(isinstance(node, ast.Raise) or _name_call(node) == "echo" for node in above)


def _name_call(node: object) -> str:
    function = getattr(node, "func", None)
    return str(getattr(function, "attr", None) or getattr(function, "id", ""))


def _drops_encoding(above: Sequence[ast.AST], before: object, after: object) -> bool:
    holder = above[-1] if above else None
    if isinstance(before, ast.Constant) and isinstance(holder, ast.keyword) and holder.arg == "encoding":
        is_case = isinstance(after, ast.Constant) and str(after.value).lower() == str(before.value).lower()
        return is_case or (before.value == "utf-8" and isinstance(after, ast.Constant) and after.value is None)
    if isinstance(before, ast.Call) and isinstance(after, ast.Call) and len(before.args) == len(after.args):
        kept = {keyword.arg for keyword in after.keywords}
        gone = [keyword for keyword in before.keywords if keyword.arg not in kept]
        return [ast.unparse(keyword) for keyword in gone] == ["encoding='utf-8'"]
    return False


def _list_functions(
    module: ast.Module,
) -> Iterator[tuple[tuple[str, str], ast.FunctionDef | ast.AsyncFunctionDef]]:
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield ("", node.name), node
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield (node.name, inner.name), inner


def _take_lines(lines: Sequence[str], function: ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> list[str]:
    """Return the lines of a copy of a function, under the function's own name."""
    first, *others = lines[function.lineno - 1 : function.end_lineno]
    return [first.replace(function.name, name), *others]


def _compare_lines(before: Sequence[str], after: Sequence[str]) -> tuple[int, str]:
    """Return where the first line that differs stands, counted from 0, and the lines that differ."""
    start = _count_equal(before, after)
    end = _count_equal(before[start:][::-1], after[start:][::-1])
    gone, come = before[start : len(before) - end], after[start : len(after) - end]
    return start, "\n".join([f"-{line}" for line in gone] + [f"+{line}" for line in come])


def _count_equal(one: Sequence[str], other: Sequence[str]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
