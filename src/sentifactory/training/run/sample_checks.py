"""Checks LLaMA-Factory's samples before the first step: the chat template, and truncation by `cutoff_len`.

- The recipe's `template` must give the same token ids as the checkpoint's own chat template, which comparisons,
  labelling and the service use. A checkpoint without one gets the recipe's template saved with its weights.
- `cutoff_len` truncates a sample at the end of its prompt, where the review is, and at the end of its answer. Where a
  sample reaches the limit, LLaMA-Factory is called again without it to find what was truncated.

Both checks need the tokenizer and the samples of the run, so they run where LLaMA-Factory creates them. Not covered:
stages other than sft, streamed data, and data that was tokenised before (`tokenized_path`).
"""

from __future__ import annotations

import copy
import difflib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sentifactory.errors import ConfigError
from sentifactory.system.progress import say
from sentifactory.task.task import BINARY_SENTIMENT, REFERENCE_SENTIMENT
from sentifactory.training.acceleration.answer_logits import IGNORED_LABEL, iter_token_rows
from sentifactory.training.recipe.recipe import Recipe
from sentifactory.training.run.trainer_output import capture_trainer_output

CUT = "cut_samples"
# With a larger share of truncated samples the model would learn prompts without reviews.
MAX_CUT_SHARE = 0.5
_NO_LIMIT = 1 << 30
_MAX_SUGGESTIONS = 3
_SHOWN_CHARS = 60

Ids = list[int]


@contextmanager
def check_samples(recipe: Recipe, card: dict[str, Any]) -> Iterator[None]:
    """Check template and samples of the runs in the block; the card gets the counts of truncated samples."""
    from llamafactory.train.sft import workflow

    stock = workflow.get_template_and_fix_tokenizer, workflow.get_dataset
    workflow.get_template_and_fix_tokenizer = lambda *args: load_template(recipe, *args)
    workflow.get_dataset = lambda *args, **options: load_samples(recipe, card, *args, **options)
    try:
        yield
    finally:
        workflow.get_template_and_fix_tokenizer, workflow.get_dataset = stock


def check_template(recipe: Recipe) -> None:
    """Refuse a template that differs from the checkpoint's, without starting a run.

    Raises:
        ConfigError: as `load_template`.
    """
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    if recipe.settings.get("stage", "sft") != "sft":
        return
    with capture_trainer_output(Path(os.devnull)):
        model_args, data_args, *_ = get_train_args({**copy.deepcopy(recipe.settings), "overwrite_output_dir": True})
        load_template(recipe, load_tokenizer(model_args)["tokenizer"], data_args)


def load_template(recipe: Recipe, tokenizer: Any, data_args: Any) -> Any:
    """Return LLaMA-Factory's template of a recipe, and prepare the tokenizer for it.

    Raises:
        ConfigError: when its token ids differ from those of the checkpoint's own chat template.
    """
    from llamafactory.data import get_template_and_fix_tokenizer
    from llamafactory.data.template import TEMPLATES

    own = tokenizer.chat_template
    asked = [encode_as_asked(tokenizer, messages) for messages in _build_conversations()] if own else []
    registered = TEMPLATES.get(data_args.template)
    try:
        # It writes `default_system` into the template, which would leak into the next recipe of this process.
        if registered is not None:
            TEMPLATES[data_args.template] = copy.copy(registered)
        template = get_template_and_fix_tokenizer(tokenizer, data_args)
    finally:
        if registered is not None:
            TEMPLATES[data_args.template] = registered
    if not own:
        say(
            "The model has no chat template of its own: training and inference will use the template "
            f"{data_args.template or 'empty'}."
        )
    elif not _matches(template, tokenizer, asked):
        names = _find_matching(recipe, tokenizer, asked)
        # Some checkpoints begin every answer with a token that LLaMA-Factory's template counts as part of the answer.
        if names or not _matches(template, tokenizer, [(prompt, []) for prompt, _ in asked]):
            raise _explain_mismatch(recipe, template, tokenizer, data_args, asked, names)
    return template


def _build_conversations() -> list[list[dict[str, str]]]:
    return [
        BINARY_SENTIMENT.render_messages("很好，值得购买", 1),
        REFERENCE_SENTIMENT.render_messages("Not good.\n  Never again", 0),
    ]


def encode_as_asked(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> tuple[Ids, Ids]:
    """Return the token ids of the prompt as the engines send it, and of the answer that they score after it.

    The answer includes the first end-of-turn token where the checkpoint tokenises the whole turn in the same way.
    """

    def encode(text: str) -> Ids:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    prompt = encode(tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True))
    answer = encode(messages[1]["content"])
    turns = encode(tokenizer.apply_chat_template(messages, tokenize=False))
    n_tokens = len(prompt) + len(answer)
    return prompt, [*answer, *turns[n_tokens : n_tokens + 1]] if turns[:n_tokens] == [*prompt, *answer] else answer


def _encode_for_training(template: Any, tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> Ids:
    prompt, answer = template.encode_multiturn(tokenizer, messages, None, None)[0]
    return [*prompt, *answer]


def _matches(template: Any, tokenizer: Any, asked: Sequence[tuple[Ids, Ids]]) -> bool:
    for messages, (prompt, answer) in zip(_build_conversations(), asked, strict=True):
        wanted = [*prompt, *answer]
        if _encode_for_training(template, tokenizer, messages)[: len(wanted)] != wanted:
            return False
    return True


def _find_matching(recipe: Recipe, tokenizer: Any, asked: Sequence[tuple[Ids, Ids]]) -> list[str]:
    """Return a few text-only templates that match the checkpoint's, most similar name first."""
    from llamafactory.data.template import TEMPLATES

    found = [
        name
        for name, template in TEMPLATES.items()
        if type(template.mm_plugin).__name__ == "BasePlugin" and _matches(template, tokenizer, asked)
    ]
    hints = [Path(str(recipe.settings.get(key, ""))).name for key in ("template", "model_name_or_path")]

    def measure_similarity(name: str) -> float:
        return max(difflib.SequenceMatcher(None, name, hint.lower()).ratio() for hint in hints)

    return sorted(found, key=measure_similarity, reverse=True)[:_MAX_SUGGESTIONS]


def _explain_mismatch(
    recipe: Recipe, template: Any, tokenizer: Any, data_args: Any, asked: Sequence[tuple[Ids, Ids]], names: list[str]
) -> ConfigError:
    wanted = [*asked[0][0], *asked[0][1]]
    given = _encode_for_training(template, tokenizer, _build_conversations()[0])
    ours, theirs = (tokenizer.decode(ids).split("\n") for ids in (given, wanted))
    # The first line that differs is the most informative.
    pairs = [(one, other) for one, other in zip(ours, theirs, strict=False) if one != other]
    trained, expected = pairs[0] if pairs else (ours[0], theirs[0])
    if data_args.default_system is not None:
        # Any template would include it.
        next_step = "remove default_system: inference will not send it"
    elif names:
        next_step = f"set template: {' or '.join(names)}"
    else:
        next_step = "set the template that LLaMA-Factory has for this model"
    return ConfigError(
        f"The template {data_args.template} writes the line {trained[:_SHOWN_CHARS]!r} where the model's own chat "
        f"template, which inference uses, has {expected[:_SHOWN_CHARS]!r}",
        where=f"{recipe.path}, template ({recipe.locate('template')})",
        next_step=next_step,
        code="template-differs",
    )


def load_samples(
    recipe: Recipe,
    card: dict[str, Any],
    template: Any,
    model_args: Any,
    data_args: Any,
    training_args: Any,
    *,
    stage: str,
    **tokens: Any,
) -> dict[str, Any]:
    """Return the samples of a run, tokenised by LLaMA-Factory; the card gets the counts of truncated samples.

    Raises:
        ConfigError: when an answer, or more than half of the samples, are truncated.
    """
    from llamafactory.data import get_dataset
    from llamafactory.data.loader import _get_merged_dataset

    def load(**changes: Any) -> dict[str, Any]:
        args = copy.copy(data_args)
        for key, value in changes.items():
            setattr(args, key, value)
        found: dict[str, Any] = get_dataset(template, model_args, args, training_args, stage=stage, **tokens)
        return found

    data = load()
    _warn_of_unmixed(recipe, data_args, training_args)
    card[CUT] = None
    if not data_args.streaming and data_args.tokenized_path is None:
        card[CUT] = _count_cut(data, data_args, load)
        for part, counts in card[CUT].items():
            check_cut_samples(recipe, part, counts, recipe.settings.get("cutoff_len", data_args.cutoff_len))
        _warn_of_system_prompts(_get_merged_dataset(data_args.dataset, model_args, data_args, training_args, stage))
    return data


def _count_cut(data: dict[str, Any], data_args: Any, load: Callable[..., dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Return for each part the numbers of samples, truncated samples and truncated answers, and the largest length."""
    single = {"packing": False, "neat_packing": False}
    cut = _list_parts(load(**single) if data_args.packing else data)
    counts = {}
    whole: dict[str, Any] | None = None
    for part, dataset in cut.items():
        lengths = [len(ids) for (ids,) in iter_token_rows(dataset, "input_ids")]
        found = {"samples": len(lengths), "cut": 0, "answers_cut": 0, "longest": max(lengths, default=0)}
        if found["longest"] >= data_args.cutoff_len:  # truncated, or exactly this long
            if whole is None:
                whole = _list_parts(load(**single, cutoff_len=_NO_LIMIT, train_on_prompt=False))
            found |= _compare_with_whole(dataset, whole[part])
        counts[part] = found
    return counts


def _list_parts(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data sets by name, without those that separate prompt and answer (`predict_with_generate`)."""
    given = {"train": data.get("train_dataset"), "eval": data.get("eval_dataset")}
    several = given["eval"] if isinstance(given["eval"], dict) else {"eval": given["eval"]}
    parts = {"train": given["train"], **several}
    return {name: dataset for name, dataset in parts.items() if dataset is not None and _has_full_labels(dataset)}


def _has_full_labels(dataset: Any) -> bool:
    return len(dataset) > 0 and len(dataset[0]["input_ids"]) == len(dataset[0]["labels"])


def _compare_with_whole(cut: Any, whole: Any) -> dict[str, int]:
    n_cut = n_answers = longest = 0
    for (ids,), (full, labels) in zip(
        iter_token_rows(cut, "input_ids"), iter_token_rows(whole, "input_ids", "labels"), strict=True
    ):
        longest = max(longest, len(full))
        if len(full) == len(ids):
            continue
        n_cut += 1
        ignored = (labels == IGNORED_LABEL).nonzero()[0]
        answer = full[ignored[-1] + 1 :] if len(ignored) else full
        n_answers += len(answer) > len(ids) or list(ids[len(ids) - len(answer) :]) != list(answer)
    return {"cut": n_cut, "answers_cut": n_answers, "longest": longest}


def check_cut_samples(recipe: Recipe, part: str, counts: Mapping[str, int], limit: int) -> None:
    """Report the truncated samples of a part.

    Args:
        recipe: sets the limit.
        part: `train` or the name of the validation data.
        counts: `samples` and `cut`, and `answers_cut` and `longest` where known.
        limit: in tokens.

    Raises:
        ConfigError: when an answer, or more than half of the samples, are truncated.
    """
    if not counts["cut"]:
        return
    share = f"{counts['cut']} of {counts['samples']} {part} samples ({counts['cut'] / counts['samples']:.1%})"
    n_answers = counts.get("answers_cut", 0)
    what = f"cutoff_len is {limit} tokens and cuts {share}" + (f", {n_answers} in the answer" if n_answers else "")
    if not n_answers and counts["cut"] <= MAX_CUT_SHARE * counts["samples"]:
        say(f"{what}, each at the end of its review.")
        return
    # A packed row ends with one more token.
    needed = f": {counts['longest'] + bool(recipe.settings.get('packing'))}" if "longest" in counts else " higher"
    raise ConfigError(
        what,
        where=f"{recipe.path}, cutoff_len ({recipe.locate('cutoff_len')})",
        expected="complete answers, and at least half of the reviews complete",
        next_step=f"set cutoff_len{needed}, or prepare the data with --max_tokens",
        code="samples-cut",
    )


def _warn_of_unmixed(recipe: Recipe, data_args: Any, training_args: Any) -> None:
    """Warn of several data sets that are trained on one after another: a model forgets what it no longer sees."""
    is_kept_order = training_args.train_sampling_strategy == "sequential" or recipe.settings.get("disable_shuffling")
    names = list(data_args.dataset or ())
    if len(names) > 1 and is_kept_order and data_args.mix_strategy == "concat":
        say(
            f"WARNING: the order of the rows is kept, so that {names[0]} is trained on first and {names[-1]} last; "
            "train_sampling_strategy=random mixes them."
        )


def _warn_of_system_prompts(rows: Any) -> None:
    """Warn of training data with a system prompt, which inference will not send."""
    n_rows = 0 if rows is None else sum(map(bool, rows["_system"]))
    if n_rows:
        say(
            f"WARNING: {n_rows} of {len(rows)} training samples have a system prompt. predict, label, serve "
            "and eval compare do not send it."
        )
