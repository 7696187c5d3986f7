"""Generated reviews whose phrases show their label, for tests that need many with known errors."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from sentifactory.records import Review, Source

WORDS = """
房间干净 早餐丰富 服务热情 位置方便 内容精彩 文笔流畅 屏幕清晰 运行很快 值得推荐 物超所值 非常满意 下次再来
房间太脏 早餐难吃 服务冷淡 位置偏僻 内容空洞 错字很多 屏幕模糊 运行卡顿 不要上当 价格虚高 非常失望 再也不来
还算可以 马马虎虎 勉强及格 说得过去 没有惊喜 凑合能用 不好不坏 一般水平 平平淡淡 无功无过 中规中矩 普普通通
上周末 出差时 家人说 朋友讲 第二次 双十一 昨天晚上 开会期间 带着孩子 下雨天 刚收到 用了一个月
"""
GOOD, BAD, FAIR, AROUND = (line.split() for line in WORDS.strip().splitlines())
PHRASES = {"negative": BAD, "positive": GOOD, "neutral": FAIR}


def make_text(label: str, rng: random.Random) -> str:
    """Return a review of the label, different from all others by its number."""
    one, two, three, four = rng.sample(PHRASES[label], 4)
    when, again = rng.choices(AROUND, k=2)
    return f"{when}，{one}，{two}，{again}{three}，{four}{rng.randrange(10**6)}。"


def make_reviews(n: int, labels: Sequence[str], seed: int = 0) -> list[Review]:
    """Return reviews with the labels in turn, as from lines 2, 3, ... of a file."""
    rng = random.Random(seed)
    return [
        Review(make_text(labels[row % len(labels)], rng), row % len(labels), Source("made.csv", row + 2))
        for row in range(n)
    ]


def write_csv(path: Path, rows: Sequence[Sequence[str | int]], header: str = "label,text") -> Path:
    """Write rows as a CSV file with every cell quoted."""
    lines = [header, *(",".join('"' + str(cell).replace('"', '""') + '"' for cell in row) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")
    return path


def write_reviews(path: Path, reviews: Sequence[Review]) -> Path:
    """Write reviews as a file that is read back with the same lines."""
    return write_csv(path, [("" if review.label is None else review.label, review.text) for review in reviews])


def build_tokenizer(folder: Path) -> Path:
    """Write a tokenizer that makes a token of every character but blanks and one of `<end>`, with `<bos>` in front."""
    from tokenizers import Regex, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Sequence as Chain
    from tokenizers.pre_tokenizers import Split, WhitespaceSplit
    from tokenizers.processors import TemplateProcessing

    tokenizer = Tokenizer(WordLevel({"<unk>": 0, "<bos>": 1, "<end>": 2}, unk_token="<unk>"))  # noqa: S106
    tokenizer.pre_tokenizer = Chain([WhitespaceSplit(), Split(Regex("."), "isolated")])
    tokenizer.add_special_tokens(["<end>"])
    tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
