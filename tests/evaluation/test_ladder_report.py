"""How a ladder is worded: every cell, the headline, Markdown, the table on the terminal, the page, the files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from page_reader import read_page

from sentifactory.evaluation.ladder.ladder_entries import LadderOptions, list_addable
from sentifactory.evaluation.ladder.ladder_report import (
    describe_addable,
    describe_best,
    list_cells,
    list_remarks,
    plan_costs,
    print_ladder,
    render_ladder,
    render_markdown,
    write_ladder,
)
from sentifactory.task.task import BINARY_SENTIMENT


def make_entry(title: str, accuracy: float, **changes: Any) -> dict[str, Any]:
    entry = {
        "title": {"en": title, "zh": f"模型{title}"},
        "metrics": {
            "accuracy": accuracy,
            "accuracy_interval": {"low": accuracy - 0.05, "high": accuracy + 0.05},
            "macro_f1": accuracy - 0.01,
            "reviews": 200,
            "unparsed": 0,
        },
        "against_tfidf": None,
        "ece_equal_mass": None,
        "ece_by_chance": 0.0341,
        "calibration": None,
        "reviews_per_s": 5.1234,
        "peak_bytes": 1_500_000_000,
        "size_bytes": None,
        "train_s": None,
        "note": None,
    }
    return {**entry, **changes}


def compare_to_tfidf(difference: float, *, is_shown: bool) -> dict[str, Any]:
    return {
        "difference": difference,
        "interval": {"low": difference - 0.02, "high": difference + 0.02},
        "p_value": 0.0041,
        "p_value_holm": 0.0123,
        "is_shown": True,
        "is_shown_holm": is_shown,
    }


@pytest.fixture
def ladder() -> dict[str, Any]:
    return {
        "data": {"test": {"file": "data/te_st.csv", "sha256": "0123456789abcdef", "asked": 200, "reviews": 1200}},
        "warnings": [{"en": "A <b>warning", "zh": "一个警告"}],
        "created_at": "2026-11-22T04:00:00+00:00",
        "task": {"prompt_template": "Is it good? {text}"},
        "settings": {"seed": 0, "shots": None},
        "machine": {"processor": "A chip", "cores": 2, "memory_gib": 24, "system": "Linux"},
        "versions": {"sentifactory": "0.1.0"},
        "command": "sentifactory eval ladder --csv_path data/te_st.csv",
        "rungs": {
            "majority": make_entry(
                "Majority", 0.5, reviews_per_s=1234.5, against_tfidf=compare_to_tfidf(-0.3, is_shown=True)
            ),
            "tfidf": make_entry(
                "TF-IDF",
                0.8,
                ece_equal_mass=0.0478,
                size_bytes=5_000_000,
                train_s=6.0,
                decided={"share": 0.0, "error": None, "error_interval": None},
            ),
            "snownlp": make_entry(
                "snownlp", 0.95, note={"en": "It *has* seen these.", "zh": "它见过。"}, reviews_per_s=None
            ),
            "encoder": {
                "title": {"en": "Encoder", "zh": "编码器"},
                "missing": {"en": "--encoder_model was not given.", "zh": "未给出。"},
                "note": None,
            },
            "freeze": make_entry(
                "LLM",
                0.875,
                against_tfidf=compare_to_tfidf(0.075, is_shown=True),
                ece_equal_mass=0.02,
                calibration={"temperature": 1.2},
                train_s=906.0,
                decided={"share": 0.625, "error": 0.04, "error_interval": {"low": 0.015, "high": 0.085}},
            ),
        },
    }


def test_every_cell_of_an_entry(ladder: dict[str, Any]) -> None:
    entries = ladder["rungs"]
    assert [cell.line for cell in list_cells(entries["majority"])] == [
        "50.0% (45.0%–55.0%)", "-30.0 (-32.0 to -28.0; p = 0.012)", "–", "49.0%", "–", "1,234", "1.50 GB", "–", "–",
    ]  # fmt: skip
    assert [cell.line for cell in list_cells(entries["tfidf"])] == [
        "80.0% (75.0%–85.0%)", "–", "0.0%", "79.0%", "0.048 (0.034)", "5.12", "1.50 GB", "5 MB", "6.0 s",
    ]  # fmt: skip
    assert [cell.line for cell in list_cells(entries["freeze"])] == [
        "87.5% (82.5%–92.5%)", "+7.5 (5.5 to 9.5; p = 0.012)", "62.5% (error 4.0%, 1.5%–8.5%)", "86.5%",
        "0.020 (0.034, calibrated)", "5.12", "1.50 GB", "–", "15.1 min",
    ]  # fmt: skip
    assert [cell.text.en for cell in list_cells({**entries["snownlp"], "peak_bytes": None})[5:7]] == ["–", "–"]
    small = [cell.small.zh for cell in list_cells(entries["freeze"])[1:5] if cell.small]
    assert small == ["5.5 至 9.5；p = 0.012", "错误率 4.0%，1.5%–8.5%", "0.034，已校准"]


def test_the_headline_names_the_best_entry_without_a_note(ladder: dict[str, Any]) -> None:
    best = describe_best(ladder)
    assert best.en == (
        "LLM has the highest accuracy: 87.5% of 200 reviews right. "
        "It is shown to beat TF-IDF: +7.5 points, p = 0.012, corrected for 2 comparisons (Holm). "
        "Models that have seen test reviews are left out."
    )
    assert best.zh == (
        "准确率最高的是模型 LLM：200 条评论中 87.5%。"
        "优于 TF-IDF 得到证明：+7.5 个百分点，p = 0.012，已对 2 次比较作 Holm 校正。见过测试评论的模型不参与比较。"
    )
    ladder["rungs"]["freeze"]["against_tfidf"]["is_shown_holm"] = False
    assert "It is not shown to beat TF-IDF: +7.5 points" in describe_best(ladder).en
    assert "优于 TF-IDF 未得到证明：" in describe_best(ladder).zh
    del ladder["rungs"]["freeze"]
    best = describe_best(ladder)
    assert best.en == (
        "TF-IDF has the highest accuracy: 80.0% of 200 reviews right. No other model is better. "
        "Models that have seen test reviews are left out."
    )
    assert best.zh == "准确率最高的是模型 TF-IDF：200 条评论中 80.0%。没有模型超过它。见过测试评论的模型不参与比较。"
    del ladder["rungs"]["snownlp"]
    assert "left out" not in describe_best(ladder).en
    del ladder["rungs"]["tfidf"]
    ladder["rungs"]["majority"]["against_tfidf"] = None
    assert describe_best(ladder).en == "Majority has the highest accuracy: 50.0% of 200 reviews right."


def test_markdown_word_for_word(ladder: dict[str, Any]) -> None:
    assert render_markdown(ladder).splitlines() == [
        "# Ladder of models",
        "",
        "> **Warning:** A \\<b\\>warning",
        "",
        "**LLM has the highest accuracy: 87.5% of 200 reviews right. "
        "It is shown to beat TF-IDF: +7.5 points, p = 0.012, corrected for 2 comparisons (Holm). "
        "Models that have seen test reviews are left out.**",
        "",
        "200 of 1200 reviews of `data/te_st.csv`, sha256 0123456789ab",
        "",
        "| Model | Accuracy | Against TF-IDF, points (Holm) | Decided at up to 5% error | Macro F1 "
        "| ECE (by chance) | Reviews/s | Peak memory | Model size | Training |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| Majority | 50.0% (45.0%–55.0%) | -30.0 (-32.0 to -28.0; p = 0.012) | – | 49.0% "
        "| – | 1,234 | 1.50 GB | – | – |",
        "| TF-IDF | 80.0% (75.0%–85.0%) | – | 0.0% | 79.0% | 0.048 (0.034) | 5.12 | 1.50 GB | 5 MB | 6.0 s |",
        "| snownlp | 95.0% (90.0%–100.0%) | – | – | 94.0% | – | – | 1.50 GB | – | – |",
        "| LLM | 87.5% (82.5%–92.5%) | +7.5 (5.5 to 9.5; p = 0.012) | 62.5% (error 4.0%, 1.5%–8.5%) | 86.5% "
        "| 0.020 (0.034, calibrated) | 5.12 | 1.50 GB | – | 15.1 min |",
        "",
        "- snownlp: It \\*has\\* seen these.",
        "- Encoder: --encoder\\_model was not given.",
        "",
        "Command: `sentifactory eval ladder --csv_path data/te_st.csv`",
    ]


def test_the_table_on_the_terminal(ladder: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    print_ladder(ladder)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "WARNING: A <b>warning"
    assert lines[1].strip() == "200 reviews of data/te_st.csv"
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    assert rows[0] == ["Majority", *(cell.line for cell in list_cells(ladder["rungs"]["majority"]))]
    assert rows[3] == ["Encoder", "missing", *[""] * 8]
    assert len(rows) == 5
    assert lines[-3:] == [
        "snownlp: It *has* seen these.",
        "Encoder: --encoder_model was not given.",
        describe_best(ladder).en,
    ]
    # Names stand at the left of their column, figures at the right.
    raw = next(line.split("│")[1:3] for line in lines if line.startswith("│ TF-IDF"))
    assert raw[0].startswith(" TF-IDF ")
    assert raw[1].endswith("85.0%) ")


def test_the_page_shows_every_entry_with_a_bar_of_its_own_colour(ladder: dict[str, Any]) -> None:
    page = render_ladder(ladder)
    reader = read_page(page)
    assert reader.addresses == []
    for words in ("模型阶梯", "Ladder of models", "模型LLM", "未给出。", "优于 TF-IDF 得到证明"):
        assert words in page, words
    for words in reader.words["zh"]:
        assert not re.search(r"calibrated|error|missing| to ", words), words
    assert re.findall(r'<div class="bar (\w+)"', page) == ["majority", "tfidf", "tfidf", "tuned"]
    assert ">87.5%<small>82.5%–92.5%</small></td>" in page
    assert "0.034，已校准" in page


def test_the_picture_of_costs_leaves_out_what_is_no_fair_contender(ladder: dict[str, Any]) -> None:
    known = {key: entry for key, entry in ladder["rungs"].items() if "metrics" in entry}
    plane = plan_costs(known, {key: (key, key) for key in known})
    assert plane is not None
    assert [point["key"] for point in plane["points"]] == ["freeze", "tfidf"], "no majority label, nothing that leaked"
    assert plane["line"] is not None
    del ladder["rungs"]["freeze"]
    assert "plane-area" in render_ladder(ladder).split("</style>")[1], "one model and the majority label's line"
    del ladder["rungs"]["tfidf"]
    assert "plane-area" not in render_ladder(ladder).split("</style>")[1]


def test_the_page_explains_only_columns_that_it_has(ladder: dict[str, Any]) -> None:
    assert "cross-fit" in render_ladder(ladder)
    assert "same test (McNemar" in render_ladder(ladder)
    for entry in ladder["rungs"].values():
        entry.pop("decided", None)
        entry.pop("against_tfidf", None)
    assert "cross-fit" not in render_ladder(ladder)
    assert "same test (McNemar" not in render_ladder(ladder)


def test_what_could_be_added_is_one_line_with_its_command(
    ladder: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    options = LadderOptions("test.csv", "train.csv", base_model="base", encoder_models=("e5",))
    ladder["addable"] = list_addable(options, BINARY_SENTIMENT)
    added = describe_addable(ladder)
    assert added is not None
    words, command = added
    assert command == f"{ladder['command']} --snownlp --freeze_model FOLDER --lora_model FOLDER --stack_model FOLDER"
    assert "大模型，LoRA 微调" in words.zh
    assert words.zh in render_ladder(ladder)
    assert command in render_markdown(ladder)
    print_ladder(ladder)
    assert "--stack_model FOLDER" in capsys.readouterr().out
    ladder["addable"] = []
    assert describe_addable(ladder) is None


def test_pages_name_no_folder_of_this_machine(ladder: dict[str, Any]) -> None:
    ladder["data"]["test"]["file"] = "/home/me/secret/test.csv"
    ladder["command"] = f"sentifactory eval ladder --csv_path {Path.cwd()}/data/test.csv --output_file /srv/x/y.json"
    for text in (render_ladder(ladder), render_markdown(ladder)):
        assert "/home/me" not in text
        assert str(Path.cwd()) not in text
        assert "--csv_path data/test.csv --output_file y.json" in text


def test_the_ladder_is_written_in_three_forms(ladder: dict[str, Any], tmp_path: Path) -> None:
    page = write_ladder(ladder, tmp_path / "out" / "ladder.json")
    assert page == tmp_path / "out" / "ladder.html"
    assert page.read_text(encoding="utf-8") == render_ladder(ladder)
    assert (tmp_path / "out" / "ladder.md").read_text(encoding="utf-8") == render_markdown(ladder)
    assert json.loads((tmp_path / "out" / "ladder.json").read_text(encoding="utf-8")) == ladder


def test_reviews_without_an_answer_are_reported_in_every_form(
    ladder: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert list_remarks(ladder) == [pair for pair in list_remarks(ladder) if pair[1].en]
    before = len(list_remarks(ladder))
    ladder["rungs"]["tfidf"]["metrics"]["unparsed"] = 3
    (added,) = [words for title, words in list_remarks(ladder) if title.en == "TF-IDF"]
    assert len(list_remarks(ladder)) == before + 1
    assert "3 of 200" in added.en
    assert "200" in added.zh
    assert added.en in render_markdown(ladder)
    assert added.zh in render_ladder(ladder)
    print_ladder(ladder)
    assert "3 of 200" in capsys.readouterr().out
