"""A teacher labels reviews: its probabilities are written, and no review is asked about twice."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_openai_server import Behaviour, serve_fake
from tiny_models import build_tiny_bert
from typer.testing import CliRunner

from sentifactory.cli import build_app
from sentifactory.corpus.splitting.sampling import take_sample
from sentifactory.engines.base import ClosingEngine, OnAnswer
from sentifactory.engines.local.encoder_engine import EncoderEngine
from sentifactory.engines.registry import build_engine
from sentifactory.errors import ConfigError, DataError, EngineError
from sentifactory.metrics.calibration import Calibration, hash_prompt, save_calibration
from sentifactory.models.weights import hash_weights
from sentifactory.records import Prediction, Review
from sentifactory.system.fingerprint import hash_file
from sentifactory.task.model_folder import write_model_task
from sentifactory.task.task import BINARY_SENTIMENT, Task
from sentifactory.task.task_file import load_task, record_task
from sentifactory.training.distillation import teacher as teaching
from sentifactory.training.distillation.soft_labels import read_soft_labels
from sentifactory.training.distillation.teacher import DistillOptions, ask_teacher, read_distinct
from sentifactory.training.run.provenance import describe_model, describe_versions

TEXTS = ["很好", "太差了", "房间干净", "服务热情", "再也不来", "值得购买"]


@pytest.fixture
def options(tmp_path: Path) -> DistillOptions:
    folder = tmp_path / "teacher"
    folder.mkdir()
    build_tiny_bert(folder)
    pool = tmp_path / "pool.csv"
    pool.write_text("text,label\n" + "".join(f"{text},x\n" for text in [*TEXTS, TEXTS[0]]), encoding="utf-8")
    return DistillOptions(str(folder), (str(pool),), tmp_path / "soft" / "labels.jsonl", engine="encoder")


class Dying(ClosingEngine):
    """Answers a few reviews by another engine, and fails."""

    def __init__(self, engine: Any, answers: int) -> None:
        self.name = engine.name
        self._engine, self._answers = engine, answers

    def predict(self, reviews: Sequence[Review], on_answer: OnAnswer | None = None) -> list[Prediction]:
        self._engine.predict(reviews[: self._answers], on_answer)
        raise EngineError("It has died")


@pytest.mark.slow
def test_an_interrupted_run_asks_only_for_the_rest(options: DistillOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    build, asked = teaching.build_engine, []

    def build_dying(*words: Any, **settings: Any) -> Any:
        return Dying(build(*words, **settings), 4)

    def build_watched(*words: Any, **settings: Any) -> Any:
        engine: Any = build(*words, **settings)
        predict = engine.predict
        engine.predict = lambda reviews, tell=None: asked.extend(reviews) or predict(reviews, tell)
        return engine

    monkeypatch.setattr(teaching, "build_engine", build_dying)
    with pytest.raises(EngineError, match="It has died"):
        ask_teacher(options)
    assert not options.output_file.exists()
    monkeypatch.setattr(teaching, "build_engine", build_watched)
    facts = ask_teacher(options)
    assert [review.text for review in asked] == TEXTS[4:]
    assert facts["reviews"] == 6, "a text that occurs twice is asked about once"
    assert sum(facts["answered"].values()) == 6
    assert json.loads(options.output_file.with_suffix(".json").read_text()) == facts
    assert sorted(path.name for path in options.output_file.parent.iterdir()) == ["labels.json", "labels.jsonl"]
    with EncoderEngine(options.teacher, BINARY_SENTIMENT) as engine:
        expected = [answer.probabilities for answer in engine.predict([Review(text) for text in TEXTS])]
    found = read_soft_labels(options.output_file, BINARY_SENTIMENT)
    assert list(found) == TEXTS
    assert list(found.values()) == [pytest.approx(shares, abs=1e-5) for shares in expected]


def test_an_output_name_without_jsonl_is_refused(options: DistillOptions) -> None:
    with pytest.raises(ConfigError, match=r"ends in \.jsonl"):
        ask_teacher(DistillOptions(options.teacher, options.input_files, Path("soft.csv")))


def test_the_facts_file_of_the_soft_labels(options: DistillOptions) -> None:
    pool = Path(options.input_files[0])
    facts = ask_teacher(replace(options, max_samples=4, seed=7))
    read = read_soft_labels(options.output_file, BINARY_SENTIMENT)
    weights = describe_model(options.teacher)
    assert facts == {
        "teacher": {"model": options.teacher, "engine": "encoder", "mode": "score", **weights},
        "task": {**record_task(BINARY_SENTIMENT), "source": "default", "where": ""},
        "input": [{"file": str(pool), "sha256": hash_file(pool)}],
        "reviews": 4,
        "missing": 0,
        "answered": {
            label: sum(max(range(2), key=shares.__getitem__) == at for shares in read.values())
            for at, label in enumerate(BINARY_SENTIMENT.labels)
        },
        "predict_s": pytest.approx(facts["predict_s"]),
        "sha256": hash_file(options.output_file),
        "versions": describe_versions(["encoder"]),
    }
    assert 0 <= facts["predict_s"] < 60
    sampled = take_sample([Review(text) for text in TEXTS], 4, 7)
    assert list(read) == [review.text for review in sampled]


def test_reviews_without_a_text_are_left_out(options: DistillOptions, tmp_path: Path) -> None:
    blank = tmp_path / "blank.csv"
    blank.write_text("text\n  \n很好\n", encoding="utf-8")
    assert [review.text for review in read_distinct((str(blank), *options.input_files), BINARY_SENTIMENT)] == TEXTS
    blank.write_text('text\n"  "\n', encoding="utf-8")
    with pytest.raises(DataError, match="No row has a text") as error:
        read_distinct((str(blank), str(blank)), BINARY_SENTIMENT)
    assert error.value.where == f"{blank}, {blank}"
    assert error.value.expected == "at least one review"


@pytest.mark.slow
def test_answers_under_another_calibration_are_asked_again(
    options: DistillOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = teaching.build_engine
    monkeypatch.setattr(teaching, "build_engine", lambda *words, **settings: Dying(build(*words, **settings), 4))
    with pytest.raises(EngineError, match="It has died"):
        ask_teacher(options)
    teacher = Path(options.teacher)
    values = ("temperature", 0.01, (0.0, 0.0), "binary_sentiment", hash_prompt(BINARY_SENTIMENT), None, 0.9, {})
    save_calibration(Calibration(*values, hash_weights(teacher)), teacher)
    monkeypatch.setattr(teaching, "build_engine", build)
    ask_teacher(options)
    with build_engine("encoder", options.teacher, BINARY_SENTIMENT, mode="score") as engine:
        expected = [answer.probabilities for answer in engine.predict([Review(text) for text in TEXTS])]
    found = read_soft_labels(options.output_file, BINARY_SENTIMENT)
    assert list(found.values()) == [pytest.approx(shares, abs=1e-5) for shares in expected]


def ask_at_address(tmp_path: Path, texts: list[str]) -> tuple[Any, Path]:
    """Distil by the command from a server that refuses prompts above its input."""
    pool, out = tmp_path / "pool.csv", tmp_path / "soft.jsonl"
    pool.write_text("text\n" + "".join(f"{text}\n" for text in texts), encoding="utf-8")
    with serve_fake(Behaviour()) as address:
        words = ["distill", "--teacher", "base", "--input_file", str(pool), "--output_file", str(out)]
        return CliRunner().invoke(build_app(), [*words, "--engine", f"{address}/v1", "--json"]), out


def test_a_review_that_the_teacher_cannot_read_is_left_out_and_counted(tmp_path: Path) -> None:
    done, out = ask_at_address(tmp_path, ["很好", "长" * 3000, "太差了"])
    assert done.exit_code == 0, done.exception
    facts = json.loads(done.stdout)
    assert (facts["reviews"], facts["missing"], sum(facts["answered"].values())) == (2, 1, 2)
    assert list(read_soft_labels(out, BINARY_SENTIMENT)) == ["很好", "太差了"]


def test_the_next_command_asks_the_teacher_at_its_address(tmp_path: Path) -> None:
    pool = tmp_path / "pool.csv"
    pool.write_text("text\n很好\n", encoding="utf-8")
    words = ["distill", "--teacher", "base", "--input_file", str(pool), "--output_file", str(tmp_path / "soft.jsonl")]
    with serve_fake(Behaviour()) as address:
        done = CliRunner().invoke(build_app(), [*words, "--engine", address])
        assert done.exit_code == 0, done.exception
        line = done.stdout.splitlines()[-1].removeprefix("Next: ")
        assert CliRunner().invoke(build_app(), shlex.split(line)[1:]).exit_code == 0, line


def test_a_teacher_without_answers_gives_one_message_and_leaves_no_files(tmp_path: Path) -> None:
    for _ in range(2):  # and it is asked again
        done, _ = ask_at_address(tmp_path, ["长" * 3000, "短" * 3000])
        assert isinstance(done.exception, EngineError)
        assert done.exception.exit_code == 2
        assert sorted(path.name for path in tmp_path.iterdir()) == ["pool.csv"]


@pytest.mark.slow
def test_a_teacher_is_asked_its_own_task_whatever_the_labels_of_the_texts(
    options: DistillOptions, repo_root: Path, three: Task
) -> None:
    own = load_task(repo_root / "examples" / "tasks" / "english_sentiment.yaml")
    write_model_task(own, options.teacher)
    (Path(options.input_files[0]).parent / "manifest.json").write_text(json.dumps({"task": record_task(three)}))
    facts = ask_teacher(replace(options, max_samples=2))
    assert facts["task"] == {**record_task(own), "source": "model", "where": options.teacher}
