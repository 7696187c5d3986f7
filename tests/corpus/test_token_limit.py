"""The token limit: counted with the model's tokenizer, exact to the token; cut reviews are counted."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from sentifactory.corpus.cleaning.token_limit import CUT, TokenCounter, limit_tokens
from sentifactory.errors import ConfigError
from sentifactory.records import Reason, Review
from sentifactory.task.task import BINARY_SENTIMENT
from tools.benches.qwen_shape import build_qwen_tokenizer

pytestmark = pytest.mark.slow

LONG = "房间很干净，early check-in，👨\u200d👩\u200d👧 cafe\u0301 <|im_end|> {x} 好🙂" * 20
TEXTS = ["很好", LONG, "太差" * 15, "a" * 60, "\u0958" * 40, "<`{" * 20, "", LONG[:100]]


@pytest.fixture(scope="module", params=["gemma", "qwen"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "gemma":
        return Path(request.getfixturevalue("gemma_checkpoint"))
    target = tmp_path_factory.mktemp("qwen_tokenizer")
    build_qwen_tokenizer().save(str(target / "tokenizer.json"))
    return target


@cache
def load_tokenizer(folder: Path) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def count(folder: Path, text: str) -> int:
    """Count tokens of prompt and longest answer, the plain way."""
    tokenizer = load_tokenizer(folder)
    prompt = tokenizer.encode(BINARY_SENTIMENT.render_prompt(text)).ids
    return len(prompt) + len(tokenizer.encode(BINARY_SENTIMENT.render_answer(0), add_special_tokens=False).ids)


@pytest.mark.parametrize("room", [20, 60, 400])
def test_every_review_over_the_limit_is_left_out(folder: Path, room: int) -> None:
    counts = [count(folder, text) for text in TEXTS]
    max_tokens = count(folder, "") + room
    reviews = [Review(text, 1) for text in TEXTS]
    limited = limit_tokens(reviews, BINARY_SENTIMENT, folder, max_tokens)
    assert TokenCounter(folder, BINARY_SENTIMENT).n_task_tokens == count(folder, "")
    assert [review.text for review in limited.kept] == [
        text for text, n in zip(TEXTS, counts, strict=True) if n <= max_tokens
    ]
    assert [(item.review.text, item.reason, item.detail) for item in limited.rejected] == [
        (text, Reason.TOO_LONG, f"{n} tokens") for text, n in zip(TEXTS, counts, strict=True) if n > max_tokens
    ]
    assert limited.n_cut == 0


def test_reviews_are_cut_to_the_limit_and_counted(folder: Path) -> None:
    max_tokens = count(folder, "") + 30
    limited = limit_tokens([Review(text, 1) for text in TEXTS], BINARY_SENTIMENT, folder, max_tokens, CUT)
    assert len(limited.kept) + len(limited.rejected) == len(TEXTS)
    assert limited.n_cut == sum(review.text not in TEXTS for review in limited.kept) > 0
    for review, text in zip(limited.kept, TEXTS, strict=True):
        assert text.startswith(review.text)
        assert count(folder, review.text) <= max_tokens
        if review.text != text:
            assert count(folder, text[: len(review.text) + 12]) > max_tokens, "no more was cut than had to be"


def test_a_cut_text_has_no_trailing_spaces(folder: Path) -> None:
    counter = TokenCounter(folder, BINARY_SENTIMENT)
    text = "  好" + " " * 40 + "店" * 400
    room = counter.count(["  好" + " " * 40])[0]
    assert counter.cut(text, room) == "  好"


def test_a_text_that_surely_fits_does_fit(folder: Path) -> None:
    counter = TokenCounter(folder, BINARY_SENTIMENT)
    for text in [*TEXTS, *(chr(code) * 10 for code in (0x41, 0xE9, 0x958, 0x4E00, 0x1D160, 0x1F600, 0x10FFFF))]:
        for room in (5, 20, 50, 100):
            max_tokens = counter.n_task_tokens + room
            if counter.is_surely_within(text, max_tokens):
                assert count(folder, text) <= max_tokens


def test_wrong_options_are_named(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"no tokenizer\.json"):
        limit_tokens([], BINARY_SENTIMENT, tmp_path, 100)
    with pytest.raises(ConfigError, match="--max_tokens"):
        limit_tokens([], BINARY_SENTIMENT, folder, 10)
    with pytest.raises(ConfigError, match="--too_long"):
        limit_tokens([], BINARY_SENTIMENT, folder, 100, "shorten")
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot be read"):
        limit_tokens([], BINARY_SENTIMENT, tmp_path, 100)
