"""A real run of mutmut on a small repository, and what the bench makes of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from sentifactory.errors import ConfigError, EngineError
from sentifactory.evaluation import mutation_bench
from sentifactory.evaluation.mutants import MESSAGE, Mutant
from sentifactory.evaluation.mutation_bench import (
    ROOMS,
    RoomScore,
    bench_mutations,
    choose_rooms,
    draw_sample,
    format_results,
    score_statuses,
)
from sentifactory.evaluation.mutation_run import Room
from sentifactory.evaluation.provenance import describe_machine

SHOP = """\
def add_tax(price):
    return price + 20


def round_price(price):
    return price // 10


def give_away(price):
    return price - 1


def sell(price):
    return price > 5
"""
TESTS = """\
import subprocess
import sys

import pytest

from shop import price


def test_tax():
    assert price.add_tax(100) == 120


def test_rounding_is_called():
    price.round_price(100)


def test_selling_in_another_process(tmp_path):
    assert price.sell(6)
    code = "from shop import price; print(price.sell(5), price.add_tax(1))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "False 21\\n"


@pytest.mark.slow
def test_that_takes_long():
    assert price.round_price(100) == 10
    assert price.give_away(3) == 2
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one room, entered; one function has no quick test, and one has a test that checks nothing."""
    files = {
        "pyproject.toml": '[tool.pytest.ini_options]\nmarkers = ["slow: slow", "vllm: v", "gpu: g", "browser: b"]\n',
        "src/shop/__init__.py": "",
        "src/shop/price.py": SHOP,
        "tests/test_price.py": TESTS,
        ".env": "SECRET=1",
    }
    root = tmp_path / "repository"
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.chdir(root)
    monkeypatch.setattr(mutation_bench, "ROOMS", {"shop": Room("shop", ("src/shop/*.py",), ("tests/test_price.py",))})
    return root


@pytest.mark.slow
def test_mutants_are_written_sampled_and_tested_in_a_copy(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path for path in repository.rglob("*") if "bench" not in path.parts)
    bench_mutations(rooms="shop", samples=100, seed=1, output_dir="bench")
    assert sorted(path for path in repository.rglob("*") if "bench" not in path.parts) == before
    [room] = json.loads((repository / "bench" / "mutations.json").read_text())["rooms"]
    by_function: dict[str, set[str]] = {}
    for name, status in room["statuses"].items():
        by_function.setdefault(name.partition(".x_")[2].partition("__")[0], set()).add(status)
    assert by_function == {
        "add_tax": {"killed"},
        "round_price": {"survived"},
        "give_away": {"no tests"},
        "sell": {"killed"},  # `>=` in the other process alone
    }
    assert room["mutants"] == room["sampled"] == sum(room["counts"].values())
    assert room["score"] == room["counts"]["killed"] / room["sampled"]
    assert {mutant["line"] for mutant in room["unnoticed"]} == {6, 10}
    page = (repository / "bench" / "mutations.md").read_text()
    assert page in capsys.readouterr().out
    assert "`src/shop/price.py:6` survived\n\n```diff\n-    return price // 10\n+    return price / 10\n```" in page


@pytest.mark.slow
def test_tests_that_fail_by_themselves_end_the_bench(repository: Path) -> None:
    (repository / "tests" / "test_price.py").write_text(
        "from shop import price\ndef test_tax():\n    assert price.add_tax(0) == 0\n"
    )
    with pytest.raises(EngineError, match="exit code 1") as error:
        bench_mutations(rooms="shop", samples=1, seed=1, output_dir="bench")
    assert "assert 20 == 0" in Path(error.value.where).read_text()
    assert not (repository / "bench" / "mutations.json").exists()


def make_mutant(number: int, left_out: str = "") -> Mutant:
    return Mutant(f"shop.x_f__mutmut_{number}", "src/shop.py", number, "-a\n+b", left_out)


def test_a_sample_is_drawn_by_its_seed_from_what_is_not_left_out() -> None:
    mutants = [make_mutant(number, MESSAGE if number % 2 else "") for number in range(100)]
    sample = draw_sample(mutants, 10, seed=3)
    assert sample == draw_sample(mutants, 10, seed=3) != draw_sample(mutants, 10, seed=4)
    assert len(set(sample)) == 10
    assert all(not mutant.left_out for mutant in sample)
    assert draw_sample(mutants, 1000, seed=3) == mutants[::2]


def test_the_score_counts_what_is_noticed_among_all_that_were_drawn() -> None:
    statuses = dict(enumerate(["killed"] * 7 + ["timeout", "survived", "no tests"]))
    figures = score_statuses({str(name): status for name, status in statuses.items()})
    assert figures["score"] == 0.8
    assert figures["counts"] == {"killed": 7, "timeout": 1, "survived": 1, "no tests": 1}
    assert round(figures["interval"]["low"], 3) == 0.490
    assert round(figures["interval"]["high"], 3) == 0.943


def test_the_table_names_what_was_not_noticed() -> None:
    names = [make_mutant(number) for number in range(4)]
    statuses = dict(
        zip([mutant.name for mutant in names], ["killed", "survived", "no tests", "segfault"], strict=True)
    )
    tested = RoomScore("shop", 10, {MESSAGE: 3}, statuses, names[1:], 90.0)
    text = format_results([tested], 5)
    assert "| shop | 10 | 3 | 4 | 1 | 0 | 1 | 1 | 1 | 25.0% | 4.6% to 69.9% | 2 |" in text
    assert f"- 3 times: {MESSAGE}" in text
    assert "`src/shop.py:3` segfault\n\n```diff\n-a\n+b\n```" in text
    assert "`src/shop.py:0`" not in text


def test_rooms_are_chosen_by_name() -> None:
    assert choose_rooms("corpus, task") == [ROOMS["corpus"], ROOMS["task"]]
    with pytest.raises(ConfigError, match="There is no room 'kitchen, cellar' to mutate"):
        choose_rooms("kitchen,task,cellar")
    with pytest.raises(ConfigError, match="There is no room ' ,' to mutate"):
        choose_rooms(" ,")


def test_the_bench_goes_from_room_to_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a workshop that only says what it was told."""
    told: list[tuple[str, object]] = []

    @dataclass
    class Told:
        folder: Path
        room: Room
        log: Path

        def set_up(self, root: Path) -> None:
            assert self.folder.is_dir()
            told.append((self.room.name, (root, self.log)))

        def write_mutants(self, root: Path) -> list[Mutant]:
            assert root == Path.cwd()
            return [make_mutant(number, MESSAGE if number > 5 else "") for number in range(9)]

        def test_mutants(self, names: list[str]) -> dict[str, str]:
            told.append((self.room.name, names))
            return dict(zip(names, ["killed", "survived", "timeout", "no tests"], strict=True))

    monkeypatch.setattr(mutation_bench, "Workshop", Told)
    bench_mutations(rooms="corpus,task", samples=4, seed=2, output_dir=str(tmp_path))
    sample = draw_sample([make_mutant(number) for number in range(6)], 4, 2)
    names = [mutant.name for mutant in sample]
    assert told == [
        ("corpus", (Path.cwd(), tmp_path / "mutations_corpus.log")),
        ("corpus", names),
        ("task", (Path.cwd(), tmp_path / "mutations_task.log")),
        ("task", names),
    ]
    facts = json.loads((tmp_path / "mutations.json").read_text(encoding="utf-8"))
    assert (facts["samples"], facts["seed"], facts["machine"]) == (4, 2, describe_machine())
    for room, name in zip(facts["rooms"], ("corpus", "task"), strict=True):
        assert (room["room"], room["mutants"], room["left_out"]) == (name, 9, {MESSAGE: 3})
        assert room["score"] == 0.5
        assert [mutant["name"] for mutant in room["unnoticed"]] == [names[1], names[3]]
        assert 0 <= room["wall_s"] < 10
    table = (tmp_path / "mutations.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out == table + "\n"
    assert table.startswith("# Faults that the tests would notice\n\n| room | mutants | left out | sampled | killed |")
    assert f"Score: killed and timeouts among those sampled (seed 2). Left out:\n\n- 6 times: {MESSAGE}\n" in table
