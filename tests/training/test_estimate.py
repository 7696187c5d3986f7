"""The estimate before a run, compared with what torch counts in the run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from sentifactory.cli import build_app
from sentifactory.errors import ConfigError
from sentifactory.system.hardware import count_unread_bytes
from sentifactory.training.acceleration.accelerations import AccelerationPlan
from sentifactory.training.estimate import layer_probe
from sentifactory.training.estimate.estimate import compare_with_run, summarise_comparison
from sentifactory.training.estimate.memory_estimate import count_optimizer_copies
from sentifactory.training.estimate.operation_count import LayerSizes, ModelSizes, count_batches, make_batches
from sentifactory.training.recipe import recipe_checks
from sentifactory.training.run.progress_callback import BaseCallback

DEMO = "train_freeze/gemma3_270m_freeze_demo.yaml"
LORA = "train_lora/qwen2_5_coder_1_5b_lora.yaml"
FULL = "train_full/qwen2_5_coder_1_5b_full.yaml"
QLORA = "train_qlora/qwen2_5_coder_1_5b_qlora_bnb.yaml"
# Two epochs of two steps, in the order of the reviews.
WORDS = (
    "max_samples=12", "max_steps=4", "per_device_train_batch_size=3", "gradient_accumulation_steps=2",
    'save_strategy="no"', 'eval_strategy="no"', "eval_dataset=null", "disable_shuffling=true",
    "train_sampling_strategy=sequential", "cutoff_len=400", "use_cpu=true", "bf16=false", "freeze_trainable_layers=1",
    "preprocessing_num_workers=1",
)  # fmt: skip
Run = Callable[..., dict[str, Any]]


class RunCounter(BaseCallback):
    """Counts operations by torch, and the bytes that the trainer holds."""

    def __init__(self) -> None:
        self.operations = 0
        self.bytes: dict[str, int] = {}
        self._counter: Any = None

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        from tools.benches.train_steps import count_operations

        self._counter = count_operations()
        self._counter.__enter__()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._counter.__exit__(None, None, None)
        self.operations += self._counter.get_total_flops()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, *, model: Any, **kwargs: Any) -> None:
        gradients = [value.grad for value in model.parameters() if value.grad is not None]
        self.bytes["gradients"] = sum(value.nbytes for value in gradients)

    def on_train_end(self, args: Any, state: Any, control: Any, *, model: Any, optimizer: Any, **kwargs: Any) -> None:
        self.bytes["weights"] = sum(value.nbytes for value in model.parameters())
        states = (value for entry in optimizer.state.values() for value in entry.values())
        self.bytes["optimizer"] = sum(value.nbytes for value in states if value.dim() > 0)


def estimate_dry(
    repo_root: Path, example: str, model: Path, data: Path, *words: str, **options: Any
) -> dict[str, Any]:
    from sentifactory.training.llamafactory.dry_run import estimate_recipe

    places = [f"model_name_or_path={model}", f"dataset_dir={data}", "output_dir=/nowhere/out"]
    return estimate_recipe(repo_root / "examples" / example, [*places, *words], **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("example", "name", "words", "is_accelerated"),
    [
        (DEMO, "gemma", (), True),
        (DEMO, "gemma", ("template=gemma2",), False),
        (LORA, "qwen", (), True),
        (FULL, "qwen", ("disable_gradient_checkpointing=true",), True),
    ],
    ids=["freeze", "freeze-stock", "lora-checkpointed", "full"],
)
def test_counts_equal_those_of_the_run(
    run_recipe: Run,
    request: pytest.FixtureRequest,
    repo_root: Path,
    review_data: Path,
    example: str,
    name: str,
    words: tuple[str, ...],
    is_accelerated: bool,
) -> None:
    model = request.getfixturevalue(f"small_{name}")
    counter = RunCounter()
    card = run_recipe(example, model, *WORDS, *words, is_accelerated=is_accelerated, callbacks=[counter])
    estimate = card["estimate"]
    assert estimate["operations"] == pytest.approx(counter.operations, rel=0.05)
    assert {key: estimate["memory"][key] for key in counter.bytes} == counter.bytes
    assert (estimate["steps"], estimate["epochs"]) == (4, 2.0)

    found = estimate_dry(repo_root, example, model, review_data, *WORDS, *words, is_accelerated=is_accelerated)
    for key in ("operations", "stock_operations", "steps", "reviews", "tokens"):
        assert found["estimate"][key] == estimate[key], key
    for key in ("weights", "gradients", "optimizer", "logits"):
        assert found["estimate"]["memory"][key] == estimate["memory"][key], key
    assert found["parameters"] == card["parameters"]
    assert [entry["is_on"] for entry in found["accelerations"]] == [entry["is_on"] for entry in card["accelerations"]]
    if is_accelerated:
        assert found["estimate"]["operations"] < found["estimate"]["stock_operations"]

    compared = card["estimate"]["compared"]
    assert compared["train_time_s"]["happened"] == card["speed"]["train_time_s"]
    assert compared["train_time_s"]["estimated"] == pytest.approx(estimate["train_time_s"], abs=1e-3)
    assert compared["peak_bytes"]["estimated"] == estimate["memory"]["peak"]


@pytest.mark.slow
def test_packed_weights_are_counted_as_bitsandbytes_stores_them(
    repo_root: Path, review_data: Path, small_qwen: Path
) -> None:
    import torch
    from bitsandbytes.nn import Linear4bit
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    found = estimate_dry(repo_root, QLORA, small_qwen, review_data, *WORDS)
    settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_use_double_quant=True, bnb_4bit_quant_type="nf4")
    model = AutoModelForCausalLM.from_pretrained(
        small_qwen, quantization_config=settings, device_map="cpu", dtype=torch.float32
    )
    real = sum(value.nbytes for value in model.parameters())
    for layer in model.modules():
        if isinstance(layer, Linear4bit):
            real += layer.weight.quant_state.absmax.nbytes + layer.weight.quant_state.state2.absmax.nbytes
    adapters = 4 * found["parameters"]["trainable"]
    assert found["estimate"]["memory"]["weights"] - adapters == pytest.approx(real, rel=0.03)


def test_a_slow_machine_is_measured_by_fewer_runs(monkeypatch) -> None:
    import torch

    runs: list[float] = []
    clock = iter(range(0, 1000, 5))
    monkeypatch.setattr(layer_probe.time, "perf_counter", lambda: float(next(clock)))
    assert layer_probe._time(lambda: runs.append(1.0), torch.device("cpu")) == 5.0
    assert len(runs) == 2
    clock = iter(range(1000))
    assert layer_probe._time(lambda: runs.append(1.0), torch.device("cpu")) == 1.0
    assert len(runs) == 2 + 4


@pytest.mark.slow
def test_activations_equal_those_of_a_real_pass(small_gemma: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(small_gemma)
    state = torch.random.get_rng_state()
    probe = layer_probe.probe_layer(model, torch.device("cpu"), torch.float32, 100, lambda samples, length: 1e6)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert probe.operations_per_s > 0
    weights = {value.untyped_storage().data_ptr() for value in (*model.parameters(), *model.buffers())}
    kept = {}

    def note(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage  # held, so that its place is not given to another
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model.model(input_ids=torch.randint(7, 200, (5, 80)), use_cache=False)
    real = sum(storage.nbytes() for storage in kept.values())
    assert 3 * (probe.kept_bytes + probe.kept_bytes_per_token * 400) == pytest.approx(real, rel=0.15)


@pytest.mark.slow
def test_dry_run_needs_no_weights_and_writes_nothing(
    repo_root: Path, review_data: Path, small_gemma: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(small_gemma, model)
    (model / "model.safetensors").unlink()
    before = sorted(tmp_path.rglob("*"))
    words = [
        "train", str(repo_root / "examples" / DEMO), f"model_name_or_path={model}", f"dataset_dir={review_data}",
        f"output_dir={tmp_path / 'out'}", *WORDS, "--dry_run",
    ]  # fmt: skip
    runner = CliRunner()
    shown = runner.invoke(build_app(), [*words, "--json"], catch_exceptions=False)
    found = json.loads(shown.stdout)
    assert (shown.exit_code, found["fits"], found["estimate"]["steps"]) == (0, True, 4)
    table = runner.invoke(build_app(), [*words, "--processes", "2", "--verbose"], catch_exceptions=False).stdout
    for part in ("(model.layers.2.*)", "time of all steps", "activations", "4 (2.00 epochs)", "--processes 2 --verb"):
        assert part in table, part
    # `own_cache_folder` is ours; nothing was opened in it either.
    assert [path for path in sorted(tmp_path.rglob("*")) if path not in before] == []


def test_a_bad_recipe_is_refused_before_anything_is_measured(
    repo_root: Path, review_data: Path, small_gemma: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(recipe_checks._TRACKERS, "wandb", ("no_such_module",))
    with pytest.raises(ConfigError, match="nothing is not registered"):
        estimate_dry(repo_root, DEMO, small_gemma, review_data, "dataset=nothing")
    with pytest.raises(ConfigError, match=r"report_to \(command line\): wandb is not installed"):
        estimate_dry(repo_root, DEMO, small_gemma, review_data, "report_to=wandb")


@pytest.mark.slow
@pytest.mark.parametrize(
    "row",
    [
        '{"messages": [{"role": "user", "content": "',
        '{"messages": [{"role": "user", "content": ["好"]}, {"role": "assistant", "content": "1"}]}',
    ],
)
def test_rows_that_the_libraries_reject_give_one_message(
    row: str, repo_root: Path, small_gemma: Path, tmp_path: Path
) -> None:
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    entry = {"file_name": "mine.jsonl", "formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": tags}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"mine": entry}), encoding="utf-8")
    whole = '{"messages": [{"role": "user", "content": "好"}, {"role": "assistant", "content": "1"}]}'
    (tmp_path / "mine.jsonl").write_text(f"{whole}\n{row}\n", encoding="utf-8")
    with pytest.raises(ConfigError):
        estimate_dry(repo_root, DEMO, small_gemma, tmp_path, "dataset=mine")


def test_batches_follow_the_order() -> None:
    shapes = np.array([[10, 9, 2], [30, 29, 3], [12, 11, 2], [31, 30, 2], [5, 4, 1]])
    ordered = make_batches(shapes, 2, "sequential", 0)
    assert ordered.samples.tolist() == [2, 2, 1]
    assert ordered.widths.tolist() == [32, 32, 8]  # multiples of 8
    assert ordered.ends.tolist() == [29, 30, 4]
    assert (ordered.answers.tolist(), ordered.most_answers.tolist()) == ([5, 4, 1], [3, 2, 1])
    assert make_batches(shapes, 2, "group_by_length", 0).widths.tolist() == [32, 16, 8]
    mixed = make_batches(shapes, 2, "random", 7)
    assert (mixed.samples.sum(), mixed.answers.sum()) == (5, 10)


def test_operations_by_hand() -> None:
    """Two layers, of which the upper one trains; one batch of two reviews of 8 tokens with 3 answers each."""
    frozen, trained = (LayerSizes((10, 10 * n), (20, 20 * n), (70, 70 * n), False) for n in (0, 1))
    sizes = ModelSizes((frozen, trained), first_trained=1, attention=4, vocabulary=50, hidden=6, is_head_trained=False)
    batches = make_batches(np.array([[8, 7, 3], [8, 7, 3]]), 2, "sequential", 0)
    pairs = 4 * 4 * 2 * 8 * 8
    stock = 16 * 100 * 2 + pairs + 16 * 100 * 6 + 3.5 * pairs + 2 * 6 * 50 * 16 * 2
    assert count_batches(sizes, batches, AccelerationPlan(), is_training=True) == (stock, 0.0)
    forward = 2 * (16 * 100 * 2 + pairs) + 2 * 6 * 50 * 16  # six answers and a row, rounded up
    assert count_batches(sizes, batches, AccelerationPlan(is_answer_only=True), is_training=False) == (forward, 0.0)
    # Three shared tokens: the frozen layer computes four of each review, rounded up to all five, and the upper layer
    # these and the three once.
    frozen = 10 * 100 * 2 + 4 * 4 * 2 * 5 * 8
    last = 13 * (20 * 6 + 10 * 2) + 6 * (10 * 6 + 70 * 6 + 20 * 2) + 3.5 * 4 * 4 * 6 * 8
    fast = count_batches(sizes, batches, AccelerationPlan(True, True, prefix=3, frozen=1), is_training=True)
    assert fast == (frozen + last + 2 * 6 * 50 * 16 * 2, frozen)


def test_messages() -> None:
    assert [count_optimizer_copies(name) for name in ("adamw_torch_fused", "adamw_8bit", "sgd")] == [2.0, 0.5, 0.0]
    card = {
        "speed": {"steps": 5, "train_time_s": 12.0, "steps_per_s": 0.4},
        "memory": {"peak_rss_bytes": 3 << 30},
    }
    compared = compare_with_run({"steps": 10, "train_time_s": 20.0, "memory": {"peak": 2 << 30}}, card)
    assert compared is not None
    assert compared["train_time_s"] == {"estimated": 10.0, "happened": 12.0}  # of the steps that were made
    assert summarise_comparison(compared) == "Estimated 10.0 s of steps and 2.0 GiB; it took 12.0 s and 3.0 GiB."
    assert compare_with_run({"steps": 10}, {"speed": None, "memory": None}) is None


def test_weights_that_were_not_read_yet_are_counted(tmp_path: Path) -> None:
    """A model is mapped from its file, and its first step reads most of it."""
    import mmap

    file, size = tmp_path / "model.safetensors", 1 << 22
    file.write_bytes(b"x" * size)
    before = count_unread_bytes(".safetensors")
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), size, access=mmap.ACCESS_READ) as mapped:
        assert count_unread_bytes(".safetensors") - before == pytest.approx(size, abs=1 << 20)
        assert sum(mapped[:: mmap.PAGESIZE]) > 0
        assert count_unread_bytes(".safetensors") == before
    assert count_unread_bytes(".safetensors") == before
