"""Measures one part of the check in this process, and writes what it found.

Example:
    python -m tools.gpu_check.measure ours FOLDER --small

Unlike a command for users, it ends with a traceback, which is what the log of a failed part needs.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sentifactory.system.atomic import write_json
from tools.gpu_check.recorded_steps import train_recorded
from tools.reliability.tiny_recipe import save_with_byte_tokenizer, write_reviews

FREEZE = Path("examples/train_freeze/qwen2_5_coder_1_5b_freeze_3k.yaml")
QLORA = Path("examples/train_qlora/qwen2_5_coder_1_5b_qlora_bnb.yaml")
STEPS, SMALL_STEPS, BATCH = 20, 10, 8
SAVE_STEPS = 4
_WARM = 2  # steps of an epoch that are not timed
_CHARACTERS = (
    "房间干净服务热情早餐丰富交通方便前台冷淡设施陈旧噪音太大性价比高物流很快包装破损内容有趣屏幕清晰电池耐用客服不理"
)
_SIZES = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 8, "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip


class Check:
    """The parts, each a method with the name of the part.

    Args:
        folder: of the check; parts share its model and data.
        is_small: tiny models on the CPU.
    """

    def __init__(self, folder: Path, *, is_small: bool) -> None:
        self.folder = folder
        self.is_small = is_small
        # Two epochs: the first fills the cache of the frozen layers.
        self.steps = SMALL_STEPS if is_small else STEPS
        os.environ["SENTIFACTORY_CACHE_DIR"] = str(folder / "cache")

    def model(self) -> dict[str, Any]:
        """Build the model with random weights."""
        start_s = time.monotonic()
        target = self.folder / "model"
        target.mkdir()
        if self.is_small:
            self._build_tiny("Qwen2", target)
        else:
            from tools.benches.qwen_shape import build_qwen

            build_qwen(target, device="cuda")
        size = sum(file.stat().st_size for file in target.glob("*.safetensors"))
        return {"weight_bytes": size, "seconds": time.monotonic() - start_s}

    def stock(self) -> dict[str, Any]:
        """Train stock LLaMA-Factory."""
        return self._train_shape("stock", is_accelerated=False)

    def ours(self) -> dict[str, Any]:
        """Train with our accelerations."""
        return self._train_shape("ours", is_accelerated=True)

    def exactness(self) -> dict[str, Any]:
        """Compare losses, gradients and weights in float32 on tiny models of three families."""
        found = {}
        for family in ("Qwen2", "Gemma3", "Llama"):
            model = self.folder / f"tiny-{family}"
            model.mkdir()
            self._build_tiny(family, model)
            words = [f"model_name_or_path={model}", "bf16=false", "learning_rate=1.0e-3", "freeze_trainable_layers=2"]
            template = "gemma2" if family == "Gemma3" else "qwen"
            runs = [
                self._train(FREEZE, f"{family}-{way}", *words, f"template={template}", way=way, keeps_gradients=True)
                for way in ("stock", "ours")
            ]
            outputs = [self.folder / "runs" / f"{family}-{way}" for way in ("stock", "ours")]
            found[family] = {**_compare(*(recorder for recorder, _ in runs)), "weights": _compare_weights(*outputs)}
        return found

    def fp16(self) -> dict[str, Any]:
        """Compare losses in fp16 with a gradient scaler."""
        return self._compare_losses(FREEZE, "fp16", "bf16=false", "fp16=true", "freeze_trainable_layers=2")

    def qlora(self) -> dict[str, Any]:
        """Compare losses on weights that bitsandbytes packs to 4 bits."""
        import bitsandbytes  # noqa: F401  (the part is not measured where it is missing)

        return self._compare_losses(QLORA, "qlora")

    def kill(self) -> dict[str, Any]:
        """Kill a run after a checkpoint, continue it with the same command, and compare it with an undisturbed one."""
        model = self.folder / "kill-model"
        model.mkdir()
        self._build_tiny("Qwen2", model)
        saving = (f"model_name_or_path={model}", "save_strategy=steps", f"save_steps={SAVE_STEPS}")
        whole, cut = (self._start(name, *saving) for name in ("undisturbed", "killed"))
        output = self.folder / "runs" / "killed"
        while len(read_losses(output)) <= SAVE_STEPS and cut.poll() is None:
            time.sleep(0.005)
        os.killpg(cut.pid, signal.SIGKILL)
        cut.wait()
        killed_at = len(read_losses(output))
        if whole.wait():
            raise RuntimeError((self.folder / "undisturbed.log").read_text(errors="replace")[-2000:])
        code = self._start("killed", *saving).wait()
        outputs = [self.folder / "runs" / name for name in ("undisturbed", "killed")]
        card = json.loads((outputs[1] / "run.json").read_text())
        return {
            "exit_code": code, "killed_at": killed_at, "continued_from": Path(str(card["continued_from"])).name,
            "steps": self.steps, "weights": _compare_weights(*outputs),
        }  # fmt: skip

    def processes(self) -> dict[str, Any]:
        """Start as many processes as there are GPUs, at most two, and compare their losses with stock's."""
        import torch

        os.environ["FORCE_TORCHRUN"] = "1"  # one process as well joins a process group
        count = 2 if self.is_small else min(2, torch.cuda.device_count())
        model = self.folder / "ranks-model"
        model.mkdir()
        self._build_tiny("Qwen2", model)
        words = (f"model_name_or_path={model}", 'save_strategy="no"', "--processes", str(count))
        ways = (("ranks-stock", ("--stock",)), ("ranks-ours", ()))
        codes = [self._start(name, *words, *more).wait() for name, more in ways]
        stock, ours = (read_losses(self.folder / "runs" / name) for name in ("ranks-stock", "ranks-ours"))
        card = json.loads((self.folder / "runs" / "ranks-ours" / "run.json").read_text())
        return {
            "exit_codes": codes, "processes": card["world_size"], "loss": _find_largest_gap(stock, ours),
            "accelerations": [one["name"] for one in card["accelerations"] if one["is_on"]],
        }  # fmt: skip

    def _build_tiny(self, family: str, target: Path) -> Path:
        """Write a tiny model with a tokenizer of bytes."""
        import torch
        import transformers

        torch.manual_seed(0)
        name = f"{family}TextConfig" if family == "Gemma3" else f"{family}Config"
        more = {"head_dim": 16, "sliding_window": 64} if family == "Gemma3" else {"tie_word_embeddings": True}
        config = getattr(transformers, name)(**_SIZES, **more)
        return save_with_byte_tokenizer(getattr(transformers, f"{family}ForCausalLM")(config), target)

    def _list_words(self, name: str) -> list[str]:
        """Return the overrides that all runs have in common."""
        if not (data := self.folder / "data").is_dir():
            data.mkdir()
            write_reviews(data, {"check": write_texts(self.steps * BATCH // 2)})
        return [
            f"dataset_dir={data}", "dataset=check", "eval_dataset=null", 'eval_strategy="no"',
            "load_best_model_at_end=false", f"output_dir={self.folder / 'runs' / name}", f"max_steps={self.steps}",
            f"per_device_train_batch_size={BATCH}", "gradient_accumulation_steps=1", "warmup_steps=0",
            "logging_steps=1", "plot_loss=false", "preprocessing_num_workers=1",
            *(["use_cpu=true"] if self.is_small else []),
        ]  # fmt: skip

    def _train(self, recipe: Path, name: str, *words: str, way: str, keeps_gradients: bool = False) -> Any:
        every = [f"model_name_or_path={self.folder / 'model'}", *self._list_words(name), *words]
        return train_recorded(recipe, every, is_accelerated=way == "ours", keeps_gradients=keeps_gradients)

    def _train_shape(self, name: str, *, is_accelerated: bool) -> dict[str, Any]:
        way = "ours" if is_accelerated else "stock"
        more = ['save_strategy="no"', *(["freeze_trainable_layers=2"] if self.is_small else [])]
        recorder, card = self._train(FREEZE, name, *more, way=way)
        half = self.steps // 2
        return {
            "samples_per_s": BATCH * (half - _WARM) / sum(recorder.seconds[half + _WARM :]),
            "samples_per_s_first_epoch": BATCH * (half - _WARM) / sum(recorder.seconds[_WARM:half]),
            "peak_bytes": recorder.peak_bytes, "losses": recorder.losses, "step_seconds": recorder.seconds,
            "accelerations": [one["name"] for one in card["accelerations"] if one["is_on"]],
        }  # fmt: skip

    def _compare_losses(self, recipe: Path, name: str, *words: str) -> dict[str, Any]:
        """Return the losses of stock and ours, and their largest difference."""
        runs = {}
        for way in ("stock", "ours"):
            recorder, card = self._train(recipe, f"{name}-{way}", 'save_strategy="no"', *words, way=way)
            runs[way] = {
                "losses": recorder.losses, "peak_bytes": recorder.peak_bytes,
                "samples_per_s": BATCH * (self.steps - _WARM) / sum(recorder.seconds[_WARM:]),
                "accelerations": [one["name"] for one in card["accelerations"] if one["is_on"]],
            }  # fmt: skip
        return {**runs, "loss": _find_largest_gap(runs["stock"]["losses"], runs["ours"]["losses"])}

    def _start(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        """Start the command in a process group of its own, on a tiny model in bf16."""
        every = [*self._list_words(name), "freeze_trainable_layers=2", *words]
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "sentifactory.cli", "train", str(FREEZE), *every],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip


def write_texts(count: int) -> list[tuple[str, int]]:
    """Return made-up reviews of 20 to 120 characters with labels in turns."""
    source = random.Random(0)  # noqa: S311  (no secret depends on it)
    return [("".join(source.choices(_CHARACTERS, k=source.randrange(20, 121))), at % 2) for at in range(count)]


def read_losses(output: Path) -> list[float]:
    """Return the logged loss of each step of a run."""
    try:
        lines = (output / "trainer_log.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    return [float(line["loss"]) for line in map(_parse, lines) if "loss" in line]


def _parse(line: str) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = json.loads(line)
    except ValueError:  # cut off by the kill
        return {}
    return found


def _find_largest_gap(first: list[float], second: list[float]) -> float | None:
    """Return the largest difference of two lists of losses; None where one is shorter."""
    if len(first) != len(second) or not first:
        return None
    return max(abs(one - other) for one, other in zip(first, second, strict=True))


def _compare(stock: Any, ours: Any) -> dict[str, float | None]:
    """Return the largest differences of losses, and of all gradients of a step, relative to their norm."""
    import torch

    def find_norm(gradients: Mapping[str, Any]) -> float:
        return float(torch.stack([torch.linalg.norm(value) for value in gradients.values()]).norm())

    gaps = [
        find_norm({name: seen[name] - value for name, value in before.items()}) / find_norm(before)
        for before, seen in zip(stock.gradients, ours.gradients, strict=True)
    ]
    return {"loss": _find_largest_gap(stock.losses, ours.losses), "gradients": max(gaps)}


def _compare_weights(first: Path, second: Path) -> float:
    """Return the largest difference of two runs' final weights."""
    from safetensors.torch import load_file

    one, other = (load_file(folder / "model.safetensors") for folder in (first, second))
    return max(float((value.float() - other[name].float()).abs().max()) for name, value in one.items())


def measure(part: str, folder: Path, *, is_small: bool) -> None:
    """Measure one part of the check, and write FOLDER/PART.json.

    Args:
        part: its name.
        folder: of the check.
        is_small: tiny models on the CPU.
    """
    function: Callable[[], dict[str, Any]] = getattr(Check(folder, is_small=is_small), part)
    write_json(folder / f"{part}.json", function())


if __name__ == "__main__":
    measure(sys.argv[1], Path(sys.argv[2]), is_small="--small" in sys.argv[3:])
