"""The command to copy after a comparison or a ladder: it depends on what was shown."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from sentifactory.evaluation.compare_options import CompareOptions
from sentifactory.evaluation.ladder.ladder_entries import LadderOptions
from sentifactory.evaluation.next_use import suggest_after_comparison, suggest_after_ladder


def make_report(winner: str | None, *, is_shown: bool, is_better: bool = True) -> dict[str, Any]:
    test = {"difference": 0.05, "is_shown": is_better, "fixed": 8, "broken": 3}
    return {
        "verdict": {"winner": winner, "is_shown": is_shown},
        "paired_tests": {"tuned_vs_base": test},
        "models": {"tuned": {"metrics": {"reviews": 100}}},
    }


@pytest.fixture
def options(tmp_path: Path) -> CompareOptions:
    (tmp_path / "my model").mkdir()
    tuned = str(tmp_path / "my model")
    return CompareOptions(
        "t.csv", "base", tuned, "r.json", val_path="v.csv", train_csv="tr.csv", engine="transformers", task="own.yaml"
    )


def test_the_best_model_is_served(options: CompareOptions) -> None:
    words = shlex.split(suggest_after_comparison(make_report("tuned", is_shown=True), options))
    assert words[1:] == ["serve", options.finetuned_model, "--engine", "transformers", "--task", "own.yaml"]


def test_where_nothing_is_shown_the_number_of_reviews_is_the_question(options: CompareOptions) -> None:
    words = shlex.split(suggest_after_comparison(make_report("tuned", is_shown=False, is_better=False), options))
    assert words[1:] == ["eval", "power", "--difference", "0.0500", "--discordance", "0.1100"]


def test_a_model_that_does_not_beat_tfidf_is_combined_with_it(options: CompareOptions) -> None:
    words = shlex.split(suggest_after_comparison(make_report("tfidf", is_shown=True), options))
    assert words[1:4] == ["model", "stack", options.finetuned_model]
    stack = Path(words[words.index("--output_dir") + 1])
    assert str(stack) == f"{options.finetuned_model}_stack"
    stack.mkdir()
    (stack / "stack.json").write_text("{}")
    words = shlex.split(suggest_after_comparison(make_report("tfidf", is_shown=True), options))
    assert words[1:3] == ["eval", "ladder"]
    assert words[words.index("--stack_model") + 1] == str(stack)


def test_the_best_entry_of_a_ladder_is_served() -> None:
    options = LadderOptions("t.csv", "tr.csv", freeze_model="f", encoder_models=("a", "b"), engine="http://h:1/v1")
    entries = {
        "majority": 0.99,
        "tfidf": 0.8,
        "encoder_1": 0.7,
        "encoder_2": 0.85,
        "freeze": 0.9,
    }
    rungs = {key: {"metrics": {"accuracy": share}, "note": None} for key, share in entries.items()}
    ladder = {"rungs": {**rungs, "lora": {"missing": {}}}}
    assert suggest_after_ladder(ladder, options) == "sentifactory serve f --vllm_url http://h:1/v1"
    engine = LadderOptions("t.csv", "tr.csv", stack_model="s", engine="transformers")
    best = {"stack": {"metrics": {"accuracy": 0.95}, "note": None}}
    assert suggest_after_ladder({"rungs": best}, engine) == "sentifactory serve s --engine transformers"
    del rungs["freeze"]
    assert suggest_after_ladder({"rungs": rungs}, options) == "sentifactory serve b"
    del rungs["encoder_2"]
    assert suggest_after_ladder({"rungs": rungs}, options) == "sentifactory serve tr.csv --engine tfidf"
    alone = suggest_after_ladder({"rungs": {"majority": rungs["majority"]}}, options)
    assert alone == "sentifactory serve tr.csv --engine tfidf", "the majority label cannot be served"
