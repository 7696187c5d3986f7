from __future__ import annotations

import pytest

from sentifactory.engines.registry import build_engine, check_engine
from sentifactory.errors import ConfigError
from sentifactory.records import Review
from sentifactory.task.task import BINARY_SENTIMENT


@pytest.mark.parametrize("kind", ["vllm", "transformers"])
def test_a_folder_that_is_not_there_says_what_to_run(kind: str) -> None:
    with pytest.raises(
        ConfigError, match=r"saves/no/model: This model folder does not exist.*sentifactory model fetch"
    ):
        build_engine(kind, "saves/no/model", BINARY_SENTIMENT)


def test_two_parts_are_a_hub_id_unless_the_first_is_a_folder_here(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_engine("vllm", "Qwen/Qwen2.5-Coder-1.5B-Instruct")
    (tmp_path / "saves").mkdir()
    with pytest.raises(ConfigError, match="model folder does not exist"):
        check_engine("vllm", "saves/demo")
    with pytest.raises(ConfigError, match="model folder does not exist"):
        check_engine("vllm", "demo")


def test_an_adapter_is_named_as_such(tmp_path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").touch()
    with pytest.raises(ConfigError, match=r"LoRA adapter.*sentifactory export merge"):
        check_engine("vllm", str(tmp_path))


def test_half_a_checkpoint_is_refused(tmp_path, model_folder) -> None:
    check_engine("transformers", str(model_folder))
    (model_folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"weights \(\*.safetensors\) missing"):
        check_engine("transformers", str(model_folder))
    file = tmp_path / "a-file"
    file.touch()
    with pytest.raises(ConfigError, match="not a folder"):
        check_engine("vllm", str(file))


def test_an_unknown_engine_lists_the_known(model_folder) -> None:
    with pytest.raises(
        ConfigError, match=r"Unknown engine 'llama.cpp'.*transformers, encoder, onnx, auto, or an address"
    ):
        build_engine("llama.cpp", str(model_folder), BINARY_SENTIMENT)


def test_an_address_gives_a_client(fake) -> None:
    with build_engine(fake[1], "", BINARY_SENTIMENT, name="tuned") as engine:
        assert engine.name == "tuned"
        assert engine.predict([Review("好")])[0].label == 1
