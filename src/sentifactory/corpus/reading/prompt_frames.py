"""Splits prompts into the question and the review.

A prompt of the task (or of a built-in task) is recognised by its template. Of other prompts, the beginnings and ends
that many rows of the file share are taken for the question, and what is between them for the review. A file may mix
several questions, and rows of another kind do not affect the others. Not covered: a question in different words in
every row; the whole prompt is returned then, marked as not split.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice

from sentifactory.task.task import TASKS, TEXT_SLOT, Task

# A shared beginning is a question if this share of the rows and this many different rows have it, and if it is as long
# as a question (with what follows the review) or at least half of the rows have it: reviews also begin alike.
_MIN_SHARE = 0.05
_MIN_ROWS = 3
_MIN_CHARS = 8
_MIN_QUOTED = 4
_MAIN_SHARE = 0.5
# This many different reviews do not begin with the same word by chance, so that a question may end within a word.
_SURE_ROWS = 20
_NEARLY_ALL = 0.8
_SAMPLE = 1000
_NO_WORD = re.compile(r"[\W_]")
_WORD = re.compile(r"[^\W_]")
# Characters between a question and a review. Not a comma: it is within the one or the other.
_STOPS = "。！？…~～.!?"
_OPENING = ":：\"'`“”‘’「『《【（([<＜>＞｀\n\t=。？！?! "
_QUOTES = "\"'`“‘「『《【（([<＜｀"
_CLOSING = "\"'`”’」』》】）)]>＞｀\n"
_MARK_BEFORE = re.compile(f"[{re.escape(_QUOTES)}:：\n\t]")
_MARK_AFTER = re.compile(f"[{re.escape(_CLOSING)}]")


class Kind(StrEnum):
    """How a prompt was split."""

    KNOWN = "known"  # by the template of a task, or the text is not a prompt at all
    FOUND = "found"  # other rows have the same question
    GUESSED = "guessed"  # other rows begin or end alike within a sentence: it may not be the whole question
    WHOLE = "whole"  # review and question could not be separated
    TEXT = "text"  # there is no question: a text to pretrain on, or a review without a label


NOT_SPLIT = (Kind.GUESSED, Kind.WHOLE)


@dataclass(frozen=True, slots=True)
class SplitPrompt:
    """A prompt that was split.

    Attributes:
        review: the review; the whole prompt if it could not be split.
        kind: how it was split.
        question: the texts before and after the review; "" where there is none, or it is unknown.
    """

    review: str
    kind: Kind
    question: tuple[str, str] = ("", "")


Frame = tuple[str, str]


class PromptFrames:
    """Splits the prompts of a file.

    Args:
        task: its prompt is recognised first.
        open_prompts: returns all prompts of the file; they are read once, when the first prompt of no task occurs.
        are_reviews: whether the prompts are expected to be plain reviews. A question is then only what nearly all of
            the first ones share: a beginning that some reviews share by chance must not be removed.
    """

    def __init__(self, task: Task, open_prompts: Callable[[], Iterable[str]], *, are_reviews: bool = False) -> None:
        templates = dict.fromkeys(asked.prompt_template for asked in (task, *TASKS.values()))
        frames = [template.partition(TEXT_SLOT)[::2] for template in templates]
        # A template that is only the review matches every text.
        known = [frame for frame in frames if any(frame)]
        self._known: list[Frame] = sorted(known, key=lambda frame: -len(frame[0]) - len(frame[1]))
        self._is_bare = task.prompt_template == TEXT_SLOT
        self._open_prompts = open_prompts
        self._are_reviews = are_reviews
        self._found: list[Frame] | None = None

    def split(self, prompt: str) -> SplitPrompt:
        """Split a prompt into review and question."""
        known = find_review(prompt, self._known)
        if known is not None:
            return known
        if self._found is None:
            self._found = self._find()
        found = find_review(prompt, self._found, Kind.FOUND)
        if found is None:
            return SplitPrompt(prompt, Kind.FOUND if self._is_bare else Kind.WHOLE)
        return found if all(_are_sharp(found.question)) else replace(found, kind=Kind.GUESSED)

    def _find(self) -> list[Frame]:
        others = (one for one in self._open_prompts() if find_review(one, self._known) is None)
        if not self._are_reviews:
            return find_frames(others)
        sample = list(islice(others, _SAMPLE))
        if len(sample) < _SURE_ROWS:
            return []
        found = find_frames(sample)
        sharp = [frame for frame in found if all(_are_sharp(frame))]
        long = [frame for frame in found if sum(map(len, frame)) >= _MIN_CHARS]
        # Several questions count together if a mark ends each of them; otherwise reviews could begin alike by chance.
        return next((frames for frames in (sharp, *([one] for one in long)) if _fit_nearly_all(frames, sample)), [])


def keep_uncertain_text(split: SplitPrompt) -> str:
    r"""Return the text to train on: the review, and what may be either the question or a part of the review.

    Example:
        >>> keep_uncertain_text(SplitPrompt("很好", Kind.GUESSED, ("好评吗：", "，全家都这么觉得」\n是哪种？")))
        '很好，全家都这么觉得'
    """
    if split.kind != Kind.GUESSED:
        return split.review
    before, after = split.question
    is_before_sharp, is_after_sharp = _are_sharp(split.question)
    # A mark within the shared text ends the question, or begins it.
    begin = "" if is_before_sharp else _MARK_BEFORE.split(before)[-1]
    end = "" if is_after_sharp else _MARK_AFTER.split(after, maxsplit=1)[0]
    return f"{begin}{split.review}{end}"


def _are_sharp(frame: Frame) -> tuple[bool, bool]:
    """Whether a mark separates the texts before and after a review from it, rather than a place within a sentence."""
    before, after = frame
    return not before or before[-1] in _OPENING, not after or after[0] in _CLOSING


def _fit_nearly_all(frames: Sequence[Frame], prompts: Sequence[str]) -> bool:
    return sum(find_review(one, frames) is not None for one in prompts) >= _NEARLY_ALL * len(prompts)


def find_review(prompt: str, frames: Sequence[Frame], kind: Kind = Kind.KNOWN) -> SplitPrompt | None:
    """Split a prompt by the first frame that matches it; return None if none does.

    Example:
        >>> find_review("评论：很好", [("评论：", "")]).review
        '很好'
    """
    for before, after in frames:
        if prompt.startswith(before) and prompt.endswith(after) and len(prompt) >= len(before) + len(after):
            review = prompt[len(before) : len(prompt) - len(after)]
            return SplitPrompt(review, kind, (before, after))
    return None


def find_frames(prompts: Iterable[str]) -> list[Frame]:
    """Return the texts that prompts share before and after the review, the longest first.

    Example:
        >>> find_frames(["Good? 很好 Answer:", "Good? 太差 Answer:"])
        [('Good? ', ' Answer:'), ('Good? ', '')]
    """
    rest = sorted(set(prompts))
    n_all = len(rest)
    frames: list[Frame] = []
    for head in [*_sort_heads(_find_heads(rest)), ""]:
        own = [prompt for prompt in rest if prompt.startswith(head)]
        tails = _find_heads(sorted({prompt[len(head) :][::-1] for prompt in own}), is_reversed=True)
        # A full stop at the end of all reviews is not part of the question.
        found = [(head, tail[::-1].lstrip(_STOPS)) for tail in _sort_heads(tails)]
        if len(head) >= _MIN_CHARS or len(own) >= _MAIN_SHARE * n_all:
            found.append((head, ""))
        else:  # too short without what follows the review
            found = [frame for frame in found if _is_long(*frame)]
        frames += [frame for frame in found if any(frame)]
        rest = [prompt for prompt in rest if find_review(prompt, found) is None]
    return frames


def _is_long(before: str, after: str) -> bool:
    """Whether the text around a review is as long as a question; fewer characters suffice around quotes."""
    is_quote = before[-1:] in _QUOTES and after[:1] in _CLOSING
    return len(before) + len(after) >= (_MIN_QUOTED if before and after and is_quote else _MIN_CHARS)


def _sort_heads(heads: Iterable[str]) -> list[str]:
    return sorted(heads, key=lambda head: (-len(head), head))


def _find_heads(texts: Sequence[str], *, is_reversed: bool = False) -> set[str]:
    """Return the beginnings that all texts share, or that many texts share and that are long.

    Args:
        texts: distinct and sorted.
        is_reversed: whether they are endings of prompts, reversed.
    """
    heads: set[str] = set()
    min_rows = max(_MIN_ROWS, _MIN_SHARE * len(texts))
    pending = [(0, len(texts), 0)]
    while pending:
        start, end, n_head = pending.pop()  # n_head: how many characters are a question already
        n_rows = end - start
        if n_rows < 2:
            continue
        n_common = _count_common(texts[start], texts[end - 1])
        share = n_rows / len(texts)
        is_sure = n_rows >= _SURE_ROWS and (share >= _NEARLY_ALL or (n_head == 0 and n_common >= _MIN_CHARS))
        head = texts[start][:n_common] if is_sure else _cut_word(texts[start][:n_common])
        is_long = len(head) - n_head >= _MIN_CHARS or (n_head == 0 and share >= _MAIN_SHARE and head != "")
        is_question = is_long or (n_head == 0 and head[-1:] in _OPENING and head != "" and not is_reversed)
        is_text = n_rows < _MIN_ROWS and head == texts[start]  # no review would be left
        if is_question and not is_text and (not is_reversed or _is_tail(head)):
            heads.add(head)
            n_head = len(head) if is_long else 0
        pending += [
            (low, high, n_head) for low, high in _iter_branches(texts, start, end, n_common) if high - low >= min_rows
        ]
    return heads


def _cut_word(common: str) -> str:
    """Return a common beginning without its last word, which may belong to a review."""
    ends = [match.end() for match in _NO_WORD.finditer(common)]
    return common[: ends[-1]] if ends else ""


def _is_tail(end: str) -> bool:
    """Whether a common ending has words or closing marks: reviews also end in the same full stop."""
    return bool(_WORD.search(end)) or any(sign in _CLOSING for sign in end)


def _iter_branches(texts: Sequence[str], start: int, end: int, place: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges of texts that have the same character at a position, without those that end there."""
    while start < end:
        if len(texts[start]) <= place:
            start += 1
            continue
        stem = texts[start][: place + 1]
        next_start = bisect_right(texts, stem + "\U0010ffff", start + 1, end)
        yield start, next_start
        start = next_start


def _count_common(one: str, other: str) -> int:
    """Return the length of the common beginning of two texts."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (left, right) in pairs if left != right), min(len(one), len(other)))
