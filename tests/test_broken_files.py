"""500 broken files of every kind: each command ends with a sentence, and leaves nothing half-written."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

N_CASES = 500
# A model costs ten times what a table costs: fewer of these.
TABLE_KINDS = ["csv", "tsv", "json", "jsonl", "xlsx", "parquet", "txt", "task", "register", "manifest", "journal"]
MODEL_KINDS = ["model", "report", "recipe"]
N_MODEL_CASES = 45


@pytest.fixture(scope="module")
def fuzzing(repo_root: Path) -> ModuleType:
    path = repo_root / "tools" / "reliability" / "fuzz_files.py"
    spec = importlib.util.spec_from_file_location("fuzz_files", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz_files"] = module
    spec.loader.exec_module(module)
    return module


def fuzz(fuzzing: ModuleType, work: Path, kinds: list[str], number: int, model: Path | None) -> None:
    seeds = [f"test-{at}" for at in range(number)]
    counts, failures = fuzzing.fuzz(work, kinds, seeds, model, lambda failure: None)
    assert failures == []
    assert sum(counts.values()) == number
    assert {code for _, code in counts} >= {0, 2}, "some are refused and some can still be read"


def test_tables_and_small_files(fuzzing: ModuleType, tmp_path: Path) -> None:
    fuzz(fuzzing, tmp_path, TABLE_KINDS, N_CASES - N_MODEL_CASES, None)


def test_models_and_what_lies_beside_them(fuzzing: ModuleType, tmp_path: Path) -> None:
    fuzz(fuzzing, tmp_path, MODEL_KINDS, N_MODEL_CASES, fuzzing.build_model(tmp_path / "a_model"))


def test_the_fuzz_notices_what_it_looks_for(
    fuzzing: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, (name, code) in enumerate((("defect", 70), ("half", 2))):
        folder = tmp_path / name
        folder.mkdir()

        def run(words: list[str], name: str = name, code: int = code) -> tuple[int, str]:
            if name == "half":
                Path("half.csv").write_text("half")
            return code, "Error"

        monkeypatch.setattr(fuzzing, "run", run)
        assert fuzzing.run_case(folder, "csv", f"{number}", None)[1] is not None
