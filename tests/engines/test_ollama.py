"""A stand-in for Ollama, by its documented routes: no token ids, probabilities of what is written, names with tags."""

from __future__ import annotations

import asyncio
import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_openai_server import Behaviour, next_logprobs, serve_fake
from three_words import THREE_WORDS

from sentifactory import cli
from sentifactory.engines.openai import connection
from sentifactory.engines.openai.openai_engine import OpenAiEngine
from sentifactory.engines.openai.request_errors import AnswerFormError
from sentifactory.errors import EXIT_BAD_INPUT, EngineError
from sentifactory.records import Prediction, Review
from sentifactory.task.task import BINARY_SENTIMENT, Task

Fake = tuple[Behaviour, str]

PARTS = {  # what all answers begin with, and what is each label's own
    BINARY_SENTIMENT: ('{"sentiment": ', ("0", "1")),
    THREE_WORDS: ('{"情感": "', ("好评", "负面的", "一般")),
}


OLD_LLAMA = Behaviour(kind="old-llama.cpp", constraint="response_format", writes_lines=False)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FIRST_PAUSE_S", 0.01)


@pytest.fixture
def ollama() -> Iterator[Fake]:
    behaviour = Behaviour(
        kind="ollama",
        names=["demo:latest", "qwen3:0.6b"],
        constraint="response_format",
        writes_lines=False,
        chat_logprobs="before",
    )
    with serve_fake(behaviour) as address:
        yield behaviour, address


def ask(
    address: str, mode: str, texts: list[str], task: Task = BINARY_SENTIMENT, model: str = "demo"
) -> list[Prediction]:
    with OpenAiEngine(address, model, task, mode=mode) as engine:
        return engine.predict([Review(text) for text in texts])


def run_command(words: list[str]) -> None:
    cli.run_guarded(lambda: cli.build_app()(words, standalone_mode=False))


async def ask_directly(engine: OpenAiEngine, text: str) -> Prediction:
    """Ask as the service does: what is wrong with one review is raised."""
    async with engine.connect() as ask_one:
        return await ask_one(Review(text))


def ask_in_vain(behaviour: Behaviour, mode: str, model: str = "base") -> EngineError:
    with serve_fake(behaviour) as address, pytest.raises(EngineError) as refused:
        ask(address, mode, ["好"], model=model)
    return refused.value


@pytest.mark.parametrize("task", [BINARY_SENTIMENT, THREE_WORDS])
def test_scores_are_those_of_brute_force(ollama: Fake, task: Task) -> None:
    """Whether a label is among the listed tokens or has to be written, and however many tokens it has."""
    lead, endings = PARTS[task]
    texts = [f"第{number}家" for number in range(8)]
    for text, prediction in zip(texts, ask(ollama[1], "score", texts, task), strict=True):
        expected = []
        for ending in endings:
            ids = [2, *map(ord, task.render_prompt(text)), 3, *map(ord, lead)]
            expected.append(0.0)
            for letter in ending:
                expected[-1] += next_logprobs(ids)[ord(letter)]
                ids.append(ord(letter))
        assert prediction.log_likelihoods == pytest.approx(expected, abs=1e-9)
        assert prediction.label == expected.index(max(expected))


def test_a_label_among_the_listed_tokens_takes_no_request_of_its_own(ollama: Fake) -> None:
    behaviour, address = ollama
    with OpenAiEngine(address, "demo", BINARY_SENTIMENT, mode="score", concurrency=1) as engine:
        counts = []
        for number in range(12):
            behaviour.bodies.clear()
            engine.predict([Review(f"第{number}家")])
            counts.append(len(behaviour.bodies))
    assert set(counts) == {1, 2}


def test_all_modes_give_labels(ollama: Fake) -> None:
    for mode in ("generate", "constrain"):
        assert [one.label for one in ask(ollama[1], mode, ["好", "差"])] == [1, 0]
    assert {body["model"] for body in ollama[0].bodies} == {"demo:latest"}


@pytest.mark.parametrize(("logprobs", "is_written"), [("", True), ("after", True), ("before", False)])
def test_no_probability_is_made_up(ollama: Fake, logprobs: str, is_written: bool) -> None:
    """None are given, or only those after the constraint, or the answer is written otherwise than it was taught."""
    behaviour, address = ollama
    behaviour.chat_logprobs, behaviour.writes_lines = logprobs, not is_written
    with pytest.raises(EngineError) as refused:
        ask(address, "score", ["好"])
    assert refused.value.code == "server-mode"
    assert ask(address, "constrain", ["好"])[0].label == 1


def test_an_answer_in_another_form_costs_its_review_the_label_and_no_other(
    ollama: Fake, tmp_path: Path, capsys
) -> None:
    ollama[0].writes_lines, ollama[0].lines_for = True, "差"
    source, out = tmp_path / "reviews.csv", tmp_path / "out.csv"
    source.write_text("text\n很好\n太差\n还好\n", encoding="utf-8")
    run_command(["label", str(source), str(out), "--model", "demo", "--engine", ollama[1]])
    assert "reviews.csv, line 3" in capsys.readouterr().err
    rows = list(csv.DictReader(out.open(encoding="utf-8-sig")))
    assert [row["text"] for row in rows] == ["很好", "还好"]
    assert json.loads((tmp_path / "out.csv.bad.jsonl").read_text(encoding="utf-8"))["line"] == 3
    with OpenAiEngine(ollama[1], "demo", BINARY_SENTIMENT, mode="score") as engine, pytest.raises(AnswerFormError):
        asyncio.run(ask_directly(engine, "太差"))


@pytest.mark.parametrize("mode", ["generate", "constrain", "score"])
def test_a_review_that_ollama_cuts_gets_no_label(ollama: Fake, mode: str) -> None:
    """One that is read whole has its label, even if its prompt has exactly the tokens that are left of a cut one."""
    behaviour, address = ollama
    behaviour.context = 1200
    n_around = len(BINARY_SENTIMENT.render_prompt("")) + 2
    with OpenAiEngine(address, "demo", BINARY_SENTIMENT, mode=mode) as engine:
        lengths = [20, 602 - n_around, 1200 - n_around, 1201 - n_around, 3000]
        answers = engine.predict([Review("好" * length) for length in lengths])
        behaviour.bodies.clear()
        engine.predict([Review("好" * 400)])
    assert [one.label is not None for one in answers] == [True, True, True, False, False]
    assert len(behaviour.bodies) <= 2, "a short review is not asked again"


def test_a_model_that_ollama_does_not_have(ollama: Fake) -> None:
    with pytest.raises(EngineError) as refused:
        ask(ollama[1], "generate", ["好"], model="tuned")
    assert refused.value.code == "server-model"
    assert all(name in refused.value.expected for name in ("demo:latest", "qwen3:0.6b"))
    assert "ollama create tuned -f Modelfile" in refused.value.next_step
    ollama[0].listing = {"object": "list", "data": None}
    with pytest.raises(EngineError) as refused:
        ask(ollama[1], "generate", ["好"], model="tuned")
    assert (refused.value.code, refused.value.expected) == ("server-model", "a server with a model")
    assert "ollama create tuned -f Modelfile" in refused.value.next_step
    assert "ollama" not in ask_in_vain(OLD_LLAMA, "generate", model="tuned").next_step


def test_a_llama_cpp_that_is_too_old_to_score() -> None:
    assert ask_in_vain(OLD_LLAMA, "score").code == "server-mode"
    with serve_fake(OLD_LLAMA) as address:
        assert ask(address, "constrain", ["好"], model="base")[0].label == 1


def test_a_server_that_is_still_loading() -> None:
    assert ask_in_vain(Behaviour(is_loading=True), "score").code == "server-loading"


def test_the_commands_end_with_one_sentence_and_write_nothing(ollama: Fake, tmp_path: Path, capsys) -> None:
    source, out = tmp_path / "reviews.csv", tmp_path / "out.csv"
    source.write_text("text\n很好\n", encoding="utf-8")
    for words in (
        ["predict", "很好", "--model", "tuned", "--engine", ollama[1]],
        ["label", str(source), str(out), "--model", "tuned", "--engine", ollama[1]],
    ):
        with pytest.raises(SystemExit) as ended:
            run_command(words)
        assert ended.value.code == EXIT_BAD_INPUT
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.count("Error:") == 1
    assert list(tmp_path.iterdir()) == [source]


def test_predict_and_label_ask_ollama(ollama: Fake, tmp_path: Path, capsys) -> None:
    source, out = tmp_path / "reviews.csv", tmp_path / "out.csv"
    source.write_text("text\n很好\n太差\n", encoding="utf-8")
    expected = ask(ollama[1], "score", ["很好", "太差"])
    run_command(["predict", "很好", "--model", "demo", "--engine", ollama[1], "--json"])
    (answer,) = json.loads(capsys.readouterr().out)[0]["answers"]
    assert list(answer["probabilities"].values()) == pytest.approx(expected[0].probabilities)
    run_command(["label", str(source), str(out), "--model", "demo", "--engine", ollama[1]])
    rows = list(csv.DictReader(out.open(encoding="utf-8-sig")))
    assert [row["label"] for row in rows] == [BINARY_SENTIMENT.labels[one.label] for one in expected]
    shares = [max(one.probabilities) for one in expected]
    assert [float(row["probability"]) for row in rows] == pytest.approx(shares, abs=1e-4)


@pytest.mark.slow
def test_a_comparison_asks_two_models_of_one_ollama(ollama: Fake, tmp_path: Path, reviews: list[Review]) -> None:
    source, report = tmp_path / "test.csv", tmp_path / "report.json"
    with source.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("label", "text"), *((one.label, one.text) for one in reviews[:12])])
    words = ["eval", "compare", "--mode", "score", "--csv_path", str(source), "--engine", ollama[1]]
    words += ["--base_model", "qwen3:0.6b", "--finetuned_model", "demo", "--output_file", str(report)]
    run_command(words)
    models = json.loads(report.read_text(encoding="utf-8"))["models"]
    answers = ask(ollama[1], "score", [one.text for one in reviews[:12]])
    expected = [one.label == review.label for one, review in zip(answers, reviews, strict=False)]
    assert models["tuned"]["metrics"]["accuracy"] == pytest.approx(sum(expected) / 12)
    assert {body["model"] for body in ollama[0].bodies} == {"qwen3:0.6b", "demo:latest"}
