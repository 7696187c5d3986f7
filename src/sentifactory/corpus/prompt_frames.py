"""Tells the review from the question in a prompt.

A prompt of the task (or of a built-in task) gives up the review in it, in the form in which it was shown to the model.
Of other prompts, what many rows of the file have in common at the beginning and at the end is taken for the question,
and what is between for the review. A file may mix several questions and rows that ask something else: one row of
another kind changes nothing about the others. Not covered: a question in other words in every row; then the prompt
is told as a whole, and said to be not parted.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice

from sentifactory.task import TASKS, TEXT_SLOT, Task

# A beginning that a part of the rows share is a question when this share of them have it and this many different
# rows, and when it is as long as a question (with what comes after the review), or at least half of the rows have it:
# reviews begin alike as well.
_MIN_SHARE = 0.05
_MIN_ROWS = 3
_MIN_CHARS = 8
_MIN_QUOTED = 4
_MAIN_SHARE = 0.5
# So many different rows do not begin with the same word of a review by chance: a question may end within a word then.
_SURE_ROWS = 20
_NEARLY_ALL = 0.8
_SAMPLE = 1000
_NO_WORD = re.compile(r"[\W_]")
_WORD = re.compile(r"[^\W_]")
# What stands between a question and a review. A comma does not: it is within the one or the other.
_STOPS = "。！？…~～.!?"
_OPENING = ":：\"'`“”‘’「『《【（([<＜>＞｀\n\t=。？！?! "
_QUOTES = "\"'`“‘「『《【（([<＜｀"
_CLOSING = "\"'`”’」』》】）)]>＞｀\n"
_MARK_BEFORE = re.compile(f"[{re.escape(_QUOTES)}:：\n\t]")
_MARK_AFTER = re.compile(f"[{re.escape(_CLOSING)}]")


class Kind(StrEnum):
    """What is known of a prompt."""

    KNOWN = "known"  # a task says where the review is, or the text is no prompt at all
    FOUND = "found"  # other rows have the same question
    GUESSED = "guessed"  # other rows begin or end alike, in the midst of a sentence: it may not be all of the question
    WHOLE = "whole"  # review and question could not be told apart
    TEXT = "text"  # nothing is asked: words to pretrain on, or reviews without labels


UNPARTED = (Kind.GUESSED, Kind.WHOLE)


@dataclass(frozen=True, slots=True)
class Parted:
    """A prompt as it was understood.

    Attributes:
        review: the words of the review; all of the prompt where they are not known.
        kind: how they were found.
        question: what is before and after them; "" where that is nothing, or not known.
    """

    review: str
    kind: Kind
    question: tuple[str, str] = ("", "")


Frame = tuple[str, str]


class PromptFrames:
    """Parts the prompts of a file.

    Args:
        task: its prompt is looked for first.
        open_prompts: gives all prompts of the file; they are gone through once, when the first one is of no task.
        are_reviews: whether the prompts should be reviews alone. Then a question is only what nearly all of the first
            ones have: a beginning that reviews share by chance must not be taken off them.
    """

    def __init__(self, task: Task, open_prompts: Callable[[], Iterable[str]], *, are_reviews: bool = False) -> None:
        templates = dict.fromkeys(asked.prompt_template for asked in (task, *TASKS.values()))
        frames = [template.partition(TEXT_SLOT)[::2] for template in templates]
        # A prompt that is the review alone fits whatever is asked, and says nothing.
        known = [frame for frame in frames if any(frame)]
        self._known: list[Frame] = sorted(known, key=lambda frame: -len(frame[0]) - len(frame[1]))
        self._is_bare = task.prompt_template == TEXT_SLOT
        self._open_prompts = open_prompts
        self._are_reviews = are_reviews
        self._found: list[Frame] | None = None

    def part(self, prompt: str) -> Parted:
        """Return a prompt parted into review and question."""
        known = find_review(prompt, self._known)
        if known is not None:
            return known
        if self._found is None:
            self._found = self._find()
        found = find_review(prompt, self._found, Kind.FOUND)
        if found is None:
            return Parted(prompt, Kind.FOUND if self._is_bare else Kind.WHOLE)
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
        # Several questions count together where a mark ends each of them; else reviews could begin alike by chance.
        return next((frames for frames in (sharp, *([one] for one in long)) if _fit_nearly_all(frames, sample)), [])


def keep_doubtful(parted: Parted) -> str:
    r"""Return the words to train on: the review, and with it what may be the question or a part of the review.

    Example:
        >>> keep_doubtful(Parted("很好", Kind.GUESSED, ("好评吗：", "，全家都这么觉得」\n是哪种？")))
        '很好，全家都这么觉得'
    """
    if parted.kind != Kind.GUESSED:
        return parted.review
    before, after = parted.question
    is_before_sharp, is_after_sharp = _are_sharp(parted.question)
    # A mark within what many rows share is the end of the question, or its beginning.
    begin = "" if is_before_sharp else _MARK_BEFORE.split(before)[-1]
    end = "" if is_after_sharp else _MARK_AFTER.split(after, maxsplit=1)[0]
    return f"{begin}{parted.review}{end}"


def _are_sharp(frame: Frame) -> tuple[bool, bool]:
    """Whether what is before and what is after a review is parted from it by a sign, rather than within a sentence."""
    before, after = frame
    return not before or before[-1] in _OPENING, not after or after[0] in _CLOSING


def _fit_nearly_all(frames: Sequence[Frame], prompts: Sequence[str]) -> bool:
    return sum(find_review(one, frames) is not None for one in prompts) >= _NEARLY_ALL * len(prompts)


def find_review(prompt: str, frames: Sequence[Frame], kind: Kind = Kind.KNOWN) -> Parted | None:
    """Return the review in a prompt of the first frame that it fits, None where it fits none.

    Example:
        >>> find_review("评论：很好", [("评论：", "")]).review
        '很好'
    """
    for before, after in frames:
        if prompt.startswith(before) and prompt.endswith(after) and len(prompt) >= len(before) + len(after):
            review = prompt[len(before) : len(prompt) - len(after)]
            return Parted(review, kind, (before, after))
    return None


def find_frames(prompts: Iterable[str]) -> list[Frame]:
    """Return what prompts have before and after the review, the longest first; [] where they have nothing in common.

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
        # Reviews that all end in a full stop are not quoted with one.
        found = [(head, tail[::-1].lstrip(_STOPS)) for tail in _sort_heads(tails)]
        if len(head) >= _MIN_CHARS or len(own) >= _MAIN_SHARE * n_all:
            found.append((head, ""))
        else:  # it is a question together with what comes after the review only
            found = [frame for frame in found if _is_long(*frame)]
        frames += [frame for frame in found if any(frame)]
        rest = [prompt for prompt in rest if find_review(prompt, found) is None]
    return frames


def _is_long(before: str, after: str) -> bool:
    """Whether what is around a review is as long as a question; around quotes fewer words are enough."""
    is_quote = before[-1:] in _QUOTES and after[:1] in _CLOSING
    return len(before) + len(after) >= (_MIN_QUOTED if before and after and is_quote else _MIN_CHARS)


def _sort_heads(heads: Iterable[str]) -> list[str]:
    return sorted(heads, key=lambda head: (-len(head), head))


def _find_heads(texts: Sequence[str], *, is_reversed: bool = False) -> set[str]:
    """Return the beginnings that are common to all of the texts, or to many and then long.

    Args:
        texts: distinct and in order.
        is_reversed: whether they are the ends of prompts, written backwards.
    """
    heads: set[str] = set()
    min_rows = max(_MIN_ROWS, _MIN_SHARE * len(texts))
    pending = [(0, len(texts), 0)]
    while pending:
        start, end, n_head = pending.pop()  # n_head: how much of it is a question already
        n_rows = end - start
        if n_rows < 2:
            continue
        n_common = _count_common(texts[start], texts[end - 1])
        share = n_rows / len(texts)
        is_sure = n_rows >= _SURE_ROWS and (share >= _NEARLY_ALL or (n_head == 0 and n_common >= _MIN_CHARS))
        head = texts[start][:n_common] if is_sure else _cut_word(texts[start][:n_common])
        is_long = len(head) - n_head >= _MIN_CHARS or (n_head == 0 and share >= _MAIN_SHARE and head != "")
        is_question = is_long or (n_head == 0 and head[-1:] in _OPENING and head != "" and not is_reversed)
        is_text = n_rows < _MIN_ROWS and head == texts[start]  # nothing would be left of it
        if is_question and not is_text and (not is_reversed or _is_tail(head)):
            heads.add(head)
            n_head = len(head) if is_long else 0
        pending += [
            (low, high, n_head) for low, high in _iter_branches(texts, start, end, n_common) if high - low >= min_rows
        ]
    return heads


def _cut_word(common: str) -> str:
    """Return a common beginning without the word that it ends in, which may be that of a review."""
    ends = [match.end() for match in _NO_WORD.finditer(common)]
    return common[: ends[-1]] if ends else ""


def _is_tail(end: str) -> bool:
    """Whether a common end is words, or closes what a question opened: reviews end in the same full stop as well."""
    return bool(_WORD.search(end)) or any(sign in _CLOSING for sign in end)


def _iter_branches(texts: Sequence[str], start: int, end: int, place: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges of texts that have the same character at a place; those that end there are left out."""
    while start < end:
        if len(texts[start]) <= place:
            start += 1
            continue
        stem = texts[start][: place + 1]
        next_start = bisect_right(texts, stem + "\U0010ffff", start + 1, end)
        yield start, next_start
        start = next_start


def _count_common(one: str, other: str) -> int:
    """Return how many characters two texts have in common at their beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (left, right) in pairs if left != right), min(len(one), len(other)))
