"""`model cut`: the new checkpoint computes what the lowest layers of the whole model compute, and nothing more."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from sentifactory.engines.vllm.vllm_install import find_vllm_python
from sentifactory.errors import ConfigError
from sentifactory.models.cut_record import RECORD_NAME, count_layers
from sentifactory.models.layer_cut import cut_model
from sentifactory.models.weights import hash_weights, list_weights

LAYERS = 6
SIZES: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": LAYERS,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 64,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
GEMMA_TYPES = ["sliding_attention", "sliding_attention", "full_attention"] * 2
# The windows are shorter than the text of the tests.
CONFIGS: dict[str, tuple[type[PreTrainedConfig], dict[str, Any]]] = {
    "gemma3": (Gemma3TextConfig, {"sliding_window": 4, "layer_types": GEMMA_TYPES, "query_pre_attn_scalar": 8}),
    "qwen2": (Qwen2Config, {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2}),
    "qwen3": (Qwen3Config, {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 5}),
    "llama": (LlamaConfig, {}),
}
CASES = [(family, is_tied) for family in CONFIGS for is_tied in (True, False)]


def build_model(folder: Path, family: str = "gemma3", *, is_tied: bool = True, dtype: Any = torch.float32) -> Any:
    """Save a random model of six layers in several files, with what else stands in a folder; return the model."""
    kind, settings = CONFIGS[family]
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(kind(**SIZES, **settings, tie_word_embeddings=is_tied)).to(dtype).eval()
    for value in model.parameters():  # norms are ones at first, which would hide a wrong one
        torch.nn.init.normal_(value, std=0.3)
    model.save_pretrained(folder, max_shard_size="8KB")
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json", "LICENSE", "USE_POLICY.md"):
        (folder / name).write_text(f'{{"file": "{name}"}}')
    (folder / "sentifactory_task.json").write_text("{}")
    return model


def compute_logits(model: Any) -> torch.Tensor:
    ids = torch.tensor([[1, 9, 33, 7, 60, 12, 5, 41, 22, 3, 18, 50]])
    with torch.inference_mode():
        return model(input_ids=ids, use_cache=False).logits


@pytest.mark.parametrize(("family", "is_tied"), CASES)
@pytest.mark.parametrize("layers", [1, 4])
def test_the_logits_are_those_of_the_truncated_model(family: str, is_tied: bool, layers: int, tmp_path: Path) -> None:
    whole = build_model(tmp_path / "whole", family, is_tied=is_tied)
    full = compute_logits(whole)
    cut_model(str(tmp_path / "whole"), layers, tmp_path / "cut")
    loaded, report = AutoModelForCausalLM.from_pretrained(tmp_path / "cut", dtype="auto", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    whole.model.layers = whole.model.layers[:layers]
    whole.config.num_hidden_layers = layers
    logits = compute_logits(loaded.eval())
    assert torch.equal(logits, compute_logits(whole))
    assert not torch.allclose(logits, full)
    assert getattr(loaded.config, "layer_types", None) == (
        whole.config.layer_types[:layers] if hasattr(whole.config, "layer_types") else None
    )


def test_each_tensor_is_copied_once_in_its_dtype(tmp_path: Path) -> None:
    build_model(tmp_path / "whole", "llama", is_tied=False, dtype=torch.bfloat16)
    cut_model(str(tmp_path / "whole"), 3, tmp_path / "cut")
    read = [{}, {}]
    for tensors, name in zip(read, ("whole", "cut"), strict=True):
        for file in list_weights(tmp_path / name):
            part = load_file(file)
            assert not tensors.keys() & part.keys()
            tensors |= part
    whole, cut = read
    gone = {name for name in whole if name.startswith(("model.layers.3.", "model.layers.4.", "model.layers.5."))}
    assert whole.keys() - cut.keys() == gone
    assert all(torch.equal(cut[name], whole[name]) and cut[name].dtype == torch.bfloat16 for name in cut)
    index = json.loads((tmp_path / "cut" / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == cut.keys()
    assert {*index["weight_map"].values()} == {file.name for file in list_weights(tmp_path / "cut")}
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in cut.values())
    assert json.loads((tmp_path / "cut" / "config.json").read_text())["dtype"] == "bfloat16"


def test_one_file_stays_one_file(tmp_path: Path) -> None:
    build_model(tmp_path / "a").save_pretrained(tmp_path / "whole")
    cut_model(str(tmp_path / "whole"), 2, tmp_path / "cut")
    assert [file.name for file in list_weights(tmp_path / "cut")] == ["model.safetensors"]
    assert not (tmp_path / "cut" / "model.safetensors.index.json").exists()


def test_what_travels_and_what_says_where_it_comes_from(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    build_model(whole)
    (whole / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    record = cut_model(str(whole), 4, tmp_path / "cut")
    names = {file.name for file in (tmp_path / "cut").iterdir()}
    travelled = {"tokenizer.json", "chat_template.jinja", "generation_config.json", "LICENSE", "USE_POLICY.md"}
    assert travelled <= names
    assert not {"sentifactory_task.json", "sentifactory_model.json"} & names
    assert all((tmp_path / "cut" / name).read_bytes() == (whole / name).read_bytes() for name in travelled)
    assert json.loads((tmp_path / "cut" / RECORD_NAME).read_text()) == record
    assert (record["layers"], record["source_layers"]) == (4, LAYERS)
    assert record["source"]["weights"] == hash_weights(whole)
    assert record["weights"] == hash_weights(tmp_path / "cut")
    assert (record["source"]["name"], record["source"]["licence"]) == ("whole", "apache-2.0")
    card = (tmp_path / "cut" / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\n---\n")
    assert all(sha256 in card for sha256 in record["source"]["weights"].values())
    again = cut_model(str(tmp_path / "cut"), 2, tmp_path / "smaller")
    assert again["source"]["cut"] == record
    assert (again["source"]["name"], again["source"]["licence"]) == ("whole", "apache-2.0")
    assert "the lowest 2 of 6 layers" in (tmp_path / "smaller" / "README.md").read_text()


def write_run_card(folder: Path, base: Path | str) -> None:
    """Make a model a tuned one, with the page that training writes."""
    (folder / "run.json").write_text(json.dumps({"recipe": {"model_name_or_path": str(base)}}))
    (folder / "README.md").write_text("---\nlicense: other\n---\n")


def test_the_terms_of_a_tuned_model_that_is_cut_are_those_of_its_first_base(tmp_path: Path) -> None:
    pretrained, once, twice = (tmp_path / name for name in ("pretrained", "once", "twice"))
    for folder in (pretrained, once, twice):
        build_model(folder)
    (pretrained / "sentifactory_model.json").write_text('{"name": "gemma-3-270m", "package": "a-gguf"}')
    write_run_card(once, pretrained)
    write_run_card(twice, once)
    record = cut_model(str(twice), 4, tmp_path / "cut")
    known = {"name": "twice", "base": "gemma-3-270m", "package": "a-gguf", "licence": ""}
    assert known.items() <= record["source"].items()
    assert record["source"]["weights"] == hash_weights(twice)
    assert "license: other" not in (tmp_path / "cut" / "README.md").read_text()
    again = cut_model(str(tmp_path / "cut"), 2, tmp_path / "smaller")
    assert known.items() <= again["source"].items()
    assert cut_model(str(twice), 4, tmp_path / "cut") == record


def test_the_layers_of_a_tuned_cut_model_are_counted_from_the_published_one(tmp_path: Path) -> None:
    build_model(tmp_path / "whole")
    first = cut_model(str(tmp_path / "whole"), 4, tmp_path / "cut")
    shutil.copytree(tmp_path / "cut", tmp_path / "tuned")
    (tmp_path / "tuned" / RECORD_NAME).unlink()
    write_run_card(tmp_path / "tuned", tmp_path / "cut")
    record = cut_model(str(tmp_path / "tuned"), 2, tmp_path / "smaller")
    assert record["source"]["cut"] == first
    assert (record["source"]["name"], record["source"]["base"]) == ("tuned", "whole")
    assert count_layers(record) == (2, LAYERS)


def test_run_cards_that_name_each_other_tell_nothing_about_the_terms(tmp_path: Path) -> None:
    build_model(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    write_run_card(tmp_path / "one", tmp_path / "other")
    write_run_card(tmp_path / "other", tmp_path / "one")
    assert cut_model(str(tmp_path / "one"), 4, tmp_path / "cut")["source"]["licence"] == ""


def test_the_same_cut_is_made_once_and_nothing_else_is_replaced(tmp_path: Path) -> None:
    build_model(tmp_path / "whole")
    cut = tmp_path / "cut"
    cut.mkdir()  # an empty folder is no obstacle
    record = cut_model(str(tmp_path / "whole"), 4, cut)
    made_at = (cut / RECORD_NAME).stat().st_mtime_ns
    assert cut_model(str(tmp_path / "whole"), 4, cut) == record
    assert (cut / RECORD_NAME).stat().st_mtime_ns == made_at
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for layers, place in ((3, cut), (4, tmp_path / "whole"), (4, tmp_path), (4, tmp_path / "link")):
        with pytest.raises(ConfigError) as caught:
            cut_model(str(tmp_path / "whole"), layers, place)
        assert caught.value.code == "output-exists"
    assert (tmp_path / "link").is_symlink()
    (cut / "tokenizer.json").write_text("{}")  # tuned or damaged since: no longer this cut
    with pytest.raises(ConfigError) as caught:
        cut_model(str(tmp_path / "whole"), 4, cut)
    assert caught.value.code == "output-exists"


def change_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def remove_tensors(folder: Path, file: str) -> None:
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    kept = {name: place for name, place in index["weight_map"].items() if place != file}
    (folder / "model.safetensors.index.json").write_text(json.dumps({**index, "weight_map": kept}))


REFUSALS = {
    "cut-layers": lambda folder: None,
    "model-not-decoder": lambda folder: change_config(folder, architectures=["Gemma3ForSequenceClassification"]),
    "model-quantised": lambda folder: change_config(folder, quantization_config={"quant_method": "gptq"}),
    "model-adapter": lambda folder: (folder / "adapter_config.json").write_text("{}"),
    "model-no-safetensors": lambda folder: (folder / "model.safetensors.index.json").unlink(),
    "model-weights-unreadable": lambda folder: list_weights(folder)[0].write_bytes(b"no weights"),
    "model-weights-incomplete": lambda folder: remove_tensors(folder, list_weights(folder)[-1].name),
    "model-hostile": lambda folder: change_config(folder, num_hidden_layers=10**6),
    "model-missing": shutil.rmtree,
}


@pytest.mark.parametrize("code", REFUSALS)
def test_refusals_leave_nothing_behind(code: str, tmp_path: Path) -> None:
    build_model(tmp_path / "whole")
    REFUSALS[code](tmp_path / "whole")
    before = {path.name for path in tmp_path.iterdir()}
    for layers in (0, LAYERS, LAYERS + 1) if code == "cut-layers" else (4,):
        with pytest.raises(ConfigError) as caught:
            cut_model(str(tmp_path / "whole"), layers, tmp_path / "folder" / "cut")
        assert caught.value.code == code
    assert {path.name for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("model_type", "architecture"),
    [("bert", "BertForMaskedLM"), ("gemma3", "Gemma3ForConditionalGeneration"), ("mistral", "MistralForCausalLM")],
)
def test_other_families_are_no_decoder_that_can_be_cut(model_type: str, architecture: str, tmp_path: Path) -> None:
    build_model(tmp_path / "whole")
    change_config(tmp_path / "whole", model_type=model_type, architectures=[architecture])
    with pytest.raises(ConfigError) as caught:
        cut_model(str(tmp_path / "whole"), 4, tmp_path / "cut")
    assert caught.value.code == "model-not-decoder"


def test_the_model_within_a_folder_is_named(tmp_path: Path) -> None:
    """As in the folder of a stack, or of several runs."""
    build_model(tmp_path / "stack" / "model")
    (tmp_path / "stack" / "model" / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError) as caught:
        cut_model(str(tmp_path / "stack"), 4, tmp_path / "cut")
    assert caught.value.code == "model-incomplete"
    assert str(tmp_path / "stack" / "model") in caught.value.next_step


def test_an_output_projection_of_its_own_must_be_there(tmp_path: Path) -> None:
    build_model(tmp_path / "whole", "llama", is_tied=True)
    change_config(tmp_path / "whole", tie_word_embeddings=False)  # a loader would make one up
    with pytest.raises(ConfigError) as caught:
        cut_model(str(tmp_path / "whole"), 4, tmp_path / "cut")
    assert caught.value.code == "model-weights-incomplete"


@pytest.mark.slow
@pytest.mark.vllm
def test_vllm_takes_the_config_of_each_family(tmp_path: Path) -> None:
    """By vLLM's own parser, with the transformers of its environment, without a server."""
    for family in CONFIGS:
        build_model(tmp_path / "whole" / family, family)
        cut_model(str(tmp_path / "whole" / family), 2, tmp_path / family)
    program = (
        "import json, sys\n"
        "from vllm.transformers_utils.config import get_config\n"
        "found = {}\n"
        "for folder in sys.argv[1:]:\n"
        "    one = get_config(folder, trust_remote_code=False)\n"
        "    found[folder] = [one.architectures[0], one.num_hidden_layers, getattr(one, 'layer_types', None)]\n"
        "print('FOUND', json.dumps(found))\n"
    )
    folders = {str(tmp_path / family): family for family in CONFIGS}
    done = subprocess.run(
        [str(find_vllm_python()), "-c", program, *folders], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.rpartition("FOUND ")[2])
    full, sliding = ["full_attention"] * 2, ["sliding_attention"] * 2
    assert {folders[folder]: value for folder, value in found.items()} == {
        "gemma3": ["Gemma3ForCausalLM", 2, sliding],
        "qwen2": ["Qwen2ForCausalLM", 2, full],
        "qwen3": ["Qwen3ForCausalLM", 2, full],
        "llama": ["LlamaForCausalLM", 2, None],
    }
