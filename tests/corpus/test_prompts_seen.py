"""Test reviews are found among training prompts of any form, and nothing is found that is not there."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_reviews import make_reviews

from sentifactory.corpus.cleaning.text_keys import make_keys
from sentifactory.corpus.files.encodings import inspect_text
from sentifactory.corpus.files.json_files import open_json_lines
from sentifactory.corpus.leakage.containment import find_contained, list_pieces
from sentifactory.corpus.leakage.leak_report import LeakReport, check_leaks_in_files
from sentifactory.corpus.leakage.overlap import EXACT, NEAR
from sentifactory.corpus.reading.chat_rounds import iter_rounds
from sentifactory.corpus.reading.prompt_frames import find_frames
from sentifactory.corpus.reading.review_files import read_seen, read_source, read_texts
from sentifactory.task.task import BINARY_SENTIMENT, Task
from tools.benches.synthetic_reviews import change_one_in_ten, load_stock

ANSWER = '{"sentiment": 1}'
ASKED = "判断下面这条评论的情感，只回答JSON。\n评论："
FOREIGN = {"messages": [{"role": "user", "content": "你是谁？"}, {"role": "assistant", "content": "我是一个助手。"}]}
TEXTS = [review.text for review in make_reviews(60, ("negative", "positive"))]
OTHERS = [review.text for review in make_reviews(60, ("negative", "positive"), seed=1)]

Form = Callable[[int, str], dict[str, Any]]


def chat(prompt: str, answer: str = ANSWER, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}], **more}


FORMS: dict[str, Form] = {
    "a question": lambda _, text: chat(ASKED + text),
    "a question after it": lambda _, text: chat(f"{text}\n以上评论是正面还是负面？"),
    "a fence": lambda _, text: chat(f"情感倾向？\n```\n{text}\n```\n请回答 JSON。"),
    "several questions": lambda at, text: chat(
        [ASKED + text, f"评论「{text}」是好评还是差评？", f"Review: {text}\nSentiment:", f"“{text}”的情感是？"][at % 4]
    ),
    "another question each time": lambda at, text: chat(f"第{at * 37 % 101}位顾客跟我说{text}你怎么看第{at}件？"),
    "the review alone": lambda _, text: chat(text),
    "alpaca, one instruction": lambda _, text: {"instruction": "判断情感", "input": text, "output": ANSWER},
    "alpaca, five instructions": lambda at, text: {"instruction": f"判断{at % 5}", "input": text, "output": ANSWER},
    "alpaca, the review first": lambda _, text: {"instruction": text, "input": "是好评吗", "output": ANSWER},
    "alpaca, a history": lambda at, text: {
        "instruction": f"第{at}件好吗", "input": "", "output": ANSWER, "history": [[f"评论：{text}", ANSWER]],
    },
    "a later round": lambda _, text: {
        "conversations": [
            {"from": who, "value": words}
            for who, words in (("human", "你好"), ("gpt", "你好！"), ("human", text), ("gpt", ANSWER))
        ]
    },
    "an example in the system prompt": lambda at, text: {
        "messages": [{"role": "system", "content": f"例{at}：{text} 答：好"}, *chat("评论：不错")["messages"]]
    },
    "a system prompt next to the chat": lambda at, text: chat("评论：不错", system=f"例{at}：{text}"),
    "an example in the prompt": lambda at, text: chat(f"例：{text}\n答：好\n评论：第{at}件不错"),
    "pieces": lambda _, text: {
        "messages": [{"role": "user", "content": [{"type": "text", "text": ASKED + text}]}]
    },
    "neutral forms": lambda _, text: chat(ASKED + text.replace("，", "｀＜｛")),
    "alpaca, a history of turns": lambda at, text: {
        "instruction": f"第{at}件好吗", "output": ANSWER, "history": chat(text)["messages"],
    },
    "text alone": lambda at, text: {"text": f"用户{at}写道：{text}总的来说{at}"},
    "prompt and completion": lambda _, text: {"prompt": ASKED + text, "completion": "正面"},
    "ms-swift": lambda _, text: {"messages": [{"role": "user", "content": text}], "label": 1},
}  # fmt: skip


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return path


def write_texts(path: Path, texts: list[str]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["label", "text"], *((at % 2, text) for at, text in enumerate(texts))])
    return path


def compare(folder: Path, rows: list[dict[str, Any]], test: list[str], task: Task = BINARY_SENTIMENT) -> LeakReport:
    return check_leaks_in_files(
        [write_rows(folder / "train.jsonl", rows)], [write_texts(folder / "test.csv", test)], task
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n_foreign", [0, 1, 15])
def test_reviews_are_found_in_prompts_of_every_form(tmp_path: Path, form: str, n_foreign: int) -> None:
    rows = [FORMS[form](at, text) for at, text in enumerate(TEXTS)]
    rows = (
        [FOREIGN] * min(n_foreign, 1) + rows + [chat(f"{at}加{at}等于几？", "不知道。") for at in range(n_foreign - 1)]
    )
    assert compare(tmp_path, rows, TEXTS).count_leaked() == {EXACT: 60, NEAR: 0}
    assert compare(tmp_path, rows, OTHERS).is_clean


@pytest.mark.parametrize("place", [0, 3, 6])
def test_one_foreign_row_does_not_hide_short_reviews(tmp_path: Path, place: int) -> None:
    texts = ["很好", "太差", "还行", "服务好", "一般", "送得快"]
    rows = [chat(ASKED + text) for text in texts]
    rows.insert(place, FOREIGN)
    report = compare(tmp_path, rows, texts)
    assert report.count_leaked() == {EXACT: 6, NEAR: 0}
    assert (report.n_train, report.n_unsplit) == (7, 1)
    assert "In 1 of the 7 training rows the review cannot be separated" in report.summarise()


def test_short_reviews_within_sentences_are_not_leaks(tmp_path: Path) -> None:
    rows = [chat(f"昨天去吃了，速度不是一般的慢，很好吃，第{at}次了") for at in range(30)]
    assert compare(tmp_path, rows, ["速度不是一般的慢", "很好吃", "第1次了"]).is_clean
    rows = [chat(f"速度不是一般的慢\n这是第{at}条") for at in range(30)]
    assert compare(tmp_path, rows, ["速度不是一般的慢", "很好吃"]).count_leaked()[EXACT] == 1


def test_near_duplicates_within_longer_prompts(tmp_path: Path) -> None:
    stock = [review.text for review in load_stock() if 30 <= len(make_keys([review.text])[0]) <= 80][:300]
    dice = random.Random(1)
    rows = [chat(f"第{at}位说{change_one_in_ten(text, dice)}是么{at * 7}") for at, text in enumerate(stock)]
    found = compare(tmp_path, rows, stock).count_leaked()
    assert sum(found.values()) >= 0.8 * len(stock)
    assert compare(tmp_path, rows[:150], stock[150:]).is_clean


def test_prompts_that_cannot_be_split_are_reported_for_test_files_too(tmp_path: Path) -> None:
    train = write_texts(tmp_path / "train.csv", TEXTS)
    test = write_rows(tmp_path / "test.jsonl", [chat(f"{at}：{text}？") for at, text in enumerate(OTHERS)])
    report = check_leaks_in_files([train], [test])
    assert (report.n_unsplit, report.n_unsplit_test) == (0, 60)
    assert report.to_json()["unparted_rows"] == {"train": 0, "test": 60}
    assert check_leaks_in_files([test], [train]).n_unsplit == 60


def test_a_table_may_hold_whole_prompts(tmp_path: Path) -> None:
    train = write_texts(tmp_path / "train.csv", [ASKED + text for text in TEXTS])
    test = write_texts(tmp_path / "test.csv", ["很好", *TEXTS[:30]])
    assert check_leaks_in_files([train], [test]).count_leaked() == {EXACT: 30, NEAR: 0}
    assert read_texts(train, BINARY_SENTIMENT)[0].text == ASKED + TEXTS[0]  # whoever asks about them gets them whole


def test_prompts_of_plain_reviews_need_no_split(tmp_path: Path) -> None:
    bare = Task("bare", ("bad", "good"), "sentiment", (0, 1), "{text}")
    rows = [{"messages": bare.render_messages(text, at % 2)} for at, text in enumerate(TEXTS)]
    report = compare(tmp_path, rows, OTHERS, bare)
    assert (report.is_clean, report.n_unsplit) == (True, 0)
    assert compare(tmp_path, rows, TEXTS, bare).count_leaked()[EXACT] == 60


def test_frames_are_shared_by_many_rows() -> None:
    assert find_frames([ASKED + text for text in TEXTS]) == [(ASKED, "")]
    assert (ASKED, "") in find_frames([*(ASKED + text for text in TEXTS), "你是谁？", "你好"])
    mixed = [f"评论「{text}」是好评还是差评？" if at % 2 else ASKED + text for at, text in enumerate(TEXTS)]
    assert set(find_frames(mixed)) >= {(ASKED, ""), ("评论「", "」是好评还是差评？")}
    assert find_frames(TEXTS) == find_frames([]) == find_frames(["好"] * 9) == []
    assert find_frames(["外观：好看", "外观：难看", *TEXTS]) == []


def test_pieces_are_separated_by_marks() -> None:
    assert set(list_pieces("评论：`优点：便宜`\n答：好")) >= {"优点", "便宜", "优点：便宜`", "好"}


def test_contained_keys_are_found_completely() -> None:
    needles = ["a" * 11, "abcdefghijkl", "一二三四五六七八九十百千万", "z" * 40]
    texts = [
        "xabcdefghijklx",
        "abcdefghijk",
        "三四五六七八九十百千万",
        "q" * 3 + "z" * 40,
        "一二三四五六七八九十百千",
        "万",
    ]
    assert [(one.needle, one.text, one.similarity) for one in find_contained(needles, texts)] == [
        (1, 0, 1.0),
        (3, 3, 1.0),
    ]
    assert [one.needle for one in find_contained(needles, texts, are_reviews=True)] == [3]
    assert find_contained([], texts) == find_contained(needles, []) == find_contained(needles, [""]) == []


def test_every_labelled_round_is_a_review(tmp_path: Path) -> None:
    said = [("评论：很好吃", ANSWER), ("谢谢", "不客气"), ("评论：太难吃", '{"sentiment": 0}'), ("再见", "")]
    turns = [turn for asked, answer in said for turn in chat(asked, answer)["messages"] if turn["content"]]
    rows = [{"messages": turns}, chat("评论：一般", '{"sentiment": 7}'), FOREIGN]
    rows += [chat(f"评论：不错{at}") for at in range(40)]
    result = read_source(write_rows(tmp_path / "a.jsonl", rows), BINARY_SENTIMENT)
    kept = [(one.text, one.label, one.source.line, one.source.round) for one in result.reviews[:2] if one.source]
    assert kept == [("很好吃", 1, 1, 1), ("太难吃", 0, 1, 3)]
    rejected = [(one.source.line, one.reason.value, one.text, one.detail) for one in result.rejected]
    assert rejected == [
        (1, "no label", "谢谢", "round 2: the answer is not a label: '不客气'"),
        (1, "no label", "再见", "the label is missing"),
        (2, "unknown label", "一般", "the label is '{\"sentiment\": 7}'"),
        (3, "no label", "你是谁？", "the answer is not a label: '我是一个助手。'"),
    ]
    assert result.inputs[0].n_rows == len(result.reviews) + len(result.rejected) == 46


@pytest.mark.parametrize(
    "form",
    [
        "a question",
        "a question after it",
        "a fence",
        "several questions",
        "alpaca, one instruction",
        "alpaca, five instructions",
        "alpaca, the review first",
        "a later round",
        "prompt and completion",
        "ms-swift",
    ],
)
def test_data_sets_hold_the_reviews_without_the_prompts(tmp_path: Path, form: str) -> None:
    """With one foreign row, whose answer is not a label, among them."""
    rows = [FORMS[form](at, text) for at, text in enumerate(TEXTS)]
    result = read_source(write_rows(tmp_path / "a.jsonl", [FOREIGN, *rows]), BINARY_SENTIMENT)
    kept = [one.text for one in result.reviews if one.text != "你好"]
    assert [text.rstrip("。") for text in kept] == [text.rstrip("。") for text in TEXTS]
    assert len(result.reviews) + len(result.rejected) == result.inputs[0].n_rows


def test_prompts_that_are_not_split_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [chat(f"{at}，{text}") for at, text in enumerate(TEXTS)]
    read_source(write_rows(tmp_path / "a.jsonl", rows), BINARY_SENTIMENT)
    assert "in 60 of 60 labelled prompts" in capsys.readouterr().err
    read_source(write_rows(tmp_path / "b.jsonl", [chat(ASKED + text) for text in TEXTS]), BINARY_SENTIMENT)
    assert capsys.readouterr().err == ""


def test_the_limit_of_rows_counts_rows_and_not_rounds(tmp_path: Path) -> None:
    rows = [{"messages": [*chat(f"评论：{at}好")["messages"], *chat(f"评论：{at}差")["messages"]]} for at in range(5)]
    path = write_rows(tmp_path / "a.jsonl", rows)
    assert [one.text for one in read_seen(path, BINARY_SENTIMENT, max_rows=2).reviews] == ["0好", "0差", "1好", "1差"]
    numbers = [one.number for one in iter_rounds(open_json_lines(inspect_text(path))) if hasattr(one, "number")]
    assert numbers == [1, 2] * 5


ENDING = "，全家人都是这么觉得的"


@pytest.mark.parametrize("form", ["the review alone", "alpaca, five instructions", "a question", "a fence"])
def test_reviews_that_end_alike_are_not_cut(tmp_path: Path, form: str) -> None:
    texts = [text.rstrip("。") + ENDING * (at % 2) for at, text in enumerate(TEXTS)]
    rows = [FORMS[form](at, text) for at, text in enumerate(texts)]
    kept = read_source(write_rows(tmp_path / "a.jsonl", rows), BINARY_SENTIMENT).reviews
    assert [one.text for one in kept] == texts


@pytest.mark.parametrize(
    "questions", [["情感是："], ["这条评论是好评还是差评？", "请判断下面这句话的情感：", "Review: "]]
)
def test_reviews_within_the_prompts_of_a_table_are_found(tmp_path: Path, questions: list[str]) -> None:
    prompts = [questions[at % len(questions)] + text for at, text in enumerate(TEXTS)]
    train = write_texts(tmp_path / "train.csv", prompts)
    report = check_leaks_in_files([train], [write_texts(tmp_path / "test.csv", TEXTS)])
    assert report.count_leaked() == {EXACT: 60, NEAR: 0}
    assert check_leaks_in_files([train], [write_texts(tmp_path / "test.csv", OTHERS)]).is_clean


@pytest.mark.parametrize(("user", "model"), [("Human", "Assistant"), ("USER", "ASSISTANT")])
def test_speakers_are_known_in_any_case(tmp_path: Path, user: str, model: str) -> None:
    rows = [{"conversations": [{"from": user, "value": text}, {"from": model, "value": "positive"}]} for text in TEXTS]
    result = read_source(write_rows(tmp_path / "a.jsonl", rows), BINARY_SENTIMENT)
    assert ([one.text for one in result.reviews], result.rejected) == (TEXTS, [])
