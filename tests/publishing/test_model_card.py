"""The card: its metadata come back through the hub's own library, its figures are the report's, its code is code."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from huggingface_hub import ModelCard
from publishing_workshop import Workshop

from sentifactory.publishing.hub.evidence import gather_evidence
from sentifactory.publishing.hub.publish import publish_model
from sentifactory.task.task import BINARY_SENTIMENT


@pytest.fixture
def card(workshop: Workshop) -> str:
    return str(publish_model(workshop.options(is_dry_run=True))["card"])


@pytest.mark.slow
def test_the_metadata_come_back_with_the_reports_figures(card: str, workshop: Workshop) -> None:
    data = ModelCard(card).data
    assert (data.license, data.base_model, data.pipeline_tag) == ("gemma", "google/gemma-3-270m", "text-generation")
    assert data.language == ["zh"]
    metrics = workshop.read_report()["models"]["tuned"]["metrics"]
    found = {result.metric_name: result for result in data.eval_results}
    accuracy = found["Accuracy"]
    interval = metrics["accuracy_interval"]
    assert accuracy.metric_value == round(metrics["accuracy"], 4)
    assert accuracy.metric_args == {"interval_95": [round(interval["low"], 4), round(interval["high"], 4)]}
    assert accuracy.metric_type == "accuracy"
    assert found["Macro F1"].metric_type == "f1"
    assert found["MCC"].metric_value == round(metrics["mcc"], 4)
    assert "60 reviews" in accuracy.dataset_name


def test_both_languages_show_the_same_figures(card: str, workshop: Workshop) -> None:
    body = card.split("\n---\n", 1)[1]
    english, chinese = body.split("\n# 中文\n")
    figures = [re.findall(r"\d+\.\d+%", page) for page in (english, chinese)]
    assert sorted(figures[0]) == sorted(figures[1])
    assert figures[0]
    report = workshop.read_report()
    assert report["verdict"]["headline"]["zh"].split("：")[0] in chinese
    for words in ("评测结果", "校准", "适用范围与局限", "许可", "泄漏检查", "训练过程"):
        assert words in chinese
    assert "{{" not in body
    assert "None" not in body


def test_the_evidence_is_on_it(card: str) -> None:
    for words in (
        "temperature: 1.5", "0.800", "40 validation reviews",  # calibration
        "learning_rate: 0.0003", "10.2 minutes", "torch 2.13.0", "812.5 tokens/s", "cpu, Linux",  # run card
        "mine_train", "from `mine.csv`", "mine.csv: cc-by-4.0",  # manifest
        "No text is shared",  # leak check
        "Gemma Terms of Use",
    ):  # fmt: skip
        assert words in card, words
    assert "dataset_dir" not in card


def test_how_many_of_the_reviews_were_trained_on(card: str, workshop: Workshop) -> None:
    run_card = workshop.run / "run.json"
    values = json.loads(run_card.read_text(encoding="utf-8"))
    for limit, is_told in ((30, True), (10**6, False)):
        values["recipe"]["max_samples"] = limit
        run_card.write_text(json.dumps(values), encoding="utf-8")
        told = str(publish_model(workshop.options(is_dry_run=True))["card"])
        assert (f"the first {limit} of them used for training" in told) is is_told
        assert (f"其中前 {limit} 条用于训练" in told) is is_told
    assert "of them used for training" not in card


def test_prompt_answers_and_code_on_it_can_be_used(card: str) -> None:
    fences = re.findall(r"(`{3,4})(\w+)\n(.*?)\n\1", card, re.DOTALL)
    prompts = [text for _, kind, text in fences if kind == "text"]
    assert prompts == [BINARY_SENTIMENT.prompt_template] * 2
    answers = [line for _, kind, text in fences if kind == "json" for line in text.splitlines()]
    assert [BINARY_SENTIMENT.parse_answer(line) for line in answers] == [0, 1, 0, 1]
    snippets = [text for _, kind, text in fences if kind == "python"]
    assert len(snippets) == 2
    for snippet in snippets:
        compile(snippet, "card", "exec")
        assert json.dumps(BINARY_SENTIMENT.prompt_template, ensure_ascii=False) in snippet
    assert "vllm serve me/reviews" in card
    assert "--model me/reviews" in card


def test_without_calibration_and_with_an_encoder_the_card_says_so(workshop: Workshop) -> None:
    (workshop.run / "calibration.json").unlink()
    report = workshop.read_report()
    (workshop.run / "config.json").write_text('{"architectures": ["BertForSequenceClassification"]}')
    from sentifactory.models.weights import hash_settings

    report["models"]["tuned"]["settings"] = hash_settings(workshop.run)
    workshop.write_report(report)
    card = publish_model(workshop.options(is_dry_run=True))["card"]
    assert ModelCard(card).data.pipeline_tag == "text-classification"
    assert "Not calibrated" in card
    assert "vllm serve" not in card
    assert 'pipeline("text-classification", model="me/reviews")' in card


def test_hostile_words_stay_words(workshop: Workshop) -> None:
    report = workshop.read_report()
    hostile = "<script>alert(1)</script> [x](http://a) | `y` {{ 7*7 }}"
    report["verdict"]["headline"] = {"en": hostile, "zh": hostile}
    workshop.write_report(report)
    card = publish_model(workshop.options(is_dry_run=True))["card"]
    assert "<script>" not in card
    assert "49" not in card.split("\n---\n", 1)[1].split("{{ 7")[0].rsplit("script", 1)[-1]


def test_a_calibration_for_other_weights_is_not_on_it(workshop: Workshop) -> None:
    file = workshop.run / "calibration.json"
    values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(values | {"weights": {"model.safetensors": "0" * 64}}), encoding="utf-8")
    assert gather_evidence(workshop.run).calibration is None


def test_the_same_evidence_gives_the_same_card(card: str, workshop: Workshop) -> None:
    assert publish_model(workshop.options(is_dry_run=True))["card"] == card
