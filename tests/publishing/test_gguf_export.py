"""Models as GGUF: a real llama.cpp reads the same tokens and answers the same, or nothing is written."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tiny_models import link_model
from typer.testing import CliRunner

from sentifactory.cli import build_app
from sentifactory.errors import ConfigError, EngineError, SentiFactoryError
from sentifactory.metrics.calibration import CALIBRATION_NAME
from sentifactory.models.layer_cut import cut_model
from sentifactory.models.weights import hash_weights
from sentifactory.publishing.gguf import gguf_export as exporting
from sentifactory.publishing.gguf import gguf_vocabulary, gguf_writing, llama_cpp
from sentifactory.publishing.gguf.commands import describe_servers
from sentifactory.publishing.gguf.gguf_export import ExportOptions, export_gguf
from sentifactory.publishing.gguf.llama_cpp import find_llama_cpp, start_llama_server
from sentifactory.publishing.gguf.taught_files import Turns, build_grammar, build_modelfile, read_turns
from sentifactory.task.model_folder import read_model_task, write_model_task
from sentifactory.task.task import BINARY_SENTIMENT, Task

# Words, digits, blanks, emoji, rare characters and what chat templates are made of.
TEXTS = (
    "房间很干净，前台 very nice，下次还来！！", "再也不来了……10086 元\t\n太贵", "😀👍🏽 不错",
    "<end_of_turn>user 忽略上文<|im_end|>", "龘靐齉 𠮷野家 ｶﾀｶﾅ", "a  b   c    d", "It's 3.14% OFF 她说：“可以”",
    "一般般", "差", "第42条，12345678900",
)  # fmt: skip


@pytest.fixture(scope="module")
def val_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("val") / "val.jsonl"
    rows = [{"label": number % 2, "text": text} for number, text in enumerate(TEXTS)]
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return str(path)


def roughen(folder: Path) -> Path:
    """Replace all weights by large random ones, norms and biases too, so that no wrong tensor goes unnoticed."""
    import torch
    from safetensors.torch import load_file, save_file

    torch.manual_seed(7)
    tensors = {
        name: old + 0.3 * torch.randn_like(old) if old.dim() == 1 else 0.25 * torch.randn_like(old)
        for name, old in load_file(folder / "model.safetensors").items()
    }
    (folder / "model.safetensors").unlink()  # it may be a link to the model of other tests
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def build_other(source: Path, folder: Path, family: str) -> Path:
    """A random model of another family with the tokenizer of a tiny one."""
    from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3Config

    link_model(source, folder)
    replaced = ("config.json", "model.safetensors", "generation_config.json")
    for name in replaced:
        (folder / name).unlink()
    old = json.loads((source / "config.json").read_text())
    sizes: dict[str, Any] = {
        "vocab_size": old["vocab_size"], "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 2048,
    }  # fmt: skip
    positions = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0}
    positions |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    config = {
        "qwen3": lambda: Qwen3Config(**sizes, tie_word_embeddings=False),
        "llama": lambda: LlamaConfig(**sizes, attention_bias=True, rope_parameters=positions),
    }[family]()
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    shutil.copyfile(source / replaced[-1], folder / replaced[-1])
    return folder


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory, short_gemma: Path, tiny_qwen: Path) -> Callable[[str], Path]:
    """Each kind of model that is exported, with weights of which none is usual."""
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in made:
            folder = tmp_path_factory.mktemp("models") / kind
            if kind == "gemma3":
                link_model(short_gemma, folder)
            elif kind == "qwen2":
                link_model(tiny_qwen, folder)
            elif kind == "cut":
                cut_model(str(make("gemma3")), 3, folder)
            else:
                build_other({"qwen3": tiny_qwen, "llama": short_gemma}[kind], folder, kind)
            made[kind] = folder if kind == "cut" else roughen(folder)
        return made[kind]

    return make


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gemma3", "cut", "qwen2", "qwen3", "llama"])
def test_llama_cpp_reads_the_same_tokens_and_gives_the_same_probabilities(
    build: Callable[[str], Path], kind: str, val_path: str, tmp_path: Path
) -> None:
    target = tmp_path / "gguf"
    proof = export_gguf(ExportOptions(build(kind), target, val_path, "f16"))
    assert proof["tokens"]["reviews"] == proof["parity"]["reviews"] == len(TEXTS)
    assert proof["tokens"]["different"] == proof["parity"]["flips"] == proof["parity"]["missing"] == 0
    assert proof["parity"]["difference_max"] < 0.005
    assert proof["weights"] == hash_weights(target)
    assert json.loads((target / "sentifactory_export.json").read_text()) == proof


@pytest.mark.slow
def test_eight_bits_halve_the_file_and_four_bits_come_from_llama_cpp(
    build: Callable[[str], Path], val_path: str, tmp_path: Path
) -> None:
    target = tmp_path / "gguf"
    sizes = {}
    for kind in ("f16", "q8_0"):
        proof = export_gguf(ExportOptions(build("llama"), target, val_path, kind, max_flips=0.2, max_difference=0.1))
        sizes[kind] = proof["size_bytes"]
        assert [path.name for path in target.glob("*.gguf")] == [f"model-{kind}.gguf"], "the earlier export is gone"
    assert sizes["q8_0"] < 0.7 * sizes["f16"]
    if shutil.which("llama-quantize") is None:
        pytest.skip("Q4_K_M needs llama-quantize, which no package has")
    options = ExportOptions(build("llama"), target, val_path, "q4_k_m", max_flips=0.5, max_difference=0.5)
    assert export_gguf(options)["size_bytes"] < sizes["q8_0"]
    assert [path.name for path in target.glob("*.gguf")] == ["model-q4_k_m.gguf"]


@pytest.mark.slow
def test_the_folder_has_the_turns_the_grammar_the_evidence_and_the_terms(
    build: Callable[[str], Path], val_path: str, tmp_path: Path, three: Task
) -> None:
    model = link_model(build("gemma3"), tmp_path / "tuned")
    (model / "LICENSE").write_text("Terms of the model", encoding="utf-8")
    (model / "run.json").write_text('{"status": "finished"}', encoding="utf-8")
    (model / CALIBRATION_NAME).write_text(json.dumps({"weights": hash_weights(model), "temperature": 2.0}))
    write_model_task(three, model)
    target = tmp_path / "new" / "gguf"
    words = ["export", "gguf", str(model), "--output_dir", str(target), "--val_path", val_path, "--quantise", "f16"]
    result = CliRunner().invoke(build_app(), words)
    assert result.exit_code == 0, (result.output, result.exception)
    assert f"llama-server -m {target}/model-f16.gguf" in result.output
    assert (target / "Modelfile").read_text(encoding="utf-8").splitlines()[1:] == [
        "FROM ./model-f16.gguf",
        'TEMPLATE """<start_of_turn>user',
        "{{ .Prompt }}<end_of_turn>",
        "<start_of_turn>model",
        '{{ .Response }}"""',
        f"PARAMETER num_ctx {json.loads((model / 'config.json').read_text())['max_position_embeddings']}",
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1",
        'PARAMETER stop "<eos>"',
        'PARAMETER stop "<end_of_turn>"',
        'LICENSE """Terms of the model"""',
    ]
    assert read_model_task(target) == three
    assert (target / "LICENSE").read_text() == "Terms of the model"
    assert json.loads((target / "run.json").read_text()) == {"status": "finished"}
    assert json.loads((target / CALIBRATION_NAME).read_text()) == {"weights": hash_weights(target), "temperature": 2.0}
    schema = json.loads((target / "answer.schema.json").read_text())
    assert schema["properties"][three.answer_key] == {"enum": list(three.answer_values)}
    answers = {three.render_answer(label) for label in range(len(three.labels))}
    with start_llama_server(find_llama_cpp(None), target / "model-f16.gguf", 512) as server:
        body = {"prompt": server.render(three.render_messages("很好")), "n_predict": 32, "temperature": 0}

        def complete(grammar: str) -> str:
            asked = body | {"grammar": grammar}
            response = httpx.post(f"{server.address}/completion", json=asked, timeout=60, trust_env=False)
            return str(response.json()["content"])

        assert complete((target / "answer.gbnf").read_text(encoding="utf-8")) in answers
        assert complete("") not in answers, "the weights are random: the grammar made the answer"


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["weights", "tokens", "file"])
def test_a_file_that_is_wrong_is_refused_and_leaves_nothing(
    build: Callable[[str], Path], val_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    write = exporting.write_gguf

    def write_half(*arguments: Any) -> None:
        write(*arguments)
        file = arguments[3]
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

    if fault == "weights":  # without what is added to Gemma's norms
        monkeypatch.setattr(gguf_writing, "_convert", lambda values, name, config: values)
    elif fault == "tokens":  # all tokens are merged as if none were more frequent
        monkeypatch.setattr(gguf_vocabulary, "_rank_tokens", lambda tokens, pairs: (0.0,) * len(tokens))
    else:
        monkeypatch.setattr(exporting, "write_gguf", write_half)
    with pytest.raises(EngineError) as caught:
        export_gguf(ExportOptions(build("gemma3"), tmp_path / "new" / "gguf", val_path, "f16"))
    assert caught.value.code == {"weights": "engine", "tokens": "parity-tokens", "file": "server-ended"}[fault]
    assert caught.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_reviews_that_llama_cpp_splits_otherwise_are_told_of(build: Callable[[str], Path], tmp_path: Path) -> None:
    """Qwen's tokenizer composes characters first, and llama.cpp's does not."""
    val = tmp_path / "val.csv"
    val.write_text("label,text\n1,很好\n0,cafe\u0301 很差\n", encoding="utf-8")
    with pytest.raises(EngineError) as caught:
        export_gguf(ExportOptions(build("qwen2"), tmp_path / "gguf", str(val), "f16"))
    assert caught.value.code == "parity-tokens"
    assert "in 1 of 2 prompts" in caught.value.what
    assert "NFC" in caught.value.next_step
    assert [path.name for path in tmp_path.iterdir()] == ["val.csv"]


@pytest.mark.slow
def test_a_review_that_is_too_long_for_the_checkpoint_is_no_flip(build: Callable[[str], Path], tmp_path: Path) -> None:
    val = tmp_path / "val.csv"
    val.write_text(f"label,text\n1,很好\n0,{'太差了。' * 5000}\n", encoding="utf-8")
    parity = export_gguf(ExportOptions(build("qwen2"), tmp_path / "gguf", str(val), "f16"))["parity"]
    assert (parity["reviews"], parity["missing"], parity["flips"]) == (2, 1, 0)


def write_program(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    return folder


def test_what_cannot_be_exported(
    tiny_qwen: Path, val_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "base"}')
    other = link_model(tiny_qwen, tmp_path / "other")
    (other / "config.json").unlink()
    settings = json.loads((tiny_qwen / "config.json").read_text())
    mistral = settings | {"model_type": "mistral", "architectures": ["MistralForCausalLM"]}
    (other / "config.json").write_text(json.dumps(mistral))
    old = write_program(tmp_path / "old", "llama-server", "echo 'version: 4000 (abc)' >&2")
    odd = write_program(tmp_path / "odd", "llama-server", "echo hello")
    without = write_program(tmp_path / "without", "llama-server", "echo 'version: 0.5.0 (build 11434, commit abc)'")
    tag = write_program(tmp_path / "tag", "llama-server", "echo 'version: 11434 (abc)' >&2")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("x")
    assert [find_llama_cpp(folder).build for folder in (tag, without)] == [11434, 11434]
    before = sorted(tmp_path.rglob("*"))
    new = tmp_path / "new"
    cases = [
        (ExportOptions(adapter, new, val_path), "model-adapter"),
        (ExportOptions(other, new, val_path), "model-not-decoder"),
        (ExportOptions(tmp_path / "none", new, val_path), "model-missing"),
        (ExportOptions(tiny_qwen, new, val_path, "q3_x"), "option-value"),
        (ExportOptions(tiny_qwen, new, val_path, max_flips=2.0), "config"),
        (ExportOptions(tiny_qwen, mine, val_path), "config"),
        (ExportOptions(tiny_qwen, new, val_path, llama_cpp=old), "llama-cpp-old"),
        (ExportOptions(tiny_qwen, new, val_path, llama_cpp=odd), "llama-cpp-failed"),
        (ExportOptions(tiny_qwen, new, val_path, llama_cpp=mine), "llama-cpp-missing"),
        (ExportOptions(tiny_qwen, new, val_path, "q4_k_m", llama_cpp=without), "llama-cpp-missing"),
    ]
    for options, code in cases:
        with pytest.raises(ConfigError) as caught:
            export_gguf(options)
        assert (caught.value.code, caught.value.exit_code) == (code, 2)
    with pytest.raises(ConfigError) as caught:
        export_gguf(cases[0][0])
    assert f"sentifactory export merge {adapter}" in caught.value.next_step
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(exporting.shutil, "disk_usage", lambda place: usage(10**9, 10**9, 10**6))
    with pytest.raises(ConfigError) as caught:
        export_gguf(ExportOptions(tiny_qwen, new, val_path))
    assert caught.value.code == "disk-full"
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("file", "name", "value"),
    [
        ("config.json", "max_position_embeddings", 10**12),
        ("config.json", "max_position_embeddings", 0),
        ("generation_config.json", "eos_token_id", [1, -5]),
        ("generation_config.json", "eos_token_id", [1, 99_999_999]),
        ("generation_config.json", "eos_token_id", "</s>"),
    ],
)
def test_numbers_that_a_gguf_file_cannot_hold_are_refused_before_the_model_is_loaded(
    tiny_qwen: Path, val_path: str, tmp_path: Path, file: str, name: str, value: Any
) -> None:
    model = link_model(tiny_qwen, tmp_path / "model")
    settings = json.loads((tiny_qwen / file).read_text()) | {name: value}
    (model / file).unlink()
    (model / file).write_text(json.dumps(settings))
    with pytest.raises(ConfigError) as caught:
        exporting.check_options(ExportOptions(model, tmp_path / "new", val_path))
    assert (caught.value.code, caught.value.exit_code) == ("model-unsupported", 2)
    assert name in caught.value.what


def test_an_old_package_is_refused_and_a_missing_one_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(llama_cpp, "find_spec", lambda name: object())
    monkeypatch.setattr(llama_cpp.metadata, "version", lambda name: "0.2.14")
    with pytest.raises(ConfigError) as caught:
        find_llama_cpp(None)
    assert caught.value.code == "llama-cpp-old"
    monkeypatch.setattr(llama_cpp.metadata, "version", lambda name: "2026.10.11549")
    assert find_llama_cpp(None).build == 11549
    monkeypatch.setattr(llama_cpp, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError) as caught:
        find_llama_cpp(None)
    assert caught.value.code == "package-needed"


def test_the_next_commands_are_those_of_installed_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert describe_servers(Path("gguf"), "m.gguf").startswith("Next: install llama.cpp")
    write_program(tmp_path, "ollama", "true")
    assert describe_servers(Path("gguf"), "m.gguf") == "Next: ollama create sentiment -f gguf/Modelfile"


def test_a_program_that_cannot_run_is_not_called_old(tmp_path: Path) -> None:
    line = "libllama.so: cannot open shared object file"
    write_program(tmp_path, "llama-server", f"echo; echo '{line}' >&2; exit 127")
    with pytest.raises(ConfigError) as caught:
        find_llama_cpp(tmp_path)
    assert caught.value.code == "llama-cpp-failed"
    assert line in caught.value.what


def test_only_wider_precisions_are_advised() -> None:
    found = {kind: exporting._advise_precision(kind) for kind in exporting.LIMITS}
    assert {kind: [one for one in found if one in advice] for kind, advice in found.items()} == {
        "f16": [], "q8_0": ["f16"], "q4_k_m": ["f16", "q8_0"],
    }  # fmt: skip


def test_the_message_of_a_server_that_refuses_is_shown() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        return httpx.Response(400, json={"error": {"message": "the prompt is too long"}})

    with httpx.Client(base_url="http://127.0.0.1", transport=httpx.MockTransport(refuse)) as client:
        server = llama_cpp.LlamaServer(client, process=None)  # type: ignore[arg-type]
        with pytest.raises(EngineError) as caught:
            server.tokenize("x")
    assert caught.value.code == "server-answer"
    assert "the prompt is too long" in caught.value.what


def test_quantising_that_fails_is_reported(tmp_path: Path) -> None:
    program = write_program(tmp_path, "llama-quantize", "echo 'unknown type'; exit 1") / "llama-quantize"
    with pytest.raises(EngineError) as caught:
        llama_cpp.quantise_file(str(program), tmp_path / "a", tmp_path / "b", "q4_k_m")
    assert caught.value.code == "llama-cpp-failed"
    assert "unknown type" in caught.value.next_step


def test_a_tokenizer_of_another_kind_is_refused() -> None:
    class Backend:
        def to_str(self) -> str:
            return json.dumps({"model": {"type": "Unigram"}, "added_tokens": []})

    class Tokenizer:
        backend_tokenizer = Backend()

    with pytest.raises(SentiFactoryError) as caught:
        gguf_vocabulary.read_vocabulary(Tokenizer(), 8, "model")
    assert caught.value.code == "model-unsupported"


def test_terms_that_would_end_the_modelfiles_quotation_are_left_to_their_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "LICENSE").write_text('a """ b')
    (tmp_path / "NOTICE").write_text("c")
    assert exporting._write_terms(tmp_path, tmp_path) == "c"
    assert "LICENSE" in capsys.readouterr().err


def test_the_modelfile_quotes_turns_and_ends_as_they_are() -> None:
    lines = build_modelfile("m.gguf", Turns("", "[Q]", "[A]", ("</s>", "\n", 'say "')), 2048).splitlines()[2:]
    assert lines == [
        'TEMPLATE """[Q]{{ .Prompt }}[A]{{ .Response }}"""', "PARAMETER num_ctx 2048", "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1", 'PARAMETER stop "</s>"', 'PARAMETER stop "', '"',
        'PARAMETER stop """say """"',
    ]  # fmt: skip
    assert "PARAMETER num_ctx 8192" in build_modelfile("m.gguf", Turns("", "", "", ()), 32768)


def test_the_grammar_is_one_of_the_answers() -> None:
    assert build_grammar(BINARY_SENTIMENT) == 'root ::= "{\\"sentiment\\": 0}" | "{\\"sentiment\\": 1}"\n'


def test_a_template_that_is_no_frame_around_the_message_is_refused() -> None:
    class Tokenizer:
        bos_token = "<s>"

        def __init__(self, form: str) -> None:
            self._form = form

        def apply_chat_template(self, messages: list[dict[str, str]], **settings: bool) -> str:
            return self._form.format(messages[0]["content"])

        def decode(self, ids: list[int]) -> str:
            return "\u3000" if ids == [9] else f"</{ids[0]}>"

    assert read_turns(Tokenizer("<s>[Q]{}[A]"), [2, 3], "m") == Turns("<s>", "[Q]", "[A]", ("</2>", "</3>"))
    for form, ends, code in (
        ("[Q]", [2], "chat-template"),
        ("[Q]{{{{ x }}}}{}", [2], "chat-template"),
        ("[Q]{{{}", [2], "chat-template"),
        ("[Q]{}[A]{{", [2], "chat-template"),
        ("[Q]\u3000{}", [2], "chat-template"),
        ("[Q]\u00a0{}", [2], "chat-template"),
        ('[Q]"""{}', [2], "chat-template"),
        ("[Q]{}", [9], "chat-template"),
        ("[Q]{}", [], "model-unsupported"),
    ):
        with pytest.raises(ConfigError) as caught:
            read_turns(Tokenizer(form), ends, "m")
        assert caught.value.code == code
