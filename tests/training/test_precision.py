"""bf16 on CPUs: who chooses it, that a continued run keeps it, and that losses stay within its rounding error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recorded_runs import GradientRecorder

from sentifactory.system import hardware
from sentifactory.training.recipe import precision
from sentifactory.training.recipe.precision import choose_precision
from sentifactory.training.recipe.recipe import Recipe
from sentifactory.training.run.run_card import compute_fingerprint, is_trained

DEMO = "train_freeze/gemma3_270m_freeze_demo.yaml"
Run = Callable[..., dict[str, Any]]


def use_processor(monkeypatch: pytest.MonkeyPatch, instructions: str | None) -> None:
    monkeypatch.setattr(precision, "find_bf16_instructions", lambda: instructions)


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        ({"avx2", "avx512f", "avx512_vnni"}, None),
        ({"avx2", "avx512f", "avx512_bf16"}, "avx512_bf16"),
        ({"avx512_bf16", "amx_bf16", "amx_tile"}, "amx_bf16"),
        (set(), None),
    ],
)
def test_only_processors_that_gain_are_named(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], found: str | None
) -> None:
    monkeypatch.setattr(hardware, "read_processor_flags", lambda: frozenset(flags))
    assert hardware.find_bf16_instructions() == found


@pytest.mark.parametrize(
    ("settings", "instructions", "products", "chosen_by"),
    [
        ({"use_cpu": True}, "avx512_bf16", "bf16", "processor"),
        ({"use_cpu": True}, None, "float32", "processor"),
        ({"use_cpu": True, "bf16": False}, "avx512_bf16", "float32", "recipe"),
        ({"use_cpu": True, "fp16": True}, "avx512_bf16", "fp16", "recipe"),
        ({"use_cpu": True, "bf16": True}, None, "bf16", "recipe"),
        ({}, "avx512_bf16", "float32", "recipe"),
        ({"use_cpu": True, "stage": "dpo"}, "avx512_bf16", "float32", "recipe"),
    ],
)
def test_the_processor_decides_only_what_the_recipe_leaves_open(
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    instructions: str | None,
    products: str,
    chosen_by: str,
) -> None:
    use_processor(monkeypatch, instructions)
    recipe, entry = choose_precision(Recipe(Path("a.yaml"), settings=settings))
    assert entry == {"matrix_products": products, "chosen_by": chosen_by}
    assert recipe.settings == settings | ({"bf16": True} if products == "bf16" else {})
    stock, entry = choose_precision(Recipe(Path("a.yaml"), settings=settings), is_automatic=False)
    assert stock.settings == settings
    assert entry["matrix_products"] == (products if chosen_by == "recipe" else "float32")


@pytest.mark.parametrize("was_bf16", [False, True])
def test_a_continued_run_keeps_its_precision_on_another_processor(
    monkeypatch: pytest.MonkeyPatch, was_bf16: bool
) -> None:
    use_processor(monkeypatch, None if was_bf16 else "amx_bf16")
    settings = {"use_cpu": True, "learning_rate": 1e-4}
    begun = settings | ({"bf16": True} if was_bf16 else {})
    recipe = Recipe(Path("a.yaml"), settings=settings)
    former = {"recipe": begun, "fingerprint": json.dumps(begun), "status": "interrupted"}
    kept, entry = choose_precision(recipe, former, json.dumps)
    assert (kept.settings, entry["chosen_by"]) == (begun, "continued run")
    # The card of another recipe in the same folder decides nothing, unless the recipe names its checkpoint.
    other = {**former, "fingerprint": "other"}
    assert choose_precision(recipe, other, json.dumps)[1]["chosen_by"] == "processor"
    assert choose_precision(recipe, other)[0].settings == begun


def test_precision_is_part_of_the_fingerprint_and_a_finished_run_of_either_counts(tmp_path: Path) -> None:
    settings = {"use_cpu": True, "output_dir": str(tmp_path)}
    bf16 = compute_fingerprint({**settings, "bf16": True}, [])
    assert bf16 != compute_fingerprint(settings, [])
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "run.json").write_text(json.dumps({"status": "finished", "fingerprint": bf16}), encoding="utf-8")
    assert is_trained(Recipe(Path("a.yaml"), settings=settings))
    assert not is_trained(Recipe(Path("a.yaml"), settings={**settings, "bf16": False}))


@pytest.fixture(scope="module")
def apt_gemma(small_gemma: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small Gemma with larger embeddings, so that its logits can tell tokens apart."""
    import shutil

    import torch
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("apt")
    shutil.copytree(small_gemma, folder, dirs_exist_ok=True)
    model = AutoModelForCausalLM.from_pretrained(small_gemma, dtype=torch.float32)
    with torch.no_grad():
        torch.manual_seed(0)
        model.get_input_embeddings().weight.normal_(0, 0.3)
    model.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_losses_stay_within_the_rounding_error_for_fifty_steps(
    run_recipe: Run, apt_gemma: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from safetensors.torch import load_file

    monkeypatch.setenv("SENTIFACTORY_CACHE_DIR", str(tmp_path / "cache"))
    words = ["max_steps=50", "save_steps=50", "per_device_train_batch_size=4", "freeze_trainable_layers=2",
             "learning_rate=1e-3"]  # fmt: skip
    recorders = [GradientRecorder() for _ in range(3)]
    full, fast, stock = (
        run_recipe(DEMO, apt_gemma, *words, f"bf16={bf16}", output=name, callbacks=[recorder], is_accelerated=on)
        for name, bf16, on, recorder in zip(
            ("full", "fast", "stock"), ("false", "true", "true"), (True, True, False), recorders, strict=True
        )
    )
    losses = torch.tensor([[e["loss"] for e in card["metrics"] if "loss" in e] for card in (full, fast, stock)])
    assert losses.shape == (3, 50)
    assert losses[0, 0] - losses[0, -10:].mean() > 0.2  # it learns
    # bf16 has 8 bits: a rounding error of 2^-9.
    error = (losses[1:] / losses[0] - 1).abs()
    assert float(error.mean()) < 2**-9
    assert float(error.max()) < 2**-7
    first = [recorder.steps[0] for recorder in recorders]
    for name, expected in first[0].items():
        for other in first[1:]:
            assert other[name].dtype == torch.float32
            assert torch.linalg.norm(other[name] - expected) <= 0.1 * torch.linalg.norm(expected), name
    weights = load_file(tmp_path / "fast" / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float32}
    base = load_file(apt_gemma / "model.safetensors")
    assert all(torch.equal(weights[name], base[name]) for name in weights if ".layers.0." in name)
    assert {card["precision"]["matrix_products"] for card in (fast, stock)} == {"bf16"}
    assert {entry["name"] for entry in fast["accelerations"] if entry["is_on"]} > {"answer-only last layer"}
    # The frozen layers' output in float32 and in bf16 are different files.
    assert len(list((tmp_path / "cache").rglob("*.trunk"))) == 2


@pytest.mark.slow
def test_rounding_the_projection_once_changes_no_bit(run_recipe: Run, small_gemma: Path) -> None:
    import torch

    from sentifactory.training.acceleration import accelerations

    words = ["max_steps=3", 'save_strategy="no"', "per_device_train_batch_size=4", "bf16=true"]
    recorders = GradientRecorder(), GradientRecorder()
    once = run_recipe(DEMO, small_gemma, *words, output="once", callbacks=[recorders[0]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accelerations, "cast_projection_once", lambda causal: False)
        always = run_recipe(DEMO, small_gemma, *words, output="always", callbacks=[recorders[1]])
    names = [{entry["name"] for entry in card["accelerations"]} for card in (once, always)]
    assert names[0] - names[1] == {accelerations.ROUNDED_PROJECTION}
    for one, other in zip(recorders[0].steps, recorders[1].steps, strict=True):
        assert all(torch.equal(value, other[name]) for name, value in one.items())
