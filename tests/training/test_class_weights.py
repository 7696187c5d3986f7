"""Data prepared with `--balance weights` weight the labels in the loss; the reference is plain PyTorch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_models import build_tiny_bert

from sentifactory.corpus.prepare import prepare_reviews
from sentifactory.errors import ConfigError
from sentifactory.training.recipe.recipe import load_recipe

pytestmark = pytest.mark.slow

RECIPE = "train_freeze/reference/qwen2_5_coder_1_5b_freeze_tutorial.yaml"
# One step over all reviews, in more batches than one, the last of which is not full.
WORDS = (
    "dataset=case_train", "template=qwen", "max_steps=1", 'save_strategy="no"', 'eval_strategy="no"', "val_size=0",
    "per_device_train_batch_size=4", "gradient_accumulation_steps=100",
)  # fmt: skip
GOOD = "很好太差再也来值得购买房间干净服务热情失望书内容错屏幕"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three times as many positive reviews as negative ones, prepared with weights."""
    folder = tmp_path_factory.mktemp("weighed")
    cuts = [slice(number % 20, number % 20 + 4 + number % 5) for number in range(40)]
    rows = [(f"{GOOD[cut]}{number}", int(number % 4 > 0)) for number, cut in enumerate(cuts)]
    (folder / "in.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    prepare_reviews(
        str(folder / "in.csv"), name="case", output_dir=folder / "data", balance="weights", val_size=4, test_size=4
    )
    return folder / "data"


@pytest.fixture(scope="module")
def model(small_qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that is far more confident of one label than of the other, right or wrong."""
    import shutil

    import torch
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("sure")
    shutil.copytree(small_qwen, folder, dirs_exist_ok=True)
    network = AutoModelForCausalLM.from_pretrained(small_qwen, dtype=torch.float32)
    with torch.no_grad():
        torch.manual_seed(0)  # the rows of its tokens are alike, and so would be the losses of its labels
        network.get_output_embeddings().weight.normal_(0, 0.5)
    network.save_pretrained(folder)
    return folder


def read_weights(data: Path) -> dict[str, float]:
    weights: dict[str, float] = json.loads((data / "case" / "manifest.json").read_text())["class_weights"]["train"]
    return weights


def compute_plainly(
    model: Path, data: Path, recipe: Path, words: list[str], loss: str, *, is_weighted: bool = True
) -> float:
    """Return the loss of all samples by PyTorch alone, on the tokens that LLaMA-Factory makes."""
    import torch
    from torch.nn.functional import cross_entropy
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from sentifactory.training.llamafactory.dry_run import prepare_run

    _, _, found = prepare_run(load_recipe(recipe, words), {})
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    by_digit = dict(zip("01", read_weights(data).values(), strict=True))
    total, n_tokens = 0.0, 0
    drawn: list[bool] = []
    for sample in found["train_dataset"]:
        ids = torch.tensor([sample["input_ids"]])
        with torch.no_grad():
            logits = network(input_ids=ids).logits[0]
        prompt_start, is_whole = 0, loss == "answer"
        for place in range(1, ids.shape[1]):
            before, token = sample["labels"][place - 1 : place + 1]
            if token == -100:
                prompt_start = place if before != -100 else prompt_start
                continue
            if before == -100 and loss == "mixed":
                is_whole = draw_whole_answer(sample["input_ids"][prompt_start:place])
                drawn.append(is_whole)
            letter = tokenizer.decode([token])
            is_label = letter in by_digit
            if not is_label and not is_whole:
                continue
            weight = by_digit[letter] if is_label and is_weighted else 1.0
            total += weight * float(cross_entropy(logits[place - 1][None], torch.tensor([token])))
            n_tokens += 1
    assert loss != "mixed" or 1 <= sum(drawn) <= len(drawn) / 4
    return total / n_tokens


def draw_whole_answer(prompt: list[int]) -> bool:
    """Return whether a review learns its whole answer, by the definition in the run card."""
    content = b"".join(token.to_bytes(8, "little") for token in prompt)
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little") % 10 == 0


@pytest.mark.parametrize(
    ("loss", "is_packed"), [("answer", False), ("label", False), ("mixed", False), ("mixed", True)]
)
def test_the_loss_is_that_of_a_plain_computation_accelerated_or_not(
    run_recipe: Callable[..., dict[str, Any]],
    repo_root: Path,
    model: Path,
    data: Path,
    tmp_path: Path,
    loss: str,
    is_packed: bool,
) -> None:
    packing = ["packing=true", "cutoff_len=1000"] if is_packed else []
    words = [*WORDS, f"dataset_dir={data}", *packing]
    cards = [
        run_recipe(RECIPE, model, *words, output=f"out{on}", loss=loss, is_accelerated=on) for on in (True, False)
    ]
    own = [f"model_name_or_path={model}", f"output_dir={tmp_path / 'plain'}", "use_cpu=true", "bf16=false"]
    given = (model, data, repo_root / "examples" / RECIPE, [*words, *own], loss)
    expected = compute_plainly(*given)
    assert abs(expected / compute_plainly(*given, is_weighted=False) - 1) > 0.003  # told apart below
    weights = read_weights(data)
    assert weights["negative"] > 1.5 > 1 > weights["positive"]
    for card in cards:
        assert card["class_weights"] == weights
        assert card["metrics"][0]["loss"] == pytest.approx(expected, rel=2e-4)
    assert cards[0]["accelerations"][0]["is_on"]
    assert cards[1]["metrics"][0]["grad_norm"] == pytest.approx(cards[0]["metrics"][0]["grad_norm"], rel=1e-3)


def test_the_same_data_without_weights_have_another_loss_and_fingerprint(
    run_recipe: Callable[..., dict[str, Any]], model: Path, data: Path, tmp_path: Path
) -> None:
    import shutil

    with_weights = run_recipe(RECIPE, model, *WORDS, f"dataset_dir={data}", loss="label")
    shutil.copytree(data, tmp_path / "data")
    manifest = tmp_path / "data" / "case" / "manifest.json"
    content = json.loads(manifest.read_text())
    del content["class_weights"]
    manifest.write_text(json.dumps(content))
    without = run_recipe(RECIPE, model, *WORDS, f"dataset_dir={tmp_path / 'data'}", loss="label", output="other")
    assert without["class_weights"] is None
    assert abs(without["metrics"][0]["loss"] / with_weights["metrics"][0]["loss"] - 1) > 0.02
    assert without["fingerprint"] != with_weights["fingerprint"]


def test_a_run_that_cannot_use_the_weights_does_not_start(
    run_recipe: Callable[..., dict[str, Any]], model: Path, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="label_smoothing_factor"):
        run_recipe(RECIPE, model, *WORDS, f"dataset_dir={data}", "label_smoothing_factor=0.1")
    assert not (tmp_path / "out").exists()


def test_an_encoder_uses_them_unless_its_recipe_sets_others(data: Path, tmp_path: Path) -> None:
    import csv

    import numpy as np
    from sklearn.utils.class_weight import compute_class_weight

    from sentifactory.training.encoder.train_encoder import train_encoder

    (tmp_path / "bert").mkdir()
    build_tiny_bert(tmp_path / "bert")
    recipe = tmp_path / "encoder.yaml"
    recipe.write_text(
        f"stage: encoder\nmodel_name_or_path: {tmp_path / 'bert'}\ndataset: {data / 'case' / 'train.csv'}\n"
        "max_steps: 2\nlogging_steps: 1\nhead_dropout: 0.0\nuse_cpu: true\n"
    )

    def train(*words: str) -> dict[str, Any]:
        return train_encoder(load_recipe(recipe, [f"output_dir={tmp_path / '-'.join(['out', *words])}", *words]))

    own, balanced, none = (train(*words) for words in ((), ("class_weights=balanced",), ("class_weights=none",)))
    with (data / "case" / "train.csv").open(encoding="utf-8", newline="") as stream:
        labels = [row["label"] for row in csv.DictReader(stream)]
    names = sorted(set(labels))
    expected = compute_class_weight("balanced", classes=np.array(names), y=labels)
    assert list(own["class_weights"].values()) == pytest.approx(list(expected))
    assert own["metrics"][0]["loss"] == pytest.approx(balanced["metrics"][0]["loss"])
    assert none["class_weights"] is None
    assert abs(none["metrics"][0]["loss"] - own["metrics"][0]["loss"]) > 1e-5
