"""Model folders that would keep a loader or a prompt busy for ever are refused before anything is loaded."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sentifactory.engines.registry import check_model
from sentifactory.errors import ConfigError
from sentifactory.models.folder_checks import find_unsafe_content

_LOOPS = "{% for i in range(99999) %}" * 4 + "x" + "{% endfor %}" * 4
_GROWS = "{% set s = namespace(x='ab') %}{% for i in range(60) %}{% set s.x = s.x ~ s.x %}{% endfor %}{{ s.x }}"
_FAIR = "{% for m in messages %}{% generation %}<|{{ m['role'] }}|>{{ m['content'] }}{% endgeneration %}{% endfor %}"


def _make_folder(folder: Path, config: dict[str, object], template: str = _FAIR, *, as_list: bool = False) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    stated = [{"name": "default", "template": template}] if as_list else template
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": stated}), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"\0" * 8)
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "config",
    [
        {"num_hidden_layers": 10_000_000},
        {"n_layer": 1e400},
        {"text_config": {"num_hidden_layers": 10_000_000}},
        {"encoder_layers": -10_000_000},
        {"vocab_size": 10**12},
        {"num_labels": 10**12},
    ],
)
def test_sizes_that_no_model_has_are_refused(tmp_path: Path, config: dict[str, object]) -> None:
    folder = _make_folder(tmp_path / "model", config)
    with pytest.raises(ConfigError) as caught:
        check_model(str(folder))
    assert caught.value.where == str(folder)


@pytest.mark.slow
@pytest.mark.parametrize("template", [_LOOPS, _GROWS, "{{ 'x' * 10 ** 10 }}"])
@pytest.mark.parametrize("as_list", [False, True])
def test_templates_that_do_not_end_are_refused(tmp_path: Path, template: str, as_list: bool) -> None:
    folder = _make_folder(tmp_path / "model", {"num_hidden_layers": 2}, template, as_list=as_list)
    with pytest.raises(ConfigError):
        check_model(str(folder))


def test_a_template_file_is_tried_as_well(tmp_path: Path) -> None:
    folder = _make_folder(tmp_path / "model", {"num_hidden_layers": 2})
    (folder / "chat_template.jinja").write_text(_GROWS, encoding="utf-8")
    assert find_unsafe_content(folder) is not None


@pytest.mark.parametrize(
    "template", [_FAIR, "{{ raise_exception('no system prompt') }}", "{% if %}", "", "{{ nothing.x }}"]
)
def test_what_ends_is_left_to_the_loader(tmp_path: Path, template: str) -> None:
    config = {"num_hidden_layers": 62, "vocab_size": 262_144, "hidden_size": 5376, "rope": {"factor": 8.0}}
    assert find_unsafe_content(_make_folder(tmp_path / "model", config, template)) is None
    assert find_unsafe_content("owner/name") is None


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "model.safetensors"])
def test_a_pipe_is_refused_at_once(tmp_path: Path, name: str) -> None:
    folder = _make_folder(tmp_path / "model", {})
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert f"{name} is not a regular file" in str(find_unsafe_content(folder))
