"""The comparison of methods: its order, its table from scripted outcomes, and real runs on a tiny model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from small_split import prepare_split

from sentifactory.errors import ConfigError
from sentifactory.metrics.label_metrics import compute_metrics
from sentifactory.records import Review
from sentifactory.training.acceleration.answer_logits import MIXED
from sentifactory.training.recipe.recipe import Recipe
from sentifactory.training.sweep.trial import FAILED, FINISHED, run_trial
from sentifactory.training.sweep.trial_data import SplitFiles
from tools.benches import tuning_methods
from tools.benches.tuning_methods import compare_methods, order_runs, shuffle_in_batches
from tools.benches.tuning_methods_report import (
    METHODS,
    Method,
    MethodOptions,
    list_cells,
    report_methods,
    summarise_methods,
)

DEMO = Path("examples/train_freeze/gemma3_270m_freeze_demo.yaml")
# As Gemma's: LLaMA-Factory gives it to the models it trains, and the untrained one must be asked as well.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<start_of_turn>' + message['role'] + '\n' + message['content'] + "
    "'<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def write_outcome(right: int, seconds: float, gigabytes: float) -> dict[str, Any]:
    """Return the outcome of a scripted run of which `right` of 100 answers are right."""
    truth = [number % 2 for number in range(100)]
    answers = [label if number < right else 1 - label for number, label in enumerate(truth)]
    training = {"train_time_s": seconds, "peak_bytes": int(gigabytes * 1e9), "parameters": 42_000_000}
    metrics = compute_metrics(truth, answers, ("negative", "positive")).to_dict()
    return {"status": FINISHED, "error": None, "metrics": metrics, "training": training}


def test_table_of_scripted_outcomes(tmp_path: Path, repo_root: Path) -> None:
    outcomes = {
        "untuned": {42: {**write_outcome(50, 0, 0), "training": None}},
        "freeze_6": {42: write_outcome(80, 60, 2), 43: write_outcome(84, 90, 3), 44: write_outcome(85, 66, 2.5)},
        "lora": {42: write_outcome(70, 120, 4), 43: {"status": FAILED, "error": "No | memory"}},
        "full": {42: {"status": FAILED, "error": "No memory"}},
    }
    rows = summarise_methods(outcomes, 1e-4)
    assert [row["method"] for row in rows] == ["untuned", "freeze_6", "lora"]
    assert list_cells(rows[1]) == [
        "freeze, last 6 layers", "0.0001", "42.0 M", "83.0% (74.5 to 89.1)", "80.0%, 84.0%, 85.0%", "83.0%", "1.1 min",
        "1.0 min, 1.5 min, 1.1 min", "3.00 GB",
    ]  # fmt: skip
    assert list_cells(rows[0])[1:4] == ["–", "–", "50.0% (40.4 to 59.6)"]
    options = MethodOptions(repo_root / DEMO, output_dir=tmp_path)
    table = report_methods(options, outcomes)
    text = (tmp_path / "methods.md").read_text(encoding="utf-8")
    assert table in text
    assert "- lora, seed 43 failed: No \\| memory" in text
    assert json.loads((tmp_path / "methods.json").read_text(encoding="utf-8"))["rows"][2]["learning_rate"] == 3e-4
    assert (tmp_path / "methods.png").read_bytes()[1:4] == b"PNG"


def test_methods_take_turns_at_being_first() -> None:
    runs = list(order_runs(["freeze_2", "full", "lora"], 3))
    assert len(runs) == len(set(runs)) == 10
    assert [name for name, seed in runs[1::3]] == ["freeze_2", "full", "lora"]


def test_a_seed_changes_the_order_and_nothing_else() -> None:
    reviews = [Review(f"{'好' * (number % 9)}{number}", number % 2) for number in range(32)]
    orders = [shuffle_in_batches(reviews, 8, seed) for seed in (42, 42, 43)]
    assert orders[0] == orders[1] != orders[2]
    assert all(sorted(order, key=reviews.index) == reviews for order in orders)
    assert [sum(review.label or 0 for review in orders[0][at : at + 8]) for at in (0, 8, 16, 24)] == [4] * 4


def test_unknown_method() -> None:
    with pytest.raises(ConfigError, match="did you mean freeze_12"):
        compare_methods(MethodOptions(DEMO, methods=("freeze_13",)))
    with pytest.raises(ConfigError, match="No method is named"):
        compare_methods(MethodOptions(DEMO, methods=()))


@pytest.mark.slow
def test_real_runs_that_have_ended_are_kept(
    small_gemma: Path, repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = prepare_split(tmp_path)
    model = shutil.copytree(small_gemma, tmp_path / "model")
    (model / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    run: list[str] = []

    def run_here(folder: Path) -> dict[str, Any]:
        run.append(folder.name)
        return run_trial(folder)

    monkeypatch.setattr(tuning_methods, "run_trial_in_subprocess", run_here)
    words = (
        f"model_name_or_path={model}", f"dataset_dir={data}", "dataset=mine_train", "per_device_train_batch_size=4",
        "lora_alpha=4", "output_dir=unused",
    )  # fmt: skip
    lowest = Method("lowest layer", METHODS["freeze_2"].settings | {"freeze_trainable_layers": 1}, MIXED, layers=1)
    monkeypatch.setitem(METHODS, "lowest_1", lowest)
    options = MethodOptions(repo_root / DEMO, words, ("freeze_2", "lora", "lowest_1"), 16, 1, None, tmp_path / "bench")
    table = compare_methods(options)
    assert run == ["untuned-42", "freeze_2-42", "lora-42", "lowest_1-42"]
    figures = json.loads((tmp_path / "bench" / "methods.json").read_text(encoding="utf-8"))
    untuned, freeze, lora, lowest_1 = figures["rows"]
    assert lowest_1["parameters"] * 2 == freeze["parameters"]
    assert untuned["train_time_s"] is None
    assert freeze["parameters"] > lora["parameters"] > 0
    assert min(row["train_time_s"] for row in (freeze, lora, lowest_1)) > 0
    assert freeze["reviews"] == 8
    runs = tmp_path / "bench" / "methods"
    assert [path.parent.name for path in runs.rglob("*.safetensors")] == ["lowest_1"]
    cards = [json.loads((runs / name / "model" / "run.json").read_text()) for name in run[1:]]
    assert [card["speed"]["samples"] for card in cards] == [16, 16, 16]
    (runs / "lora-42" / "outcome.json").unlink()  # as if it had been killed
    assert compare_methods(options).splitlines()[:4] == table.splitlines()[:4]
    assert run[4:] == ["lora-42"]
    with pytest.raises(ConfigError, match="has other training reviews"):
        compare_methods(MethodOptions(repo_root / DEMO, words, ("lora",), 12, 1, None, tmp_path / "bench"))


def test_runs_from_another_model_in_the_same_folder_are_other_runs(tmp_path: Path) -> None:
    val, model = tmp_path / "val.csv", tmp_path / "model"
    val.write_text("text,label\n")
    model.mkdir()
    recipe = Recipe(tmp_path / "recipe.yaml", (), {"model_name_or_path": str(model)})
    split = SplitFiles(tmp_path / "train.jsonl", tmp_path / "train.csv", val, ())
    found = []
    for content in (b"first", b"again", b"again"):
        (model / "model.safetensors").write_bytes(content)
        found.append(tuning_methods.describe_runs(MethodOptions(recipe.path), recipe, split))
    assert found[0] != found[1] == found[2]
