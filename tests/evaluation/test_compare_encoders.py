"""Encoders take part like any model: in a comparison with calibration, and on the ladder, each an entry of its own."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from scripted_comparison import write_reviews
from tiny_models import build_tiny_bert

from sentifactory.errors import ConfigError
from sentifactory.evaluation.compare import run_comparison
from sentifactory.evaluation.compare_options import CompareOptions
from sentifactory.evaluation.ladder import ladder
from sentifactory.evaluation.ladder.ladder import LadderOptions, run_entry, run_ladder

pytestmark = pytest.mark.slow


def make_rows(n: int, seed: int) -> list[tuple[int, str]]:
    dice = random.Random(seed)
    words = ("差劲失望糟糕", "满意喜欢漂亮")
    return [(row % 2, "".join(dice.choices(words[row % 2] + "房间书", k=9)) + f"{seed}{row}") for row in range(n)]


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two classifiers with random heads that differ."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed

    headless = build_tiny_bert(tmp_path_factory.mktemp("tiny_bert"))
    folders = []
    for seed in (1, 2):
        folder = tmp_path_factory.mktemp(f"encoder{seed}")
        set_seed(seed)
        labels = {0: "negative", 1: "positive"}
        AutoModelForSequenceClassification.from_pretrained(headless, id2label=labels).save_pretrained(folder)
        AutoTokenizer.from_pretrained(headless).save_pretrained(folder)
        folders.append(folder)
    return folders


def make_options(folder: Path, encoders: list[Path], **changes: Any) -> CompareOptions:
    test = write_reviews(folder / "test.csv", make_rows(40, 2))
    val = write_reviews(folder / "val.csv", make_rows(60, 3))
    values: dict[str, Any] = {
        "csv_path": str(test), "val_path": str(val),
        "base_model": str(encoders[0]), "finetuned_model": str(encoders[1]), "engine": "auto", "mode": "score",
        "output_file": str(folder / "report.json"),
    }  # fmt: skip
    return CompareOptions(**{**values, **changes})


def test_two_encoders_are_compared_and_calibrated(tmp_path: Path, encoders: list[Path]) -> None:
    report = run_comparison(make_options(tmp_path, encoders))
    assert report["settings"]["engines"] == {"base": "encoder", "tuned": "encoder"}
    for side in ("base", "tuned"):
        assert report["models"][side]["metrics"]["unparsed"] == 0
        assert report["models"][side]["probability"] is not None
    assert all((folder / "calibration.json").is_file() for folder in encoders)


def test_an_encoder_without_a_classifier_is_no_baseline(tmp_path: Path, encoders: list[Path]) -> None:
    (tmp_path / "headless").mkdir()
    headless = build_tiny_bert(tmp_path / "headless")
    report = run_comparison(make_options(tmp_path, encoders, base_model=str(headless)))
    assert report["models"]["base"]["has_random_head"]
    assert report["verdict"]["base_doubt"]["reason"] == "random-head"
    assert report["verdict"]["base_doubt"]["sentence"] in report["warnings"]
    assert "has_random_head" not in report["models"]["tuned"]
    assert '<span class="doubt">' in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_another_mode_is_refused_before_anything_is_read(tmp_path: Path, encoders: list[Path]) -> None:
    with pytest.raises(ConfigError, match=r"no mode 'generate'.*--mode score"):
        run_comparison(make_options(tmp_path, encoders, mode="generate"))


def test_every_encoder_is_an_entry(tmp_path: Path, encoders: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ladder, "run_in_own_process", lambda key, inputs: (run_entry(key, inputs), 1))
    write_reviews(tmp_path / "test.csv", make_rows(40, 2))
    write_reviews(tmp_path / "train.csv", make_rows(100, 1))
    options = {"csv_path": str(tmp_path / "test.csv"), "train_csv": str(tmp_path / "train.csv")}
    missing = str(tmp_path / "nowhere")
    found = run_ladder(LadderOptions(**options, encoder_models=(*map(str, encoders), missing)))["rungs"]
    assert list(found)[2:5] == ["encoder_1", "encoder_2", "encoder_3"]
    for key, folder in zip(("encoder_1", "encoder_2"), encoders, strict=True):
        assert found[key]["title"]["en"] == f"Encoder, {folder.name}"
        assert found[key]["metrics"]["reviews"] == 40
        assert found[key]["ece_equal_mass"] is not None
        assert found[key]["size_bytes"] > 10_000
    assert "This model folder does not exist" in found["encoder_3"]["missing"]["en"]
    alone = run_ladder(LadderOptions(**options, encoder_models=(str(encoders[0]),)))["rungs"]["encoder"]
    assert alone["metrics"]["accuracy"] == found["encoder_1"]["metrics"]["accuracy"]


def test_a_calibration_that_cannot_be_used_is_found_before_anything_is_asked(
    tmp_path: Path, encoders: list[Path]
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(encoders[0], broken)
    (broken / "calibration.json").write_text("{}")
    few = write_reviews(tmp_path / "few.csv", make_rows(20, 4))
    for changes in ({"base_model": str(broken), "val_path": None}, {"val_path": str(few)}):
        with pytest.raises(ConfigError):
            run_comparison(make_options(tmp_path, encoders, **changes))
        assert not list(tmp_path.glob("report*"))
