"""`model probe`: hidden states, probes, the recommendation, and the command around them."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from sentifactory.cli import build_app
from sentifactory.errors import SentiFactoryError
from sentifactory.training.depth.depth_advice import advise_depth, summarise_layers
from sentifactory.training.depth.depth_probe import ProbeOptions, probe_depth
from sentifactory.training.depth.depth_report import suggest_cut
from sentifactory.training.depth.linear_probe import FOLDS, probe_layer_states

TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
PNG_HEAD = b"\x89PNG"


@pytest.fixture(scope="module")
def model(small_gemma: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of three layers that tells characters apart, with a chat template."""
    import torch
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("probed") / "model"
    shutil.copytree(small_gemma, folder)
    network = AutoModelForCausalLM.from_pretrained(small_gemma, sliding_window=4096)
    torch.manual_seed(0)
    # The embeddings of a vocabulary that was resized are all alike.
    torch.nn.init.normal_(network.get_input_embeddings().weight)
    network.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def write_csv(path: Path, rows: list[tuple[str, int]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("text", "label"), *rows])
    return path


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """Reviews whose characters give the label away, of many lengths."""
    rows = [(("差烂坏", "好棒赞")[number % 2] * (1 + number % 7) + f"{number:02}", number % 2) for number in range(60)]
    return write_csv(tmp_path / "reviews.csv", rows)


def test_a_probe_finds_what_is_there_and_nothing_else() -> None:
    dice = np.random.default_rng(0)
    labels = np.array([0, 1, 2] * 60)
    noise = dice.normal(size=(180, 40))
    told = noise.copy()
    told[np.arange(180), labels] += 6  # one direction each, among forty
    assert probe_layer_states(told * 1000, labels, 0).mean() > 0.95
    assert probe_layer_states(noise, labels, 0).mean() < 0.5
    assert probe_layer_states(np.ones((180, 4)), labels, 0).mean() < 0.5
    assert (probe_layer_states(told, labels, 3) == probe_layer_states(told, labels, 3)).all()


@pytest.mark.parametrize(
    ("correct", "majority_share", "keep", "train"),
    [
        ([150, 200, 240, 262, 264, 270, 268, 271, 265], 0.5, 6, 2),  # 271 - 300 x se = 266
        ([150, 152, 149, 160, 155], 0.5, None, None),
        ([280, 281, 282], 0.5, 1, 1),
        ([280, 281, 282], 0.93, None, None),  # always naming the commonest label is as good
        ([150, 160, 170, 180, 190, 200, 210, 220, 230, 240, 250, 280], 0.5, 12, 4),
    ],
)
def test_the_advice_keeps_the_fewest_layers_within_one_standard_error(
    correct: list[int], majority_share: float, keep: int | None, train: int | None
) -> None:
    advice = advise_depth(summarise_layers(correct, 300), 300, majority_share)
    assert (advice.keep_layers, advice.train_layers) == (keep, train)
    assert advice.best_layer == correct.index(max(correct)) + 1


@pytest.mark.slow
def test_noise_is_not_recommended_more_often_for_having_many_layers() -> None:
    layers = np.random.default_rng(0).binomial(300, 0.5, size=(100, 24))
    advised = [advise_depth(summarise_layers(row.tolist(), 300), 300, 0.5).keep_layers is not None for row in layers]
    assert np.mean(advised) < 0.05  # one of 24 independent layers is above the majority by chance in 40 of 100 models
    one = advise_depth(summarise_layers([169], 300), 300, 0.5)
    best_of_many = advise_depth(summarise_layers([150] * 23 + [169], 300), 300, 0.5)
    assert (one.keep_layers, best_of_many.keep_layers) == (1, None)


@pytest.mark.slow
def test_the_command_prints_a_table_or_json_and_draws(model: Path, reviews: Path, tmp_path: Path) -> None:
    words = ["model", "probe", str(model), "--csv_path", str(reviews)]
    done = CliRunner().invoke(build_app(), [*words, "--output_file", str(tmp_path / "a" / "probe.png"), "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert [one["layer"] for one in result["layers"]] == [1, 2, 3]
    assert result["reviews"]["asked"] == 60
    assert result["majority_share"] == 0.5
    assert result["checkpoint"]["weights"]
    assert all(one["interval"]["low"] <= one["accuracy"] <= one["interval"]["high"] for one in result["layers"])
    assert result["layers"][result["best_layer"] - 1]["accuracy"] > 0.9
    assert 1 <= result["train_layers"] <= result["keep_layers"] <= 3
    assert (tmp_path / "a" / "probe.png").read_bytes().startswith(PNG_HEAD)
    for _ in range(2):  # its own picture may be replaced
        done = CliRunner().invoke(build_app(), [*words, "--output_file", str(tmp_path / "probe.svg")])
        assert done.exit_code == 0, done.output
        assert (tmp_path / "probe.svg").read_text().startswith("<?xml")
    assert f"Keep {result['keep_layers']} of 3 layers" in done.stdout


def suggest(model: str, reviews: Path, *, keep: int | None, max_samples: int) -> list[str]:
    result = {"keep_layers": keep, "layers": [{}] * 3, "reviews": {"asked": 50, "available": 60}}
    return [shlex.split(one) for one in suggest_cut(result, model, str(reviews), None, max_samples, 7)][-1]


def test_the_command_after_a_probe_can_be_followed(model: Path, reviews: Path, tmp_path: Path) -> None:
    assert suggest(str(model), reviews, keep=2, max_samples=50)[1:3] == ["model", "cut"]
    more = suggest(str(model), reviews, keep=None, max_samples=50)
    assert (more[1:3], more[-4:]) == (["model", "probe"], ["--max_samples", "100", "--seed", "7"])
    other = shutil.copytree(model, tmp_path / "other")
    config = json.loads((other / "config.json").read_text(encoding="utf-8"))
    (other / "config.json").write_text(json.dumps({**config, "model_type": "mistral"}), encoding="utf-8")
    for cases in ((str(model), 3, 50), (str(model), None, 60), (str(other), 2, 50)):
        place, keep, most = cases
        assert suggest(place, reviews, keep=keep, max_samples=most)[1] == "data"


def test_a_stack_has_no_layers_of_its_own(model: Path, reviews: Path, tmp_path: Path) -> None:
    stack = tmp_path / "stack"
    shutil.copytree(model, stack / "model")
    facts = {
        "format_version": 1, "labels": ["negative", "positive"], "prompt_sha256": "", "tfidf_labels": [0, 1],
        "files": {}, "model": {}, "fitted_on": {},
    }  # fmt: skip
    (stack / "stack.json").write_text(json.dumps(facts), encoding="utf-8")
    found = catch(ProbeOptions(str(stack), str(reviews), None, 60, 42, None))
    assert found.code == "model-engine"
    assert str(stack / "model") in found.next_step


def catch(options: ProbeOptions) -> SentiFactoryError:
    with pytest.raises(SentiFactoryError) as caught:
        probe_depth(options)
    return caught.value


def test_what_cannot_be_probed_is_refused_before_a_model_is_loaded(
    model: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sentifactory.training.depth.depth_probe.TransformersEngine", None)
    few = write_csv(tmp_path / "few.csv", [(f"好{at}", int(at < FOLDS - 1)) for at in range(20)])
    one_sided = write_csv(tmp_path / "one_sided.csv", [(f"好{at}", 1) for at in range(20)])
    taken = tmp_path / "mine.png"
    taken.write_bytes(PNG_HEAD)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"csv_path": str(few)}, "probe-few-reviews"),
        ({"csv_path": str(one_sided)}, "probe-few-reviews"),
        ({"max_samples": 6}, "probe-few-reviews"),
        ({"output_file": tmp_path / "probe.pdf"}, "probe-picture"),
        ({"output_file": taken}, "output-exists"),
    ]
    for changes, code in cases:
        assert catch(ProbeOptions(**{"model": str(model), "csv_path": str(reviews)} | changes)).code == code
    assert taken.read_bytes() == PNG_HEAD
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    assert catch(ProbeOptions(str(adapter), str(reviews))).code == "model-adapter"
