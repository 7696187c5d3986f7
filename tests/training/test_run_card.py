"""The run card."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from sentifactory.corpus.leakage.leak_guard import LeakFinding
from sentifactory.system.fingerprint import hash_file
from sentifactory.system.hardware import measure_peak_memory
from sentifactory.task.task import BINARY_SENTIMENT
from sentifactory.task.task_file import describe_task
from sentifactory.training.recipe.recipe import Recipe
from sentifactory.training.run import run_card
from sentifactory.training.run.run_card import (
    begin_card,
    compute_fingerprint,
    describe_data,
    identify_code,
    identify_inputs,
    read_card,
    read_versions,
    write_card,
)


def test_fingerprint_depends_only_on_what_is_learnt() -> None:
    settings = {"learning_rate": 1e-4, "output_dir": "a", "overwrite_output_dir": True}
    data = [{"sha256": "0"}]
    first = compute_fingerprint(settings, data)
    assert compute_fingerprint({**settings, "output_dir": "b", "resume_from_checkpoint": "c"}, data) == first
    assert compute_fingerprint({**settings, "learning_rate": 2e-4}, data) != first
    assert compute_fingerprint({**settings, "seed": 1}, data) != first
    assert compute_fingerprint(settings, [{"sha256": "1"}]) != first


def test_each_input_of_a_run_has_its_own_hash(tmp_path: Path) -> None:
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"first")
    settings = {"learning_rate": 1e-4, "model_name_or_path": str(tmp_path)}
    first = identify_inputs(settings, [{"sha256": "0"}])

    def list_changed(*arguments: object) -> set[str]:
        found = identify_inputs(*arguments)  # type: ignore[arg-type]
        return {name for name in found if found[name] != first[name]}

    assert list_changed(settings, [{"sha256": "0"}]) == set()
    assert list_changed({**settings, "learning_rate": 2e-4}, [{"sha256": "0"}]) == {"recipe"}
    assert list_changed(settings, [{"sha256": "0"}], "label") == {"recipe"}
    assert list_changed(settings, [{"sha256": "1"}]) == {"data"}
    assert list_changed(settings, [{"sha256": "0", "class_weights": {"a": 2.0}}]) == {"data"}
    model.write_bytes(b"again, of another size")
    assert list_changed(settings, [{"sha256": "0"}]) == {"model"}


def test_code_and_packages_have_their_own_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    first = identify_code()
    monkeypatch.setattr(run_card, "read_versions", lambda: {"torch": "0"})
    again = identify_code()
    assert {name for name in first if first[name] != again[name]} == {"packages"}
    assert set(first) == {"code", "packages"}


def test_card_round_trip_and_broken_cards(tmp_path: Path) -> None:
    assert read_card(tmp_path) is None
    recipe = Recipe(Path("a.yaml"), ("seed=7",), {"seed": 7, "output_dir": str(tmp_path)})
    card = begin_card(recipe, recipe.settings, [], LeakFinding())
    write_card(tmp_path, card)
    assert read_card(tmp_path) == json.loads(json.dumps(card))
    assert (card["status"], card["seed"]) == ("running", 7)
    assert card["started_at"].endswith("+00:00")
    for broken in ("{", "[]", ""):
        (tmp_path / "run.json").write_text(broken)
        assert read_card(tmp_path) is None


def test_secrets_of_a_recipe_are_not_recorded(tmp_path: Path) -> None:
    settings = {"seed": 7, "swanlab_api_key": "s3cr3t-a", "hf_hub_token": "s3cr3t-b", "report_to": "swanlab"}
    recipe = Recipe(Path("a.yaml"), ("seed=7", "hf_hub_token=s3cr3t-b"), settings)
    write_card(tmp_path, begin_card(recipe, recipe.settings, [], LeakFinding()))
    assert "s3cr3t" not in (tmp_path / "run.json").read_text(encoding="utf-8")
    assert read_card(tmp_path)["recipe"]["report_to"] == "swanlab"
    # A new key is no other run.
    assert compute_fingerprint({**settings, "swanlab_api_key": "new"}, []) == compute_fingerprint(settings, [])


def test_data_files_are_hashed(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"{}\n" * 500_000)
    (tmp_path / "dataset_info.json").write_text(
        json.dumps({"a": {"file_name": "a.jsonl"}, "hub": {"hf_hub_url": "x"}})
    )
    (entry,) = describe_data({"dataset": "a, hub", "dataset_dir": str(tmp_path)})
    assert entry["sha256"] == hashlib.sha256(b"{}\n" * 500_000).hexdigest() == hash_file(tmp_path / "a.jsonl")
    assert (entry["dataset"], entry["bytes"]) == ("a", 1_500_000)
    assert describe_data({"dataset": "a", "dataset_dir": str(tmp_path / "none")}) == []


def test_machine_facts() -> None:
    assert {"python", "torch", "transformers", "llamafactory"} <= read_versions().keys()
    assert measure_peak_memory()["peak_rss_bytes"] > 10e6


def test_another_model_in_the_same_folder_is_another_run(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"first")
    settings = {"model_name_or_path": str(tmp_path)}
    first = compute_fingerprint(settings, [])
    (tmp_path / "run.json").write_text("{}")
    assert compute_fingerprint(settings, []) == first
    (tmp_path / "model.safetensors").write_bytes(b"again")
    again = compute_fingerprint(settings, [])
    (tmp_path / "tokenizer.json").write_text("{}")
    assert len({first, again, compute_fingerprint(settings, [])}) == 3


def test_another_task_in_the_same_file_is_another_run(tmp_path: Path) -> None:
    file = tmp_path / "task.yaml"
    settings = {"stage": "encoder", "task": str(file)}
    found = set()
    for labels in (("negative", "positive"), ("positive", "negative")):
        described = describe_task(replace(BINARY_SENTIMENT, name="own", labels=labels))
        file.write_text(yaml.safe_dump(described, allow_unicode=True), encoding="utf-8")
        found.add(compute_fingerprint(settings, []))
    assert len(found) == 2
