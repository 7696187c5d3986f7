"""Looks at what LLaMA-Factory is about to teach, before the first step: is it what will be asked, and is it whole?

- The recipe's `template` must write a review's turn in the token ids of the checkpoint's own chat template, in which
  comparisons, labelling and the service ask. A checkpoint without one gets that of the recipe, beside its weights.
- `cutoff_len` cuts a sample at the end of its prompt, where the review stands, and at the end of its answer. What was
  cut is found by LLaMA-Factory itself, which is called a second time without the limit where a sample reaches it.

Both need the tokenizer and the samples of the run, so they are looked at where LLaMA-Factory makes them. Not covered:
other stages than sft, streamed data, and data tokenised beforehand (`tokenized_path`), which hold no longer form.
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
from sentifactory.progress import say
from sentifactory.task import BINARY_SENTIMENT, REFERENCE_SENTIMENT
from sentifactory.training.answer_loss import IGNORED_LABEL
from sentifactory.training.output_control import collect_chatter
from sentifactory.training.recipe import Recipe
from sentifactory.training.token_rows import iter_token_rows

CUT = "cut_samples"
# With more cut samples than this the model is taught prompts without reviews.
MOST_CUT = 0.5
_NO_LIMIT = 1 << 30
_MOST_NAMES = 3
_SHOWN_CHARS = 60

Ids = list[int]


@contextmanager
def watch_samples(recipe: Recipe, card: dict[str, Any]) -> Iterator[None]:
    """Look at template and samples of the runs that LLaMA-Factory makes in the block; the card gets what was cut."""
    from llamafactory.train.sft import workflow

    stock = workflow.get_template_and_fix_tokenizer, workflow.get_dataset
    workflow.get_template_and_fix_tokenizer = lambda *args: load_template(recipe, *args)
    workflow.get_dataset = lambda *args, **options: load_samples(recipe, card, *args, **options)
    try:
        yield
    finally:
        workflow.get_template_and_fix_tokenizer, workflow.get_dataset = stock


def check_template(recipe: Recipe) -> None:
    """Refuse a template that asks otherwise than the checkpoint, where no run follows at once.

    Raises:
        ConfigError: as `load_template`.
    """
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    if recipe.settings.get("stage", "sft") != "sft":
        return
    with collect_chatter(Path(os.devnull)):
        model_args, data_args, *_ = get_train_args({**copy.deepcopy(recipe.settings), "overwrite_output_dir": True})
        load_template(recipe, load_tokenizer(model_args)["tokenizer"], data_args)


def load_template(recipe: Recipe, tokenizer: Any, data_args: Any) -> Any:
    """Return LLaMA-Factory's template of a recipe, and prepare the tokenizer for it.

    Raises:
        ConfigError: when it asks in other tokens than the checkpoint's own chat template.
    """
    from llamafactory.data import get_template_and_fix_tokenizer
    from llamafactory.data.template import TEMPLATES

    own = tokenizer.chat_template
    asked = [encode_asked(tokenizer, messages) for messages in _list_conversations()] if own else []
    registered = TEMPLATES.get(data_args.template)
    try:
        # It writes `default_system` into the template, which the next recipe of this process would find there.
        if registered is not None:
            TEMPLATES[data_args.template] = copy.copy(registered)
        template = get_template_and_fix_tokenizer(tokenizer, data_args)
    finally:
        if registered is not None:
            TEMPLATES[data_args.template] = registered
    if not own:
        say(
            "The model has no chat template of its own: it is taught, and will be asked, in the turns of "
            f"{data_args.template or 'the template empty'}."
        )
    elif not _fits(template, tokenizer, asked):
        names = _find_fitting(recipe, tokenizer, asked)
        # Some checkpoints open every answer with a sign that a template of LLaMA-Factory counts to the answer.
        if names or not _fits(template, tokenizer, [(prompt, []) for prompt, _ in asked]):
            raise _explain_template(recipe, template, tokenizer, data_args, asked, names)
    return template


def _list_conversations() -> list[list[dict[str, str]]]:
    return [
        BINARY_SENTIMENT.render_messages("很好，值得购买", 1),
        REFERENCE_SENTIMENT.render_messages("Not good.\n  Never again", 0),
    ]


def encode_asked(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> tuple[Ids, Ids]:
    """Return the token ids of the prompt as the engines ask it, and of the answer that they weigh right behind it.

    The answer ends with the first token of the end of its turn, where the checkpoint writes the turn in the same way.
    """

    def encode(text: str) -> Ids:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    prompt = encode(tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True))
    answer = encode(messages[1]["content"])
    turns = encode(tokenizer.apply_chat_template(messages, tokenize=False))
    n_tokens = len(prompt) + len(answer)
    return prompt, [*answer, *turns[n_tokens : n_tokens + 1]] if turns[:n_tokens] == [*prompt, *answer] else answer


def _encode_taught(template: Any, tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> Ids:
    prompt, answer = template.encode_multiturn(tokenizer, messages, None, None)[0]
    return [*prompt, *answer]


def _fits(template: Any, tokenizer: Any, asked: Sequence[tuple[Ids, Ids]]) -> bool:
    for messages, (prompt, answer) in zip(_list_conversations(), asked, strict=True):
        wanted = [*prompt, *answer]
        if _encode_taught(template, tokenizer, messages)[: len(wanted)] != wanted:
            return False
    return True


def _find_fitting(recipe: Recipe, tokenizer: Any, asked: Sequence[tuple[Ids, Ids]]) -> list[str]:
    """Return a few templates that ask as the checkpoint does and need a tokenizer alone, the likeliest first."""
    from llamafactory.data.template import TEMPLATES

    found = [
        name
        for name, template in TEMPLATES.items()
        if type(template.mm_plugin).__name__ == "BasePlugin" and _fits(template, tokenizer, asked)
    ]
    hints = [Path(str(recipe.settings.get(key, ""))).name for key in ("template", "model_name_or_path")]

    def is_like(name: str) -> float:
        return max(difflib.SequenceMatcher(None, name, hint.lower()).ratio() for hint in hints)

    return sorted(found, key=is_like, reverse=True)[:_MOST_NAMES]


def _explain_template(
    recipe: Recipe, template: Any, tokenizer: Any, data_args: Any, asked: Sequence[tuple[Ids, Ids]], names: list[str]
) -> ConfigError:
    wanted = [*asked[0][0], *asked[0][1]]
    given = _encode_taught(template, tokenizer, _list_conversations()[0])
    ours, theirs = (tokenizer.decode(ids).split("\n") for ids in (given, wanted))
    # Where both begin alike, the first line in which they differ says more.
    pairs = [(one, other) for one, other in zip(ours, theirs, strict=False) if one != other]
    taught, expected = pairs[0] if pairs else (ours[0], theirs[0])
    if data_args.default_system is not None:
        # Whichever the template: another one would write it as well.
        next_step = "leave default_system out: nothing that asks the model later knows it"
    elif names:
        next_step = f"set template: {' or '.join(names)}"
    else:
        next_step = "name the template that LLaMA-Factory has for this model"
    return ConfigError(
        f"The template {data_args.template} teaches the line {taught[:_SHOWN_CHARS]!r} where the model's own chat "
        f"template, in which it will be asked, has {expected[:_SHOWN_CHARS]!r}",
        where=f"{recipe.path}, template ({recipe.locate('template')})",
        next_step=next_step,
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
    """Return the samples of a run, tokenised by LLaMA-Factory; the card gets how many `cutoff_len` cuts.

    Raises:
        ConfigError: when an answer is cut, or most samples are.
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
    card[CUT] = None
    if not data_args.streaming and data_args.tokenized_path is None:
        card[CUT] = _count_cut(data, data_args, load)
        for part, counts in card[CUT].items():
            judge_cut(recipe, part, counts, recipe.settings.get("cutoff_len", data_args.cutoff_len))
        _tell_system_prompts(_get_merged_dataset(data_args.dataset, model_args, data_args, training_args, stage))
    return data


def _count_cut(data: dict[str, Any], data_args: Any, load: Callable[..., dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Return, for each part, how many samples there are, are cut, and have a cut answer, and the longest's tokens."""
    single = {"packing": False, "neat_packing": False}
    cut = _list_parts(load(**single) if data_args.packing else data)
    counts = {}
    whole: dict[str, Any] | None = None
    for part, dataset in cut.items():
        lengths = [len(ids) for (ids,) in iter_token_rows(dataset, "input_ids")]
        found = {"samples": len(lengths), "cut": 0, "answers_cut": 0, "longest": max(lengths, default=0)}
        if found["longest"] >= data_args.cutoff_len:  # what was cut has just this length, or one that was not
            if whole is None:
                whole = _list_parts(load(**single, cutoff_len=_NO_LIMIT, train_on_prompt=False))
            found |= _compare_with_whole(dataset, whole[part])
        counts[part] = found
    return counts


def _list_parts(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data sets by name, without those that hold prompt and answer apart (`predict_with_generate`)."""
    given = {"train": data.get("train_dataset"), "eval": data.get("eval_dataset")}
    several = given["eval"] if isinstance(given["eval"], dict) else {"eval": given["eval"]}
    parts = {"train": given["train"], **several}
    return {name: dataset for name, dataset in parts.items() if dataset is not None and _is_taught(dataset)}


def _is_taught(dataset: Any) -> bool:
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


def judge_cut(recipe: Recipe, part: str, counts: Mapping[str, int], limit: int) -> None:
    """Say how many samples of a part are cut.

    Args:
        recipe: that sets the limit.
        part: of the data.
        counts: `samples` and those that are `cut`; `answers_cut` and `longest` where they are known.
        limit: in tokens.

    Raises:
        ConfigError: when an answer is cut, or most samples are.
    """
    if not counts["cut"]:
        return
    share = f"{counts['cut']} of {counts['samples']} {part} samples ({counts['cut'] / counts['samples']:.1%})"
    n_answers = counts.get("answers_cut", 0)
    what = f"cutoff_len is {limit} tokens and cuts {share}" + (f", {n_answers} in the answer" if n_answers else "")
    if not n_answers and counts["cut"] <= MOST_CUT * counts["samples"]:
        say(f"{what}, each at the end of its review.")
        return
    # A packed row ends with a token of its own.
    needed = f": {counts['longest'] + bool(recipe.settings.get('packing'))}" if "longest" in counts else " higher"
    raise ConfigError(
        what,
        where=f"{recipe.path}, cutoff_len ({recipe.locate('cutoff_len')})",
        expected="whole answers, and most reviews whole",
        next_step=f"set cutoff_len{needed}, or leave long reviews out (sentifactory data prepare --max_tokens)",
    )


def _tell_system_prompts(rows: Any) -> None:
    """Warn of data that bring a system prompt of their own: whoever asks the model later does not know it."""
    n_rows = 0 if rows is None else sum(map(bool, rows["_system"]))
    if n_rows:
        say(
            f"WARNING: {n_rows} of {len(rows)} training samples bring a system prompt. predict, label, serve and "
            "eval compare ask without it."
        )
