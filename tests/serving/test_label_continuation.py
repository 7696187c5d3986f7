"""`sentifactory label` goes on with a killed run only for the very model, task, input and options of that run."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from fake_openai_server import Behaviour, serve_fake
from tiny_models import build_tiny_bert
from typer.testing import CliRunner, Result

from sentifactory.cli import build_app
from sentifactory.errors import ConfigError
from sentifactory.metrics.calibration import Calibration, hash_prompt, save_calibration
from sentifactory.models.weights import hash_weights
from sentifactory.serving.labelling.resumable_output import ResumableOutput
from sentifactory.task.task import BINARY_SENTIMENT
from sentifactory.task.task_file import describe_task

ROWS = [(f"第{number}条很好", f"第{number}题差") for number in range(6)]


class Place:
    """A folder with an input, a model and a labelling that was killed before its end."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.source, self.out = folder / "in.csv", folder / "out.csv"
        self._monkeypatch = monkeypatch
        self.write_input(ROWS)

    def write_input(self, rows: list[tuple[str, str]]) -> None:
        with self.source.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([("text", "title"), *rows])

    def label(self, model: Path | str, *words: str) -> Result:
        command = ["label", str(self.source), str(self.out), "--model", str(model), *words]
        return CliRunner().invoke(build_app(), command)

    def begin(self, model: Path | str, *words: str) -> dict[str, bytes]:
        """Label until the output would be put into its place, and return what stands there then."""
        with self._monkeypatch.context() as killed:
            killed.setattr(ResumableOutput, "complete", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            assert self.label(model, *words).exit_code != 0
        left = self.read_left()
        assert sorted(name.split(".")[-2] for name in left) == ["bad", "journal", "rows"]
        return left

    def read_left(self) -> dict[str, bytes]:
        return {
            path.name: path.read_bytes()
            for path in self.folder.glob("*")
            if path.match("out.csv*") or path.match(".sentifactory-*")
        }


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, monkeypatch)


def make_model(folder: Path, seed: int = 0) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return build_tiny_bert(folder, seed=seed)


def calibrate(folder: Path, temperature: float) -> None:
    prompt = hash_prompt(BINARY_SENTIMENT)
    values = ("temperature", temperature, (0.0, 0.0), BINARY_SENTIMENT.name, prompt, None, 0.9, {})
    save_calibration(Calibration(*values, hash_weights(folder)), folder)


def ask_otherwise(place: Place) -> list[str]:
    path = place.folder / "task.yaml"
    asked = replace(BINARY_SENTIMENT, name="other_words", prompt_template="{text} 是好评吗？")
    path.write_text(yaml.safe_dump(describe_task(asked), allow_unicode=True), encoding="utf-8")
    return ["--task", str(path)]


def train_again(place: Place) -> list[str]:
    make_model(place.folder / "model", seed=1)
    return []


def give_other_tokenizer(place: Place) -> list[str]:
    file = place.folder / "model" / "vocab.txt"
    file.write_text(file.read_text(encoding="utf-8").replace("好", "差"), encoding="utf-8")
    return []


def calibrate_anew(place: Place) -> list[str]:
    calibrate(place.folder / "model", 2.0)
    return []


def change_input(place: Place) -> list[str]:
    place.write_input([*ROWS[:-1], ("换了一条", "别的")])
    return []


CHANGES: dict[str, Callable[[Place], list[str]]] = {
    "weights": train_again,
    "settings": give_other_tokenizer,
    "calibration": calibrate_anew,
    "task": ask_otherwise,
    "input": change_input,
    "text column": lambda place: ["--text_column", "title"],
    "threshold": lambda place: ["--threshold", "0.9"],
    "model": lambda place: ["--name", "another"],
}


@pytest.mark.slow
@pytest.mark.parametrize("what", CHANGES)
def test_whatever_decides_a_row_must_be_the_same(place: Place, what: str) -> None:
    model = make_model(place.folder / "model")
    left = place.begin(model)
    words = CHANGES[what](place)
    refused = place.label(model, *words)
    assert isinstance(refused.exception, ConfigError), refused.exception
    assert refused.exception.exit_code == 2
    assert what in refused.exception.what
    assert "--overwrite" not in refused.exception.next_step
    assert place.read_left() == left, "nothing is touched"
    anew = place.label(model, *words, "--overwrite")
    assert anew.exit_code == 0, anew.output
    assert set(place.read_left()) == {"out.csv"}


def test_another_model_of_the_same_name_is_another_model(place: Place) -> None:
    place.begin(make_model(place.folder / "model"))
    other = place.label(make_model(place.folder / "elsewhere" / "model", seed=1))
    assert isinstance(other.exception, ConfigError)
    assert "weights" in other.exception.what


@pytest.mark.slow
def test_the_same_model_goes_on_wherever_it_lies_and_calibrated_as_it_was(place: Place) -> None:
    model = make_model(place.folder / "model")
    calibrate(model, 2.0)
    place.begin(model)
    moved = place.folder / "elsewhere" / "model"
    moved.parent.mkdir()
    shutil.move(model, moved)
    done = place.label(moved)
    assert done.exit_code == 0, done.exception
    assert len(place.out.read_text(encoding="utf-8").splitlines()) == 1 + len(ROWS)


def test_tfidf_is_the_reviews_that_it_learns_from(place: Place) -> None:
    train = place.folder / "train.csv"
    train.write_text("text,label\n很好,1\n好极了,1\n太差,0\n很差,0\n", encoding="utf-8")
    left = place.begin(train)
    train.write_text("text,label\n很好,0\n好极了,0\n太差,1\n很差,1\n", encoding="utf-8")
    refused = place.label(train)
    assert isinstance(refused.exception, ConfigError)
    assert "training reviews" in refused.exception.what
    assert place.read_left() == left


def test_a_model_at_an_address_is_known_by_its_name(place: Place) -> None:
    with serve_fake(Behaviour()) as first, serve_fake(Behaviour()) as second:
        place.begin("base", "--vllm_url", first)
        other = place.label("tuned", "--vllm_url", first)
        assert isinstance(other.exception, ConfigError)
        same = place.label("base", "--vllm_url", second)
    assert same.exit_code == 0, same.exception


def test_a_journal_of_an_earlier_version_is_not_continued(place: Place) -> None:
    model = make_model(place.folder / "model")
    place.begin(model)
    journal = place.folder / "out.csv.journal.json"
    content = json.loads(journal.read_text(encoding="utf-8"))
    content["settings"] = {"input": content["settings"]["input"], "model": "model", "task": "binary_sentiment",
                           "engine": "encoder", "threshold": None, "calibration": None}  # fmt: skip
    journal.write_text(json.dumps(content), encoding="utf-8")
    refused = place.label(model)
    assert isinstance(refused.exception, ConfigError)
    assert "weights" in refused.exception.what
