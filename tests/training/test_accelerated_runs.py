"""Whole LLaMA-Factory runs with and without the accelerations: same losses, same gradients, same weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recorded_runs import GradientRecorder, read_weights

from sentifactory.training.acceleration.accelerations import ANSWER_LOGITS, FROZEN_LAYERS, LAST_LAYER, SHARED_PREFIX

pytestmark = pytest.mark.slow

DEMO = "train_freeze/gemma3_270m_freeze_demo.yaml"
REFERENCE = "train_freeze/qwen2_5_coder_1_5b_freeze_3k.yaml"
Run = Callable[..., dict[str, Any]]

# Two epochs of two steps.
WORDS = (
    "max_samples=12", "max_steps=4", "per_device_train_batch_size=3", "gradient_accumulation_steps=2",
    'save_strategy="no"', "eval_dataset=null", 'eval_strategy="no"', "freeze_trainable_layers=1", "warmup_steps=0",
    "learning_rate=1e-3",
)  # fmt: skip


def read_losses(card: dict[str, Any]) -> list[float]:
    return [entry["loss"] for entry in card["metrics"] if "loss" in entry]


def read_accelerations(card: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in card["accelerations"]}


def compare(run_recipe: Run, example: str, model: Path, *words: str) -> dict[str, dict[str, Any]]:
    """Run with and without accelerations, assert that both learn the same, and return the accelerations."""
    import torch

    stock, ours = GradientRecorder(), GradientRecorder()
    stock_card = run_recipe(example, model, *WORDS, *words, output="stock", is_accelerated=False, callbacks=[stock])
    our_card = run_recipe(example, model, *WORDS, *words, output="ours", callbacks=[ours])
    assert not any(entry["is_on"] for entry in stock_card["accelerations"])
    assert len(read_losses(stock_card)) == 4
    assert read_losses(our_card) == pytest.approx(read_losses(stock_card), abs=1e-5)
    for expected, found in zip(stock.steps, ours.steps, strict=True):
        assert expected.keys() == found.keys()
        for key, gradient in expected.items():
            assert torch.linalg.norm(found[key] - gradient) <= 1e-4 * torch.linalg.norm(gradient) + 1e-9, key
    return read_accelerations(our_card)


@pytest.mark.parametrize("checkpointing", ["true", "false"], ids=["plain", "checkpointing"])
@pytest.mark.parametrize("name", ["gemma", "qwen", "llama"])
def test_same_loss_and_gradients_as_stock(
    run_recipe: Run, request: pytest.FixtureRequest, name: str, checkpointing: str
) -> None:
    """LLaMA-Factory's batches, accumulation over two, two epochs."""
    model = request.getfixturevalue(f"small_{name}")
    words = [f"disable_gradient_checkpointing={checkpointing}", "template=gemma2", "cutoff_len=400"]
    found = compare(run_recipe, DEMO, model, *words)
    assert {key: entry["is_on"] for key, entry in found.items()} == dict.fromkeys(
        (ANSWER_LOGITS, FROZEN_LAYERS, SHARED_PREFIX, LAST_LAYER), True
    )
    assert found[LAST_LAYER]["batches"] == {"fast": 8, "stock": 0}
    assert found[FROZEN_LAYERS]["samples"] == {"taken": 12, "computed": 12}


def test_packed_reviews_use_the_stock_pass_and_report_it(
    run_recipe: Run, small_qwen: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found = compare(run_recipe, REFERENCE, small_qwen, "packing=true", "cutoff_len=320")
    assert found[ANSWER_LOGITS]["is_on"]
    shown = capfd.readouterr().err
    for name in (FROZEN_LAYERS, SHARED_PREFIX, LAST_LAYER):
        assert not found[name]["is_on"]
        assert f"off: {name} (several reviews are packed into one row)." in shown


def test_trainable_embeddings_share_only_the_prefix(run_recipe: Run, small_gemma: Path) -> None:
    found = compare(run_recipe, DEMO, small_gemma, "finetuning_type=full", "cutoff_len=400")
    assert {key: entry["is_on"] for key, entry in found.items()} == {
        ANSWER_LOGITS: True, FROZEN_LAYERS: False, SHARED_PREFIX: True, LAST_LAYER: True,
    }  # fmt: skip


def test_a_run_killed_in_its_second_epoch_ends_with_the_same_weights(
    run_recipe: Run, small_gemma: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with a cache of its own: the killed run continues on what it had written.

    By length: the trainer draws the order of an epoch from a generator that it does not bring back in time itself.
    """
    import torch

    words = [
        "max_samples=12", "max_steps=9", "save_steps=2", "per_device_train_batch_size=3", "freeze_trainable_layers=1",
        "train_sampling_strategy=group_by_length",
    ]  # fmt: skip
    run_recipe(DEMO, small_gemma, *words, output="whole")
    monkeypatch.setenv("SENTIFACTORY_CACHE_DIR", str(tmp_path / "second-cache"))
    with pytest.raises(KeyboardInterrupt):
        run_recipe(DEMO, small_gemma, *words, output="cut", callbacks=[GradientRecorder(stop_after=7)])
    card = run_recipe(DEMO, small_gemma, *words, output="cut")
    assert card["continued_from"] == str(tmp_path / "cut" / "checkpoint-6")
    assert read_accelerations(card)[FROZEN_LAYERS]["samples"] == {"taken": 9, "computed": 0}
    whole, continued = read_weights(tmp_path / "whole"), read_weights(tmp_path / "cut")
    assert whole.keys() == continued.keys() == read_weights(small_gemma).keys()
    assert all(torch.equal(whole[name], continued[name]) for name in whole)


def test_later_runs_use_only_matching_cache_entries(
    run_recipe: Run, small_gemma: Path, small_llama: Path, own_cache_folder: Path
) -> None:
    words = ["max_samples=6", "max_steps=2", "per_device_train_batch_size=3", 'save_strategy="no"']

    def count(model: Path, *more: str) -> tuple[int, int, int]:
        card = run_recipe(DEMO, model, *words, "freeze_trainable_layers=1", *more)
        samples = read_accelerations(card)[FROZEN_LAYERS]["samples"]
        return samples["taken"], samples["computed"], len(list((own_cache_folder / "trunk").glob("*.trunk")))

    assert count(small_gemma) == (0, 6, 1)
    assert count(small_gemma, "learning_rate=1e-5", "seed=7") == (6, 0, 1)
    assert count(small_gemma, "freeze_trainable_layers=2") == (0, 6, 2)
    assert count(small_llama, "template=gemma2") == (0, 6, 3)
    assert count(small_gemma, "template=qwen") == (0, 6, 4)  # other tokens, another prefix
    taken, computed, files = count(small_gemma, "cutoff_len=216")
    assert computed > 0
    assert (taken + computed, files) == (6, 4)
