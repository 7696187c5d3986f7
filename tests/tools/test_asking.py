"""The bench of evaluation on a tiny model; transformers stands in for vLLM, which is dear to start."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from scripted_comparison import write_reviews

from sentifactory.engines.base import ClosingEngine, OnAnswer
from sentifactory.engines.local import transformers_engine
from sentifactory.engines.local.transformers_engine import TransformersEngine, count_forward_flop
from sentifactory.engines.openai import openai_engine
from sentifactory.engines.vllm import vllm_engine
from sentifactory.engines.vllm.start_vllm import VllmOptions
from sentifactory.errors import ConfigError
from sentifactory.records import Prediction, Review
from sentifactory.task.task import BINARY_SENTIMENT
from tools.benches import asking as eval_bench
from tools.benches.asking import bench_eval, deal_by_length
from tools.benches.asking_figures import ModelBench, describe_bench, format_bench


class StandIn(TransformersEngine):
    """Takes what the engine of vLLM takes."""

    address = ""
    key = "its own"

    def __init__(self, model: str, task: Any, *, name: str, options: VllmOptions, **_: Any) -> None:
        assert options.extra_arguments == ("--no-enable-prefix-caching",)
        StandIn.address = model
        super().__init__(model, task, name=name, max_new_tokens=2)


def build_scoring(address: str, model: str, task: Any, *, name: str, **_: Any) -> TransformersEngine:
    return TransformersEngine(address, task, name=name, mode="score")


@pytest.mark.slow
def test_every_way_is_measured_in_every_round(
    tmp_path: Path, tiny_qwen: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(vllm_engine, "VllmEngine", StandIn)
    monkeypatch.setattr(openai_engine, "OpenAiEngine", build_scoring)
    monkeypatch.setattr("tools.benches.asking.REFERENCE_NEW_TOKENS", 4)
    monkeypatch.setattr("tools.benches.asking.MATRIX_SIZE", 64)
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


def test_groups_have_similar_lengths() -> None:
    groups = deal_by_length([Review("x" * length) for length in (9, 1, 5, 3, 7, 2)], 3)
    assert [[len(review.text) for review in group] for group in groups] == [[1, 5], [2, 7], [3, 9]]
    with pytest.raises(ConfigError, match="There are only 2 reviews for 3 groups"):
        deal_by_length([Review("x"), Review("y")], 3)


def test_operations_are_counted_as_by_hand(tiny_qwen: Path) -> None:
    """Four layers, hidden 32, intermediate 64, 2 heads of 16, 1 head of keys and values, 151,936 words."""
    with TransformersEngine(str(tiny_qwen), BINARY_SENTIMENT) as engine:
        counted = count_forward_flop(engine._model, 10, 3)
    layer = 32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 64
    pairs = 3 * 10 + 1 + 2 + 3
    assert counted == 2 * 4 * layer * 3 + 4 * 4 * 32 * pairs + 2 * 32 * 151_936


def make_bench(seconds: float) -> ModelBench:
    bench = ModelBench(gflop_per_review=[10.0, 20.0], gflop_per_s=[100.0, 150.0, 170.0])
    for place, timing in enumerate(bench.timings.values(), 1):
        timing.add(6, seconds)
        timing.add(6 * place, seconds)
    bench.labels = [(0, 0), (1, 0), (None, 1), (1, 1)]
    bench.local_labels = [(0, 0), (1, 0), (1, 1)]
    return bench


def test_the_figures_of_a_hand_worked_bench() -> None:
    """The rounds are 6 and 6 to 30 reviews in 2 s each: (a) 3 a second, (b) 4.5, (c) 6, (d) 7.5, (e) 9."""
    assert format_bench({"base": make_bench(2.0)}).splitlines() == [
        "| model | method | reviews/s | each round | times (a) | share of (e) |",
        "|---|---|---:|---|---:|---:|",
        "| base | (a) transformers generate, one at a time, 256 new tokens | 3 | 3 3 | 1.0 | 33% |",
        "| base | (b) vLLM generate | 4.5 | 3 6 | 1.5 | 50% |",
        "| base | (c) vLLM score | 6 | 3 9 | 2.0 | 67% |",
        "| base | (d) transformers score | 7.5 | 3 12 | 2.5 | 83% |",
        "| base | (e) limit: unshared tokens at the rate of a float32 matrix product | 9 | 3 15 | 3.0 | 100% |",
        "",
        "base: 15.0 GFLOP per review, 150 GFLOP/s; (c) is 1.33 times (b); labels of (b) and (c) agree on 50.0% of 4 "
        "reviews, of (c) and (d) on 66.7% of 3.",
    ]
    figures = describe_bench(make_bench(1 / 3))
    assert figures["ways"]["c"] == {
        "what": "vLLM score", "reviews": [6, 18], "seconds": [0.333333, 0.333333], "reviews_per_s": 36.0,
    }  # fmt: skip
    assert figures["gflop_per_review"] == 15.0
    assert figures["gflop_per_s"] == [100.0, 150.0, 170.0]
    assert (figures["label_agreement_b_c"], figures["label_agreement_c_d"]) == (0.5, 0.6667)


def test_each_way_is_asked_as_it_should_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines that write down how they were opened and what they were asked."""
    opened: list[dict[str, Any]] = []
    asked: list[tuple[str, list[str]]] = []

    class Told(ClosingEngine):
        address = "http://vllm"
        key = "its own"

        def __init__(self, *words: Any, **settings: Any) -> None:
            opened.append({"words": words, **settings})
            self.name = f"{len(opened)}"

        def predict(self, reviews: Sequence[Review], on_answer: OnAnswer | None = None) -> list[Prediction]:
            asked.append((self.name, [review.text for review in reviews]))
            return [Prediction(len(review.text) % 2) for review in reviews]

        def count_flop(self, reviews: Sequence[Review]) -> float:
            return 5e9 * len(reviews)

    for module, name in (
        (vllm_engine, "VllmEngine"),
        (openai_engine, "OpenAiEngine"),
        (transformers_engine, "TransformersEngine"),
    ):
        monkeypatch.setattr(module, name, Told)
    monkeypatch.setattr(eval_bench, "measure_matrix_rate", lambda: 2e9)
    options = VllmOptions(dtype="bfloat16")
    groups = [[Review("x" * length) for length in lengths] for lengths in ((1, 2, 3, 4), (5, 6, 7), (8, 9), (10, 11))]
    bench = eval_bench.measure_model(
        "tuned", "folder", BINARY_SENTIMENT, groups, eval_bench.BenchSettings(options, 16, 4, 2)
    )
    task = BINARY_SENTIMENT
    assert opened == [
        {"words": ("folder", task), "name": "tuned", "options": options, "concurrency": 16},
        {
            "words": ("http://vllm", "tuned", task), "name": "tuned, scored", "mode": "score", "api_key": "its own",
            "concurrency": 16,
        },
        {"words": ("folder", task), "name": "tuned", "mode": "score", "batch_size": 4},
        {"words": ("folder", task), "name": "tuned", "max_new_tokens": 256, "batch_size": 1},
    ]  # fmt: skip
    free, scored, local, usual = "1234"
    first, second, third, fourth = ([review.text for review in group] for group in groups)
    assert asked == [
        (free, ["还可以"]), (scored, ["还可以"]), (local, ["还可以"]),
        (usual, first[2:4]), (free, first), (scored, second), (local, second), (scored, first), (free, second),
        (usual, third[1:3]), (free, third), (scored, fourth), (local, fourth), (scored, third), (free, fourth),
    ]  # fmt: skip
    assert {way: timing.reviews for way, timing in bench.timings.items()} == {
        "a": [2, 1], "b": [4, 2], "c": [3, 2], "d": [3, 2], "e": [3, 2],
    }  # fmt: skip
    assert bench.timings["e"].seconds == [7.5, 5.0]
    assert (bench.gflop_per_review, bench.gflop_per_s) == ([5.0, 5.0], [2.0, 2.0])
    assert bench.labels == [(len(text) % 2,) * 2 for text in [*first, *second, *third, *fourth]]
    assert bench.local_labels == [(len(text) % 2,) * 2 for text in [*second, *fourth]]
