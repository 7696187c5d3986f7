"""The bench of evaluation on a tiny model; transformers stands in for vLLM, which is dear to start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scripted_comparison import write_reviews

from sentifactory.engines import openai_api, vllm
from sentifactory.engines.transformers import TransformersEngine, count_forward_flop
from sentifactory.engines.vllm_process import VllmOptions
from sentifactory.errors import ConfigError
from sentifactory.evaluation.bench import bench_eval, deal_by_length
from sentifactory.records import Review
from sentifactory.task import BINARY_SENTIMENT


class StandIn(TransformersEngine):
    """Takes what the engine of vLLM takes."""

    address = ""

    def __init__(self, model: str, task: Any, *, name: str, options: VllmOptions, **_: Any) -> None:
        assert options.extra_arguments == ("--no-enable-prefix-caching",)
        StandIn.address = model
        super().__init__(model, task, name=name, max_new_tokens=2)


def build_scoring(address: str, model: str, task: Any, *, name: str, **_: Any) -> TransformersEngine:
    return TransformersEngine(address, task, name=name, mode="score")


def test_every_way_is_measured_in_every_round(
    tmp_path: Path, tiny_qwen: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(vllm, "VllmEngine", StandIn)
    monkeypatch.setattr(openai_api, "OpenAiEngine", build_scoring)
    monkeypatch.setattr("sentifactory.evaluation.bench.REFERENCE_NEW_TOKENS", 4)
    monkeypatch.setattr("sentifactory.evaluation.bench.MATRIX_SIZE", 64)
    write_reviews(tmp_path / "test.csv", [(number % 2, f"第{number}家" + "好" * number) for number in range(12)])
    bench_eval(
        base_model=str(tiny_qwen),
        tuned_model=str(tiny_qwen),
        csv_path=str(tmp_path / "test.csv"),
        max_samples=12,
        reference_samples=1,
        rounds=2,
        vllm_arguments="--no-enable-prefix-caching",
        output_dir=str(tmp_path / "out"),
    )
    figures = json.loads((tmp_path / "out" / "eval.json").read_text(encoding="utf-8"))
    for name in ("base", "tuned"):
        ways = figures[name]["ways"]
        assert {way: facts["reviews"] for way, facts in ways.items()} == {
            "a": [1, 1],
            "b": [3, 3],
            "c": [3, 3],
            "d": [3, 3],
            "e": [3, 3],
        }
        assert all(seconds > 0 for facts in ways.values() for seconds in facts["seconds"])
        assert figures[name]["label_agreement_b_c"] == 0  # a random model writes nothing that parses
        assert figures[name]["label_agreement_c_d"] == 1  # here it is the same engine
    assert figures["settings"]["options"]["extra_arguments"] == ["--no-enable-prefix-caching"]
    table = (tmp_path / "out" / "eval.md").read_text(encoding="utf-8")
    assert table.count("\n| base | (") == 5
    assert "agree on 0.0% of 12 reviews" in table
    assert table in capsys.readouterr().out


def test_hands_are_of_like_lengths() -> None:
    hands = deal_by_length([Review("x" * length) for length in (9, 1, 5, 3, 7, 2)], 3)
    assert [[len(review.text) for review in hand] for hand in hands] == [[1, 5], [2, 7], [3, 9]]
    with pytest.raises(ConfigError, match="There are 2 reviews for 3 hands"):
        deal_by_length([Review("x"), Review("y")], 3)


def test_operations_are_counted_as_by_hand(tiny_qwen: Path) -> None:
    """Four layers, hidden 32, intermediate 64, 2 heads of 16, 1 head of keys and values, 151,936 words."""
    with TransformersEngine(str(tiny_qwen), BINARY_SENTIMENT) as engine:
        counted = count_forward_flop(engine._model, 10, 3)
    layer = 32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 64
    pairs = 3 * 10 + 1 + 2 + 3
    assert counted == 2 * 4 * layer * 3 + 4 * 4 * 32 * pairs + 2 * 32 * 151_936
