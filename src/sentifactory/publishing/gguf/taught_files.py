"""Writes what a GGUF file cannot say: the Modelfile of Ollama, and the grammar of the answers.

llama.cpp takes the grammar with a request, as GBNF or as a JSON schema. Ollama takes only the schema, as `format` of a
request; a Modelfile cannot hold it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentifactory.engines.openai.chat_modes import ask_by_schema, list_answers
from sentifactory.errors import ConfigError
from sentifactory.system.atomic import write_json, write_text
from sentifactory.task.task import Task

MODELFILE_NAME = "Modelfile"
GRAMMAR_NAME = "answer.gbnf"
SCHEMA_NAME = "answer.schema.json"
_PLACEHOLDER = "SENTIFACTORY-TURN"


@dataclass(frozen=True, slots=True)
class Turns:
    """What a model was taught around the prompt of a review.

    Attributes:
        first: the token that a prompt begins with, as text; "" if there is none. llama.cpp and Ollama write it.
        before: from there to the prompt.
        after: from the prompt to the answer.
        ends: the tokens that end an answer, as text.
    """

    first: str
    before: str
    after: str
    ends: tuple[str, ...]

    def frame(self, prompt: str) -> str:
        """Return a prompt as Ollama writes it, before it puts the first token there."""
        return f"{self.before}{prompt}{self.after}"


def read_turns(tokenizer: Any, ends: Sequence[int], where: str) -> Turns:
    """Return the turns that a tokenizer's chat template writes around one message.

    Raises:
        ConfigError: when the template does more than that, so that Ollama's cannot be the same, or no token ends a
            reply.
    """
    if not ends:
        raise ConfigError(
            "No token ends a reply",
            where=where,
            expected="eos_token_id in generation_config.json",
            next_step="take the settings of generation from the model that this one was tuned from",
            code="model-unsupported",
        )
    messages = [{"role": "user", "content": _PLACEHOLDER}]
    whole = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    before, found, after = whole.partition(_PLACEHOLDER)
    first = tokenizer.bos_token if tokenizer.bos_token and before.startswith(tokenizer.bos_token) else ""
    turns = Turns(first, before.removeprefix(first), after, tuple(tokenizer.convert_ids_to_tokens(list(ends))))
    if not found or any(mark in before + after for mark in ("{{", '"""')):
        raise ConfigError(
            "The chat template cannot be written as a template of Ollama",
            where=where,
            expected="fixed words around the message",
            code="chat-template",
        )
    return turns


def write_taught_files(folder: Path, model_file: str, turns: Turns, task: Task, licence: str) -> None:
    """Write Modelfile, grammar and schema.

    Args:
        folder: of the export.
        model_file: name of the GGUF file in it.
        turns: that the model was taught.
        task: with the answers.
        licence: the text of the terms; "" for none.
    """
    write_text(folder / MODELFILE_NAME, build_modelfile(model_file, turns, licence))
    write_text(folder / GRAMMAR_NAME, build_grammar(task))
    write_json(folder / SCHEMA_NAME, build_schema(task))


def build_modelfile(model_file: str, turns: Turns, licence: str = "") -> str:
    """Return the Modelfile; the message is the whole prompt of the task, as our engines send it."""
    lines = [
        f"# Send the prompt of the task as the message. A Modelfile holds no grammar: pass {SCHEMA_NAME} as `format`.",
        f"FROM ./{model_file}",
        f'TEMPLATE """{turns.frame("{{ .Prompt }}")}{{{{ .Response }}}}"""',
        "PARAMETER temperature 0",
        # Ollama's own value would punish the answer for words of the prompt.
        "PARAMETER repeat_penalty 1",
        *(f"PARAMETER stop {json.dumps(end, ensure_ascii=False)}" for end in turns.ends),
    ]
    if licence and '"""' not in licence:
        lines.append(f'LICENSE """{licence.strip()}"""')
    return "\n".join(lines) + "\n"


def build_grammar(task: Task) -> str:
    """Return the answers of a task as a grammar of llama.cpp (GBNF)."""
    return f"root ::= {' | '.join(json.dumps(answer, ensure_ascii=False) for answer in list_answers(task))}\n"


def build_schema(task: Task) -> dict[str, Any]:
    """Return the answers of a task as a JSON schema."""
    schema: dict[str, Any] = ask_by_schema(task)["response_format"]["json_schema"]["schema"]
    return schema
