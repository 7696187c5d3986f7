"""Checks a model's folder, before loading, for content that would keep a loader or a prompt busy forever.

Checks the sizes in config.json, from which loaders allocate lists and layers, and the chat templates. A template is a
program: it is run on one short review, in a separate process with limits on time and memory. Not covered: hub models
that are not downloaded yet, and templates that misbehave only for some reviews.

Also describes the errors of transformers for folders that it cannot load.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from sentifactory.system.json_text import read_json_object

_MAX_LAYERS = 1000
_MAX_SIZE = 1 << 27
_MAX_SETTINGS_BYTES = 1 << 26
_LAYERS = ("layers", "n_layer", "num_blocks", "depth")
_COUNTS, _SIZES = ("num_", "n_"), ("_size", "_dim")
_TEMPLATE_SECONDS = 5
_WAIT_SECONDS = 60
_TEMPLATE_BYTES = 1 << 30
_MAX_PROMPT_CHARS = 1_000_000
_TOO_MUCH = 9
# Renders like transformers: the same environment, with everything that a template may use.
_TRIAL = f"""
import json, sys
from datetime import datetime
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CPU, ({_TEMPLATE_SECONDS}, {_TEMPLATE_SECONDS} + 1))
    resource.setrlimit(resource.RLIMIT_AS, ({_TEMPLATE_BYTES}, {_TEMPLATE_BYTES}))
except (ImportError, OSError, ValueError):
    pass
import jinja2, jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment
class Generation(jinja2.ext.Extension):
    tags = {{"generation"}}
    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(["name:endgeneration"], drop_needle=True)
def fail(message):
    raise jinja2.exceptions.TemplateError(message)
extensions = [Generation, jinja2.ext.loopcontrols]
env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
env.filters["tojson"] = lambda value, **options: json.dumps(value, **options)
env.globals.update(raise_exception=fail, strftime_now=lambda form: datetime.now().strftime(form))
asked = {{"role": "user", "content": "\\u5f88\\u597d"}}
said = {{"role": "assistant", "content": "1"}}
try:
    template = env.from_string(sys.stdin.buffer.read().decode())
    for messages, begins in (([asked], True), ([asked, said], False)):
        n_chars = 0
        for piece in template.generate(messages=messages, add_generation_prompt=begins, tools=None, documents=None,
                                       bos_token="<s>", eos_token="</s>", pad_token="</s>", unk_token="<unk>"):
            n_chars += len(piece)
            if n_chars > {_MAX_PROMPT_CHARS}:
                sys.exit({_TOO_MUCH})
except MemoryError:
    sys.exit({_TOO_MUCH})
except Exception:
    pass
"""


def find_unsafe_content(model: str | Path) -> str | None:
    """Return why a model's folder is unsafe to load, as a clause; None if it is safe, or not a folder."""
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return None
    for path in sorted(folder.iterdir()):
        if path.exists() and not path.is_file() and not path.is_dir():
            return f"{path.name} is not a regular file, and reading it could block forever"
    file = folder / "config.json"
    if file.is_file() and file.stat().st_size > _MAX_SETTINGS_BYTES:
        return f"config.json has more than {_MAX_SETTINGS_BYTES >> 20} MiB"
    if fault := _find_size_fault(read_json_object(file) or {}):
        return fault
    return next((fault for text in _iter_templates(folder) if (fault := _try_template(text))), None)


def _find_size_fault(config: dict[str, Any]) -> str | None:
    pending = [config]
    while pending:
        for key, value in pending.pop().items():
            if isinstance(value, dict):
                pending.append(value)
            elif isinstance(value, int | float) and (key.startswith(_COUNTS) or key.endswith((*_SIZES, *_LAYERS))):
                limit = _MAX_LAYERS if key.endswith(_LAYERS) else _MAX_SIZE
                if abs(value) > limit:
                    return f"config.json has {key} {value:.9g}, above the limit of {limit:,}"
    return None


def _iter_templates(folder: Path) -> Iterator[str]:
    """Yield all chat templates in a folder, skipping files that are not text or JSON."""
    for path in sorted((*folder.glob("*.jinja"), *folder.glob("additional_chat_templates/*.jinja"))):
        try:
            if path.stat().st_size <= _MAX_SETTINGS_BYTES:
                yield path.read_text(encoding="utf-8")
        except (OSError, ValueError):
            continue
    for name in ("tokenizer_config.json", "chat_template.json", "processor_config.json"):
        found = (read_json_object(folder / name) or {}).get("chat_template")
        if isinstance(found, dict):
            found = [*found.values()]
        for one in found if isinstance(found, list) else [found]:
            text = one.get("template") if isinstance(one, dict) else one
            if isinstance(text, str):
                yield text


@lru_cache(maxsize=64)
def _try_template(text: str) -> str | None:
    if "{%" not in text and "{{" not in text:
        return None
    try:
        code = subprocess.run(
            [sys.executable, "-I", "-c", _TRIAL],
            input=text.encode("utf-8", "replace"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_WAIT_SECONDS,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired:
        code = _TOO_MUCH
    except OSError:  # no process can be started, so that the next step fails as well
        return None
    is_killed = code < 0 or code == _TOO_MUCH
    if not is_killed:
        return None
    return f"its chat template takes more than {_TEMPLATE_SECONDS} s or {_TEMPLATE_BYTES >> 30} GiB for a short review"


def is_load_error(error: Exception) -> bool:
    """Return whether a library's error means that a folder cannot be loaded, rather than a defect of ours.

    The package tokenizers raises plain `Exception`.
    """
    from safetensors import SafetensorError

    plain = (OSError, ValueError, LookupError, RuntimeError, TypeError, AttributeError, ImportError, AssertionError)
    return type(error) is Exception or isinstance(error, (*plain, pickle.UnpicklingError, SafetensorError))


def describe_load_error(error: Exception) -> str:
    """Return why a folder cannot be loaded, as a clause.

    torch's own message for a pickle advises loading it anyway, which would execute its code.
    """
    if isinstance(error, pickle.UnpicklingError):
        return "its weights are a pickle that contains more than tensors, which is not loaded"
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
