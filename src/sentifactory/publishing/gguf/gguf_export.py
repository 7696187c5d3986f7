"""Exports a language model as GGUF, and verifies on validation reviews that a real llama.cpp answers the same.

First the prompts of the reviews must be the same tokens in both: as llama.cpp renders them with the chat template in
the file, and as it splits them. Then the probabilities of the labels are compared (`parity`). An export that fails is
not written. Ollama reads the same file, but is not asked here.
"""

from __future__ import annotations

import shutil
import time
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sentifactory.corpus.dataset.dataset_files import read_labelled
from sentifactory.corpus.splitting.sampling import take_sample
from sentifactory.engines.answer_tokens import count_common
from sentifactory.engines.local.transformers_engine import TransformersEngine, tokenize_prompt
from sentifactory.engines.registry import check_model
from sentifactory.errors import ConfigError, EngineError
from sentifactory.models.decoder_folder import read_decoder
from sentifactory.models.notices import add_notice, list_notices
from sentifactory.models.weights import ADAPTER_CONFIG, hash_weights
from sentifactory.publishing.export.model_export import EXPORT_VERSION, copy_evidence
from sentifactory.publishing.export.parity import (
    EXPORT_NAME,
    ParityLimits,
    check_limits,
    compare_answers,
    refuse_foreign_folder,
)
from sentifactory.publishing.gguf.gguf_writing import FileFacts, FilePlan, plan_gguf, write_gguf
from sentifactory.publishing.gguf.llama_cpp import (
    LlamaCpp,
    LlamaServer,
    find_llama_cpp,
    quantise_file,
    start_llama_server,
)
from sentifactory.publishing.gguf.taught_files import QUOTES, Turns, read_turns, write_taught_files
from sentifactory.publishing.hub.licences import find_base
from sentifactory.records import Prediction, Review
from sentifactory.system.atomic import explain_os_errors, refuse_overwriting_inputs, replace_directory
from sentifactory.system.command_line import write_command
from sentifactory.system.extras import require_packages
from sentifactory.system.progress import say, show_progress
from sentifactory.task.task import Task
from sentifactory.task.task_choice import choose_task

_KIND = "gguf"
# By precision, the widest first.
LIMITS = {
    "f16": ParityLimits(flips=0.01, difference=0.005),
    "q8_0": ParityLimits(flips=0.01, difference=0.02),
    "q4_k_m": ParityLimits(flips=0.02, difference=0.05),
}
# Bytes a weight, at most: llama.cpp stores a matrix in 8.5 bits whose rows are no multiple of 256.
_MADE_BY_LLAMA_CPP = {"q4_k_m": 1.07}
_TOKENIZER_BYTES = 16_000_000
_SPARE_TOKENS = 64


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """The options of an export.

    Attributes:
        model: folder of a checkpoint.
        output_dir: folder to write; an earlier export there is replaced.
        val_path: labelled validation reviews for the comparison.
        quantise: precision: `f16`, `q8_0` or `q4_k_m`.
        max_flips: largest share of labels that may flip; None: that of the precision.
        max_difference: largest mean difference of the probabilities; None: that of the precision.
        max_samples: maximum number of reviews to compare.
        llama_cpp: folder of a llama.cpp; None: the package, or the programs in the PATH.
        task: name or YAML file of the task; None: the task that the model was trained on.
        seed: for sampling the reviews.
    """

    model: Path
    output_dir: Path
    val_path: str
    quantise: str = "q8_0"
    max_flips: float | None = None
    max_difference: float | None = None
    max_samples: int = 300
    llama_cpp: Path | None = None
    task: str | None = None
    seed: int = 42

    @property
    def limits(self) -> ParityLimits:
        """The limits that the export must keep."""
        usual = LIMITS[self.quantise]
        return ParityLimits(
            usual.flips if self.max_flips is None else self.max_flips,
            usual.difference if self.max_difference is None else self.max_difference,
        )


@dataclass(frozen=True, slots=True)
class Expected:
    """What the checkpoint makes of the validation reviews, which llama.cpp must make of them too.

    Attributes:
        reviews: (n,) the reviews.
        messages: (n,) the chat messages about each.
        prompts: (n,) the token ids of each prompt.
        answers: (n,) the checkpoint's answers.
        turns: around every prompt.
        ends: ids of the tokens that end an answer.
        tokenizer: of transformers.
    """

    reviews: Sequence[Review]
    messages: Sequence[list[dict[str, str]]]
    prompts: Sequence[list[int]]
    answers: Sequence[Prediction]
    turns: Turns
    ends: Sequence[int]
    tokenizer: Any

    @property
    def answered(self) -> list[int]:
        """The places of the reviews that the checkpoint has answered: it takes no longer ones."""
        return [at for at, answer in enumerate(self.answers) if answer.label is not None]


def export_gguf(options: ExportOptions) -> dict[str, Any]:
    """Export a checkpoint; return the content of the new folder's export file.

    Raises:
        ConfigError: when a folder or option cannot be used, a program is missing or too old, or no room is left.
        DataError: when the validation reviews cannot be used.
        EngineError: when llama.cpp reads other tokens or answers differently; nothing is written.
    """
    plan, llama_cpp = check_options(options)
    chosen = choose_task(options.task, models=[options.model], data=[options.val_path]).announce()
    everything, _ = read_labelled(options.val_path, chosen.task)
    reviews = take_sample(everything, options.max_samples, options.seed)
    expected = _ask_checkpoint(options.model, chosen.task, reviews)
    source_weights = hash_weights(options.model)
    check_folder = partial(refuse_foreign_folder, proof_name=EXPORT_NAME, kind=_KIND)
    with replace_directory(options.output_dir, check_folder) as place:
        file = place / f"model-{options.quantise}.gguf"
        _write_file(options, plan, expected, llama_cpp, file)
        n_longest = max((len(expected.prompts[at]) for at in expected.answered), default=0) + _SPARE_TOKENS
        with start_llama_server(llama_cpp, file, n_longest) as server:
            n_tokens = compare_tokens(server, expected, str(options.model))
            started = time.monotonic()
            found = ask_server(server, expected, chosen.task)
            reviews_per_s = len(expected.answered) / (time.monotonic() - started)
        parity = compare_answers(reviews, expected.answers, found, options.limits)
        parity.refuse_beyond_limits(
            str(options.model),
            f"The model as {options.quantise}",
            _advise_precision(options.quantise),
        )
        proof = {
            "version": EXPORT_VERSION,
            "kind": _KIND,
            "dtype": options.quantise,
            "source": str(options.model),
            "source_weights": source_weights,
            "weights": hash_weights(place),
            "size_bytes": file.stat().st_size,
            "llama_cpp": {"name": llama_cpp.name, "build": llama_cpp.build},
            "tokens": {"reviews": len(reviews), "tokens": n_tokens, "different": 0},
            "stop": list(expected.turns.ends),
            "task": chosen.to_json(),
            "parity": parity.to_dict() | {"val_path": options.val_path},
            "reviews_per_s": reviews_per_s,
        }
        copy_evidence(options.model, place, chosen.task, proof)
        terms = _write_terms(options.model, place)
        n_ctx = plan.config.max_position_embeddings
        write_taught_files(place, file.name, expected.turns, chosen.task, n_ctx, terms)
    say(f"{options.output_dir} is ready")
    return proof


def check_options(options: ExportOptions) -> tuple[FilePlan, LlamaCpp]:
    """Check the options before a model is loaded; return what the file is made of, and the llama.cpp.

    Raises:
        ConfigError: for the first problem.
    """
    if options.quantise not in LIMITS:
        raise ConfigError(f"--quantise is {options.quantise!r}", expected=", ".join(LIMITS), code="option-value")
    check_limits(options.limits)
    if (options.model / ADAPTER_CONFIG).is_file():
        merge = write_command(
            "export",
            "merge",
            options.model,
            ("--output_dir", f"{options.model}-merged"),
            ("--val_path", options.val_path),
        )
        raise ConfigError(
            "This is a LoRA adapter, not a complete model",
            where=str(options.model),
            next_step=f"merge it first: {merge}",
            code="model-adapter",
        )
    check_model(str(options.model))
    refuse_overwriting_inputs([options.output_dir], [options.model, options.val_path, options.task], "--output_dir")
    refuse_foreign_folder(options.output_dir, EXPORT_NAME, _KIND)
    decoder = read_decoder(options.model)
    require_packages("gguf")
    llama_cpp = find_llama_cpp(options.llama_cpp)
    is_made = options.quantise in _MADE_BY_LLAMA_CPP
    if is_made and llama_cpp.quantiser is None:
        raise ConfigError(
            f"{options.quantise} is made by llama.cpp's program llama-quantize, which is not installed",
            where="PATH" if options.llama_cpp is None else str(options.llama_cpp),
            expected="llama-quantize in the PATH, or in the folder that --llama_cpp names",
            next_step="install llama.cpp (Homebrew, conda-forge or its releases have it), or pass --quantise q8_0",
            code="llama-cpp-missing",
        )
    plan = plan_gguf(decoder, "f16" if is_made else options.quantise)
    _refuse_full_disk(options, plan.size_bytes + _TOKENIZER_BYTES)
    return plan, llama_cpp


def _refuse_full_disk(options: ExportOptions, needed: int) -> None:
    """Refuse an export that does not fit on the disk; an earlier one stays beside it until the new one is proven."""
    needed += int(_MADE_BY_LLAMA_CPP.get(options.quantise, 0) * needed / 2)
    place = options.output_dir.expanduser().absolute()
    with explain_os_errors(place):
        free = shutil.disk_usage(next(folder for folder in place.parents if folder.is_dir())).free
    if free < needed:
        raise ConfigError(
            f"The export needs {needed / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free",
            where=str(options.output_dir),
            next_step="free some space, or choose another --output_dir",
            code="disk-full",
        )


def _ask_checkpoint(model: Path, task: Task, reviews: Sequence[Review]) -> Expected:
    """Return the checkpoint's tokens and uncalibrated answers; its memory is freed afterwards."""
    with TransformersEngine(str(model), task, name="the checkpoint", mode="score") as engine:
        answers = engine.predict(reviews)
        tokenizer, ends = engine.tokenizer, engine.ends
    messages = [task.render_messages(review.text) for review in reviews]
    return Expected(
        reviews,
        messages,
        [tokenize_prompt(tokenizer, turns) for turns in messages],
        answers,
        read_turns(tokenizer, ends, str(model)),
        ends,
        tokenizer,
    )


def _write_file(options: ExportOptions, plan: FilePlan, expected: Expected, llama_cpp: LlamaCpp, file: Path) -> None:
    base = find_base(str(options.model))
    name = options.model.resolve().name
    changed = f"{name}: tuned{f' from {base.hub_id}' if base.hub_id else ''}, and converted to GGUF by SentiFactory"
    facts = FileFacts(name, changed, base.hub_id, base.licence, base.link)
    if options.quantise not in _MADE_BY_LLAMA_CPP:
        write_gguf(plan, expected.tokenizer, expected.ends, file, facts)
        return
    assert llama_cpp.quantiser is not None  # noqa: S101 - `check_options` has refused it
    whole = file.with_name("whole.gguf")
    write_gguf(plan, expected.tokenizer, expected.ends, whole, facts)
    quantise_file(llama_cpp.quantiser, whole, file, options.quantise)
    whole.unlink()


def compare_tokens(server: LlamaServer, expected: Expected, where: str) -> int:
    """Return how many tokens the prompts have, which are the same in llama.cpp.

    A prompt is compared twice: as the chat template in the file makes it, and as the Modelfile's template does.

    Raises:
        EngineError: with the first review whose prompt llama.cpp renders or splits otherwise.
    """
    different: list[tuple[int, list[int]]] = []
    with show_progress("Comparing tokens", total=len(expected.prompts), unit="reviews") as progress:
        for at, (messages, prompt) in enumerate(zip(expected.messages, expected.prompts, strict=True)):
            texts = (server.render(messages), expected.turns.frame(messages[0]["content"]))
            different += [(at, found) for text in texts if (found := server.tokenize(text)) != prompt][:1]
            progress.advance()
    if different:
        at, found = different[0]
        place, text = count_common([found, expected.prompts[at]]), expected.reviews[at].text
        is_composed = unicodedata.is_normalized("NFC", text)
        raise EngineError(
            f"llama.cpp reads other tokens than the checkpoint in {len(different)} of {len(expected.prompts)} "
            f"prompts; that of the review {text[:40]!r} differs from token {place + 1} on; "
            "nothing was written",
            where=where,
            expected="the same tokens in every prompt",
            next_step="report the model's tokenizer, which llama.cpp does not compute as transformers does"
            if is_composed
            else "bring the validation reviews into Unicode's form NFC, and whatever llama.cpp is asked about",
            code="parity-tokens",
        )
    return sum(map(len, expected.prompts))


def ask_server(server: LlamaServer, expected: Expected, task: Task) -> list[Prediction]:
    """Return llama.cpp's answers to the reviews that the checkpoint has answered, and none to the others.

    Raises:
        EngineError: when the server does not answer.
    """
    asked = expected.answered
    answers = dict(zip(asked, server.predict([expected.reviews[at] for at in asked], task), strict=True))
    return [answers.get(at, Prediction(None)) for at in range(len(expected.reviews))]


def _advise_precision(quantise: str) -> str:
    """Return what to do about an export in a precision that answers differently."""
    wider = list(LIMITS)[: list(LIMITS).index(quantise)]
    advice = "raise --max_flips and --max_difference"
    return f"export with more bits (--quantise {' or '.join(wider)}), or {advice}" if wider else advice


def _write_terms(model: Path, place: Path) -> str:
    """Write the notice that the terms ask for where no file has it; return the terms that a Modelfile can quote."""
    base = find_base(str(model))
    if base.notice:
        add_notice(place, base.notice)
    texts = {path.name: path.read_text(encoding="utf-8", errors="replace") for path in list_notices(place)}
    if not texts:
        say("No file with the terms of the model was found: add that of the base model before you pass the folder on")
    for name in [name for name, text in texts.items() if QUOTES in text]:
        say(f"The Modelfile cannot quote {name}, which contains {QUOTES}: pass the file on with the model")
        del texts[name]
    return "\n\n".join(texts.values())
