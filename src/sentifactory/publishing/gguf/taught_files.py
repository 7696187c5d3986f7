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
QUOTES = '"""'
_PLACEHOLDER = "SENTIFACTORY-TURN"
# Ollama's own value is 2048 or 4096 tokens; it cuts a longer prompt without a word.
_CONTEXT_TOKENS = 8192


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
    turns = Turns(first, before.removeprefix(first), after, tuple(tokenizer.decode([end]) for end in ends))
    if not found or not _is_writable(turns):
        raise ConfigError(
            "The chat template cannot be written as a template of Ollama",
            where=where,
            expected="the same printable text around every message, without {{ and three quotation marks, and such "
            "text for the tokens that end a reply",
            next_step="train with a chat template of that form, or serve the checkpoint itself (sentifactory serve)",
            code="chat-template",
        )
    return turns


def _is_writable(turns: Turns) -> bool:
    """Return whether Ollama reads the template and the ends as we write them.

    It drops characters that are not printable, among them all blanks but the ASCII ones, and knows no escapes.
    """
    template = _build_template(turns)
    n_actions = sum(template.startswith("{{", at) for at in range(len(template)))  # "{{{" begins two of them
    texts = (template, *turns.ends)
    is_kept = all(text and QUOTES not in text and all(map(_is_kept, text)) for text in texts)
    return n_actions == 2 and is_kept


def _is_kept(character: str) -> bool:
    return character.isprintable() or character in "\t\n"


def _build_template(turns: Turns) -> str:
    return f"{turns.frame('{{ .Prompt }}')}{{{{ .Response }}}}"


def _quote(text: str) -> str:
    """Return a value of a Modelfile: Ollama removes the outer quotation marks, and resolves no escapes."""
    return f'"{text}"' if '"' not in text else f"{QUOTES}{text}{QUOTES}"


def write_taught_files(folder: Path, model_file: str, turns: Turns, task: Task, n_ctx: int, licence: str) -> None:
    """Write Modelfile, grammar and schema.

    Args:
        folder: of the export.
        model_file: name of the GGUF file in it.
        turns: that the model was taught.
        task: with the answers.
        n_ctx: longest text of the model in tokens.
        licence: the text of the terms, without three quotation marks; "" for none.
    """
    write_text(folder / MODELFILE_NAME, build_modelfile(model_file, turns, n_ctx, licence))
    write_text(folder / GRAMMAR_NAME, build_grammar(task))
    write_json(folder / SCHEMA_NAME, build_schema(task))


def build_modelfile(model_file: str, turns: Turns, n_ctx: int, licence: str = "") -> str:
    """Return the Modelfile; the message is the whole prompt of the task, as our engines send it."""
    lines = [
        f"# Send the prompt of the task as the message. A Modelfile holds no grammar: pass {SCHEMA_NAME} as `format`.",
        f"FROM ./{model_file}",
        f"TEMPLATE {QUOTES}{_build_template(turns)}{QUOTES}",
        f"PARAMETER num_ctx {min(n_ctx, _CONTEXT_TOKENS)}",
        "PARAMETER temperature 0",
        # Ollama's own value would punish the answer for words of the prompt.
        "PARAMETER repeat_penalty 1",
        *(f"PARAMETER stop {_quote(end)}" for end in turns.ends),
    ]
    if licence:
        lines.append(f"LICENSE {QUOTES}{licence.strip()}{QUOTES}")
    return "\n".join(lines) + "\n"


def build_grammar(task: Task) -> str:
    """Return the answers of a task as a grammar of llama.cpp (GBNF)."""
    return f"root ::= {' | '.join(json.dumps(answer, ensure_ascii=False) for answer in list_answers(task))}\n"


def build_schema(task: Task) -> dict[str, Any]:
    """Return the answers of a task as a JSON schema."""
    schema: dict[str, Any] = ask_by_schema(task)["response_format"]["json_schema"]["schema"]
    return schema
