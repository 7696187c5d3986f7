"""A model's folder is data: code, pickles and broken files in it end in one sentence, and nothing of it runs."""

from __future__ import annotations

import ast
import io
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_models import build_tiny_bert

from sentifactory.engines.local.transformers_engine import TransformersEngine
from sentifactory.engines.registry import build_engine
from sentifactory.errors import EngineError
from sentifactory.models.classifiers import load_classifier
from sentifactory.task.task import BINARY_SENTIMENT

LOADERS = {"from_pretrained", "from_config"}


def test_every_loader_is_told_to_run_no_code(repo_root: Path) -> None:
    """Left to itself transformers asks on stdin whether it may, and `yes |` answers."""
    calls = []
    for path in (repo_root / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOADERS:
                owner = ast.unparse(node.func.value)
                if owner.startswith("Auto"):
                    calls.append((path.name, owner, {word.arg: ast.unparse(word.value) for word in node.keywords}))
    assert len(calls) >= 9
    assert [call for call in calls if call[2].get("trust_remote_code") != "False"] == []


@pytest.fixture
def with_code(tmp_path: Path, tiny_qwen: Path) -> tuple[Path, Path, Path]:
    """A language model and an encoder that bring code of their own, and the file that the code would write."""
    mark = tmp_path / "it-ran"
    code = f"open({str(mark)!r}, 'w').close()\nfrom transformers import Qwen2Config as Own\nclass Model: pass\n"
    models = (tmp_path / "llm", tmp_path / "encoder")
    shutil.copytree(tiny_qwen, models[0])
    models[1].mkdir()
    build_tiny_bert(models[1])
    for model in models:
        (model / "own.py").write_text(code)
        config = json.loads((model / "config.json").read_text())
        classes = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoModelForSequenceClassification")
        config |= {"model_type": "own", "auto_map": dict.fromkeys(classes, "own.Own")}
        (model / "config.json").write_text(json.dumps(config))
    return *models, mark


@pytest.mark.slow
def test_code_of_a_model_does_not_run_whoever_says_yes(
    with_code: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    llm, encoder, mark = with_code
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 50))
    for load in (
        lambda: TransformersEngine(str(llm), BINARY_SENTIMENT),
        lambda: load_classifier(str(encoder), BINARY_SENTIMENT),
        lambda: build_engine("auto", str(llm), BINARY_SENTIMENT, name="a", mode="score"),
    ):
        with pytest.raises(EngineError):
            load()
    assert not mark.exists()


class _Trap:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.mark,)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["empty", "cut", "nonsense", "pickle"])
def test_damaged_weights_are_one_sentence(damage: str, tmp_path: Path, tiny_qwen: Path) -> None:
    model, mark = tmp_path / "model", tmp_path / "it-ran"
    shutil.copytree(tiny_qwen, model)
    weights = model / "model.safetensors"
    content = weights.read_bytes()
    if damage == "pickle":
        weights.unlink()
        (model / "pytorch_model.bin").write_bytes(pickle.dumps(_Trap(mark)))
    else:
        weights.write_bytes({"empty": b"", "cut": content[:5000], "nonsense": b"\xff" * 64}[damage])
    with pytest.raises(EngineError) as caught:
        TransformersEngine(str(model), BINARY_SENTIMENT)
    assert caught.value.where == str(model)
    assert not mark.exists()
