"""The commands of evaluation: every option has its effect, and `--json` prints only the result."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from caught_call import catch_call
from scripted_comparison import Workplace
from typer.testing import CliRunner

from sentifactory.cli import build_app
from sentifactory.engines.vllm.vllm_install import choose_language_engine
from sentifactory.evaluation import compare, demo
from sentifactory.evaluation.compare_options import CompareOptions
from sentifactory.evaluation.ladder import ladder
from sentifactory.evaluation.ladder.ladder import LadderOptions
from sentifactory.evaluation.report.report import summarise_report
from sentifactory.metrics import power
from sentifactory.publishing.onnx.onnx_speed import compute_latency_percentiles
from sentifactory.training.distillation import teacher
from sentifactory.training.distillation.teacher import DistillOptions


def test_every_option_of_the_comparison_reaches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    words = "eval compare --csv_path t.csv --base_model b --finetuned_model f"
    plain = catch_call(monkeypatch, compare, "run_comparison", words).given[0]
    assert plain == CompareOptions("t.csv", "b", "f", "saves/reports/f/report.json", engine=choose_language_engine())
    words += (
        " --csv_path u.csv --csv_path v.csv --val_path w.csv --target_accuracy 0.9 --output_file o/r.json "
        "--max_samples 7 --engine auto --base_url http://a --tuned_url http://c --mode score --task "
        "three_classes --train_csv x.csv --train_file y.jsonl --train_file z.jsonl --train_samples 8 "
        "--max_new_tokens 9 --seed 3 --allow_leaks --adapt_prior"
    )
    assert catch_call(monkeypatch, compare, "run_comparison", words).given[0] == CompareOptions(
        "t.csv",
        "b",
        "f",
        "o/r.json",
        more_csv_paths=("u.csv", "v.csv"),
        val_path="w.csv",
        target_accuracy=0.9,
        max_samples=7,
        engine="auto",
        base_url="http://a",
        tuned_url="http://c",
        mode="score",
        task="three_classes",
        train_csv="x.csv",
        train_files=("y.jsonl", "z.jsonl"),
        train_samples=8,
        max_new_tokens=9,
        seed=3,
        allow_leaks=True,
        adapt_prior=True,
    )


def test_every_option_of_the_ladder_reaches_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place = tmp_path / "l.json"
    words = f"eval ladder --csv_path t.csv --train_csv n.csv --output_file {place}"
    assert catch_call(monkeypatch, ladder, "run_ladder", words).given[0] == LadderOptions(
        "t.csv", "n.csv", engine=choose_language_engine()
    )
    words += (
        " --base_model b --freeze_model f --lora_model l --encoder_model d --encoder_model e --stack_model s --engine "
        "transformers --mode generate --shots 2 --task three_classes --max_samples 5 --train_samples 6 --seed "
        "3 --allow_leaks --val_path w.csv --adapt_prior"
    )
    assert catch_call(monkeypatch, ladder, "run_ladder", words).given[0] == LadderOptions(
        "t.csv", "n.csv", "b", "f", "l", ("d", "e"), "s", "transformers", "generate", 2, "three_classes", 5, 6, 3,
        True, "w.csv", True,
    )  # fmt: skip


def test_every_option_of_the_teacher_reaches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    words = "distill --teacher m --input_file a.csv --output_file s.jsonl"
    assert catch_call(monkeypatch, teacher, "ask_teacher", words).given[0] == DistillOptions(
        "m", ("a.csv",), Path("s.jsonl"), choose_language_engine()
    )
    words += " --input_file b.csv --engine auto --task three_classes --max_samples 4 --seed 5"
    assert catch_call(monkeypatch, teacher, "ask_teacher", words).given[0] == DistillOptions(
        "m", ("a.csv", "b.csv"), Path("s.jsonl"), "auto", "three_classes", 4, 5
    )


def test_every_option_of_the_power_reaches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert catch_call(monkeypatch, power, "answer_power", "eval power").given == (
        None,
        None,
        None,
        None,
        None,
        0.8,
        0.05,
    )
    words = "eval power --difference 0.1 --base_accuracy 0.7 --tuned_accuracy 0.8 --discordance 0.2"
    words += " --reviews 90 --power 0.9 --level 0.01"
    assert catch_call(monkeypatch, power, "answer_power", words).given == (0.1, 0.7, 0.8, 0.2, 90, 0.9, 0.01)


def test_the_comparison_prints_its_result_alone_or_in_words(workplace: Workplace) -> None:
    folder = workplace.folder
    words = f"eval compare --csv_path {folder}/test.csv --engine transformers --output_file {folder}/out/report.json"
    words += f" --base_model {folder}/base_model --finetuned_model {folder}/tuned_model"
    printed = CliRunner().invoke(build_app(), [*words.split(), "--json"], catch_exceptions=False).stdout
    assert json.loads(printed) == json.loads(json.dumps(summarise_report(workplace.read())))
    assert printed.startswith('{\n  "')
    assert "优" in printed or "微调" in printed, "Chinese stays readable"
    shown = CliRunner().invoke(build_app(), words.split(), catch_exceptions=False).stdout
    assert "tuned" in shown
    assert not shown.startswith("{")


def test_the_teacher_says_what_it_has_written(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"reviews": 3, "missing": 1, "answered": {"负面": 1, "正面": 2}}
    monkeypatch.setattr(teacher, "ask_teacher", lambda _: facts)
    words = "distill --teacher m --input_file a.csv --output_file out/s.jsonl"
    assert CliRunner().invoke(build_app(), words.split()).stdout.splitlines() == [
        "Soft labels of 3 reviews (1 负面, 2 正面): out/s.jsonl",
        "Set soft_label_path: out/s.jsonl in an encoder recipe",
    ]
    printed = CliRunner().invoke(build_app(), [*words.split(), "--json"]).stdout
    assert printed == json.dumps(facts, ensure_ascii=False, indent=2) + "\n"


def test_the_demo_prints_the_path_of_its_report(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(demo, "run_stages", lambda samples: asked.append(samples) or workplace.run())
    shown = CliRunner().invoke(build_app(), ["demo", "--max_samples", "6"], catch_exceptions=False).stdout
    assert asked == [6]
    assert "tuned" in shown
    words = "Open saves/demo/report.html in a browser; every prediction is in saves/demo/report.json."
    assert shown.splitlines()[-2:-1] == [words]
    assert shown.splitlines()[-1].startswith("Next: sentifactory ")


def test_latencies_by_their_usual_marks() -> None:
    assert compute_latency_percentiles([number / 100 for number in range(101)]) == pytest.approx(
        {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    )
    assert compute_latency_percentiles([0.1, 0.2]) == pytest.approx({"p50": 0.15, "p95": 0.195, "p99": 0.199})
