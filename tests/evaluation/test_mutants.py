"""Mutants as mutmut really writes them: where they are, what they change, and which are not worth a test run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from sentifactory.evaluation.mutants import (
    ENCODING,
    MESSAGE,
    OPTION_DEFAULT,
    PROGRESS,
    Mutant,
    find_change,
    list_mutants,
)

CODE = '''\
"""A module."""

from pathlib import Path
from typing import Annotated

import typer

LIMIT = 3


def read_price(path: Path) -> int:
    """Read it."""
    # The file has one number.
    text = path.read_text(encoding="utf-8")
    if text == "free":
        return 0
    if not text:
        raise ValueError("no price", "at all")
    return int(text)


class Shop:
    """Sells."""

    def count(self, things: list[str], extra: int = 1) -> int:
        """Count."""
        return len(things) + extra


def sell(price: Annotated[int, typer.Option("--price")] = 5) -> int:
    """Sell."""
    say("selling now")
    return price
'''


@pytest.fixture
def mutants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Mutant]]:
    """The mutants of CODE."""
    from mutmut.configuration import reset_config
    from mutmut.mutation.file_mutation import mutate_file_contents

    for folder in ("src/shop", "mutants/src/shop"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    reset_config()
    (tmp_path / "src/shop/price.py").write_text(CODE)
    (tmp_path / "mutants/src/shop/price.py").write_text(mutate_file_contents("src/shop/price.py", CODE).code)
    yield list_mutants(tmp_path, "src/shop/price.py")
    reset_config()


def test_each_mutant_is_found_with_its_place_and_its_change(mutants: list[Mutant]) -> None:
    by_diff = {mutant.diff: mutant for mutant in mutants}
    changed = by_diff['-    if text == "free":\n+    if text != "free":']
    assert changed.name.startswith("shop.price.x_read_price__mutmut_")
    assert (changed.file, changed.line, changed.left_out) == ("src/shop/price.py", 15, "")
    assert CODE.splitlines()[changed.line - 1] == '    if text == "free":'
    method = by_diff["-        return len(things) + extra\n+        return len(things) - extra"]
    assert method.name.startswith("shop.price.xǁShopǁcount__mutmut_")
    assert method.line == 27
    default = next(mutant for mutant in mutants if "extra: int = 2" in mutant.diff)
    assert (default.line, default.left_out) == (25, "")
    assert default.diff.startswith("-    def count(self, things: list[str], extra: int = 1) -> int:\n+")
    assert len({mutant.name for mutant in mutants}) == len(mutants)
    assert all(mutant.diff.startswith("-") and "\n+" in mutant.diff for mutant in mutants)


def test_what_no_test_could_or_need_tell_is_left_out(mutants: list[Mutant]) -> None:
    assert {mutant.left_out for mutant in mutants} == {"", MESSAGE, PROGRESS, ENCODING, OPTION_DEFAULT}
    messages = [mutant.diff for mutant in mutants if mutant.left_out == MESSAGE]
    assert len(messages) == 4  # two strings of the error, in capitals and with XX
    assert all("raise ValueError" in diff for diff in messages)
    progress = [mutant.diff.partition("\n+")[2].strip() for mutant in mutants if mutant.left_out == PROGRESS]
    assert progress == ["say(None)", 'say("XXselling nowXX")', 'say("SELLING NOW")']
    encodings = [mutant.diff.partition("\n+")[2].strip() for mutant in mutants if mutant.left_out == ENCODING]
    assert encodings == ["text = path.read_text(encoding=None)", 'text = path.read_text(encoding="UTF-8")']
    assert [mutant.line for mutant in mutants if mutant.left_out == OPTION_DEFAULT] == [30]


def test_whoever_drops_an_error_or_a_word_that_decides_is_tested(mutants: list[Mutant]) -> None:
    tested = "\n".join(mutant.diff for mutant in mutants if not mutant.left_out)
    assert '+    if text == "XXfreeXX":' in tested
    assert '+        raise ValueError(None, "at all")' in tested
    assert '+        raise ValueError("no price", )' in tested
    assert "+    if text:" in tested
    assert '+    text = path.read_text(encoding="XXutf-8XX")' in tested


@pytest.mark.parametrize(
    ("before", "after", "nodes"),
    [
        ("f(a, b=1)", "f(a)", ("Call", "Call")),
        ("a + b", "a - b", ("Add", "Sub")),
        ("a = None", 'a = ""', ("Constant", "Constant")),
        ("x = 1", "x = 1.0", ("Constant", "Constant")),
    ],
)
def test_the_innermost_change_is_found(before: str, after: str, nodes: tuple[str, str]) -> None:
    change = find_change(ast.parse(before), ast.parse(after))
    assert change is not None
    assert (type(change[1]).__name__, type(change[2]).__name__) == nodes
    assert find_change(ast.parse(before), ast.parse(before)) is None
