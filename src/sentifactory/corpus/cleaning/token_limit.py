"""Applies the token limit of the model that will be trained: longer reviews are rejected, or cut at their end.

The prompt and the answer are counted as the task renders them; the turn markers of a chat template, some 5 to 30
tokens more, are not. Only texts that could be too long are tokenized: no tokenizer produces more tokens than bytes.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sentifactory.errors import ConfigError
from sentifactory.records import Reason, Rejected, Review
from sentifactory.task.task import Task

CUT = "cut"
REJECT = "reject"
_BATCH_ROWS = 4096
_MAX_SPECIAL_TOKENS = 4  # that a tokenizer adds by itself, such as <bos>
_MAY_LENGTHEN = ("NFKC", "NFKD", "NFD", "Precompiled")


@dataclass(frozen=True, slots=True)
class Limited:
    """The reviews within the token limit.

    Attributes:
        kept: in their order, including those that were cut.
        rejected: those that were too long, with their number of tokens.
        n_cut: how many of the kept ones were cut.
    """

    kept: list[Review]
    rejected: list[Rejected] = field(default_factory=list)
    n_cut: int = 0


class TokenCounter:
    """Counts the tokens of a task's prompt and answer with the tokenizer of a model.

    Args:
        folder: a model folder with a tokenizer.json.
        task: renders prompt and answer.

    Raises:
        ConfigError: when the tokenizer cannot be read.
    """

    def __init__(self, folder: str | Path, task: Task) -> None:
        self._tokenizer = load_tokenizer(Path(folder))
        self._task = task
        kinds = repr(self._tokenizer.normalizer)
        self._may_lengthen = any(kind in kinds for kind in _MAY_LENGTHEN)
        self._is_composed = "NFC" in kinds
        self._answer = max((task.render_answer(label) for label in range(len(task.labels))), key=len)
        self.n_task_tokens = self.count([""])[0]

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of prompt and answer for each text."""
        n_answer = len(self._tokenizer.encode(self._answer, add_special_tokens=False).ids)
        encoded = self._tokenizer.encode_batch([self._task.render_prompt(text) for text in texts])
        return [len(prompt.ids) + n_answer for prompt in encoded]

    def is_surely_within(self, text: str, max_tokens: int) -> bool:
        """Whether a text has so few bytes that it cannot exceed the limit."""
        if self._may_lengthen or (self._is_composed and not unicodedata.is_normalized("NFC", text)):
            return False
        # The prompt replaces these characters by full-width forms of 3 bytes.
        n_bytes = len(text.encode("utf-8", "surrogatepass")) + 2 * sum(map(text.count, "<`{"))
        return n_bytes + self.n_task_tokens + _MAX_SPECIAL_TOKENS <= max_tokens

    def cut(self, text: str, max_tokens: int) -> str:
        """Return the longest prefix of a text that is within the limit and ends with a whole grapheme."""
        low, high = 0, len(text)  # a prefix of `low` characters fits, one of `high` does not
        while high - low > 1:
            middle = (low + high) // 2
            if self.count([text[:middle]])[0] <= max_tokens:
                low = middle
            else:
                high = middle
        while low and (unicodedata.category(text[low])[0] == "M" or text[low - 1] == "\u200d"):
            low -= 1  # a combining mark or a joined emoji belongs to the character before it
        return text[:low].rstrip()


def limit_tokens(
    reviews: Iterable[Review], task: Task, tokenizer_folder: str | Path, max_tokens: int, policy: str = REJECT
) -> Limited:
    """Reject or cut the reviews that exceed a token limit.

    Args:
        reviews: in any order.
        task: renders prompt and answer, which are counted as well.
        tokenizer_folder: folder of the model that will be trained.
        max_tokens: limit for prompt and answer together.
        policy: `reject` or `cut`.

    Raises:
        ConfigError: when the tokenizer cannot be read, or the limit is too small for any review.
    """
    if policy not in (CUT, REJECT):
        raise ConfigError(
            f"The choice is {policy!r}", where="--too_long", expected=f"{REJECT} or {CUT}", code="option-value"
        )
    counter = TokenCounter(tokenizer_folder, task)
    if max_tokens <= counter.n_task_tokens:
        raise ConfigError(
            f"The limit is {max_tokens}, and prompt and answer alone take {counter.n_task_tokens} tokens",
            where="--max_tokens",
            expected=f"more than {counter.n_task_tokens}",
            code="option-value",
        )
    kept = list(reviews)
    maybe_too_long = [at for at, review in enumerate(kept) if not counter.is_surely_within(review.text, max_tokens)]
    too_long: dict[int, int] = {}
    for start in range(0, len(maybe_too_long), _BATCH_ROWS):
        batch = maybe_too_long[start : start + _BATCH_ROWS]
        counts = counter.count([kept[at].text for at in batch])
        too_long.update({at: n for at, n in zip(batch, counts, strict=True) if n > max_tokens})
    rejected: list[Rejected] = []
    n_cut = 0
    for at, n_tokens in too_long.items():
        shorter = counter.cut(kept[at].text, max_tokens) if policy == CUT else ""
        if shorter:
            kept[at] = replace(kept[at], text=shorter)
            n_cut += 1
        else:
            rejected.append(Rejected(kept[at], Reason.TOO_LONG, f"{n_tokens} tokens"))
    gone = {id(item.review) for item in rejected}
    return Limited([review for review in kept if id(review) not in gone], rejected, n_cut)


def load_tokenizer(folder: Path) -> Any:
    """Return the tokenizer of a model folder, without truncation or padding.

    Raises:
        ConfigError: when there is no readable tokenizer.json.
    """
    path = folder / "tokenizer.json"
    next_step = "name the folder of the model that will be trained, such as saves/pretrained/gemma-3-270m"
    if not path.is_file():
        raise ConfigError("There is no tokenizer.json", where=str(folder), next_step=next_step, code="tokenizer")
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ConfigError(
            "The package tokenizers is not installed",
            where="--tokenizer",
            next_step="pip install 'sentifactory[train]'",
            code="package-needed",
        ) from error
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for a file that it cannot read
        raise ConfigError(
            f"The tokenizer cannot be read ({str(error)[:120]})",
            where=str(path),
            next_step=next_step,
            code="tokenizer",
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
