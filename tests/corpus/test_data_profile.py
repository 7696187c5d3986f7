"""The profile: counts of the files, leaks, duplicates and doubtful labels."""

from __future__ import annotations

import csv
import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_reviews import build_tokenizer, make_reviews, make_text, write_csv

from sentifactory.corpus.inspection.data_page import render_page
from sentifactory.corpus.inspection.data_profile import SAMPLES_PER_LABEL, ProfileOptions, build_profile
from sentifactory.corpus.inspection.display_text import REASONS_ZH, TEXT_LIMIT, quote_for_terminal
from sentifactory.corpus.inspection.findings import build_findings
from sentifactory.corpus.inspection.loaded_data import load_inspected
from sentifactory.corpus.prepare import prepare_reviews
from sentifactory.records import Reason
from sentifactory.task.task import BINARY_SENTIMENT

LABELS = BINARY_SENTIMENT.labels
NO_DOUBT = ProfileOptions(has_doubt=False)
DOMAINS = ("books", "hotels", "电脑")


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """A prepared data set with domains, unequal labels, a repeat, a contradiction and a blank row."""
    reviews = [review for row, review in enumerate(make_reviews(200, LABELS)) if row % 4 != 1]
    rows = [(review.label or 0, review.text, DOMAINS[row % 3]) for row, review in enumerate(reviews)]
    rows += [(0, reviews[0].text, "books"), (1, reviews[2].text, "books"), (1, "", "books")]
    write_csv(tmp_path / "shop.csv", rows, "label,text,domain")
    prepare_reviews(str(tmp_path / "shop.csv"), output_dir=tmp_path / "data", val_size=0.2, test_size=0.2)
    return tmp_path / "data" / "shop"


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def draw(path: Path, options: ProfileOptions = NO_DOUBT) -> dict[str, Any]:
    return build_profile(load_inspected(str(path)), options)


def test_counts_are_those_of_the_files(prepared: Path) -> None:
    profile = draw(prepared)
    for part in ("train", "val", "test"):
        rows = read_rows(prepared / f"{part}.csv")
        counts = Counter(row["label"] for row in rows)
        assert profile["parts"][part]["rows"] == len(rows)
        assert profile["parts"][part]["labels"] == {"negative": counts["0"], "positive": counts["1"]}
        by_domain = Counter((row["domain"], row["label"]) for row in rows)
        for domain in DOMAINS:
            shown = profile["domains"][domain].get(part, {"negative": 0, "positive": 0})
            assert shown == {"negative": by_domain[domain, "0"], "positive": by_domain[domain, "1"]}
    rejected = read_rows(prepared / "rejected.csv")
    assert profile["rows"]["rejected_by_reason"] == dict(Counter(row["reason"] for row in rejected).most_common())
    assert profile["rows"]["in"] == 153 == profile["rows"]["kept"] + len(rejected)
    assert profile["provenance"]["rows_in_manifest"] == 153
    assert set(profile["rejected_examples"]) == {row["reason"] for row in rejected}


def test_lengths_are_those_of_the_files(prepared: Path, tmp_path: Path) -> None:
    profile = draw(prepared, replace(NO_DOUBT, tokenizer=str(build_tokenizer(tmp_path / "tokenizer"))))
    lengths = [len(row["text"]) for part in ("train", "val", "test") for row in read_rows(prepared / f"{part}.csv")]
    characters = profile["lengths"]["characters"]
    assert characters["all"]["reviews"] == len(lengths)
    assert (characters["all"]["min"], characters["all"]["max"]) == (min(lengths), max(lengths))
    assert sum(sum(counts) for counts in characters["histogram"]["counts"].values()) == len(lengths)
    assert characters["parts"]["val"]["reviews"] == profile["parts"]["val"]["rows"]
    # The test's tokenizer makes a token of every character but blanks.
    assert profile["lengths"]["tokens"]["all"] == characters["all"]
    assert profile["lengths"]["tokens"]["tokenizer"] == "tokenizer"


def test_a_clean_data_set_has_no_findings(prepared: Path) -> None:
    profile = draw(prepared)
    assert [(leak["parts"], leak["exact"], leak["near"]) for leak in profile["leaks"]] == [
        (["train", "val"], 0, 0),
        (["train", "test"], 0, 0),
        (["val", "test"], 0, 0),
    ]
    findings = build_findings(profile)
    assert findings["kind"] == "good"
    assert "no text is in two parts" in findings["headline"]["en"]
    assert any(sentence["kind"] == "good" for sentence in findings["sentences"])


def test_a_leak_is_reported_first(prepared: Path) -> None:
    stolen = read_rows(prepared / "test.csv")[:2]
    changed = stolen[1]["text"][:10] + "啊" + stolen[1]["text"][11:]
    with (prepared / "train.csv").open("a", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([(1, stolen[0]["text"] + "！！", "books"), (1, changed, "books")])
    profile = draw(prepared)
    assert [(leak["exact"], leak["near"]) for leak in profile["leaks"]] == [(0, 0), (1, 1), (0, 0)]
    shown = profile["leaks"][1]["examples"]
    assert [(pair["kind"], pair["other"]["line"]) for pair in shown] == [("exact", 2), ("near", 3)]
    assert shown[0]["one"]["text"] == stolen[0]["text"] + "！！"
    findings = build_findings(profile)
    assert findings["kind"] == "bad"
    assert "Do not train or evaluate" in findings["headline"]["en"]
    said = [sentence["en"] for sentence in findings["sentences"] if sentence["kind"] == "bad"]
    assert any("train.csv differs from the manifest" in words for words in said)
    assert any("155 rows, but the manifest states 153" in words for words in said)
    assert any("1 text of the test part is also in the training part" in words for words in said)
    assert any("1 near duplicate of texts of the training part is in the test" in words for words in said)


def test_duplicates_and_contradictions_of_a_file(tmp_path: Path) -> None:
    reviews = make_reviews(40, LABELS)
    rows = [(review.label or 0, review.text) for review in reviews]
    rows += [(rows[4][0], rows[4][1] + "！"), rows[4], (1 - int(rows[7][0]), rows[7][1])]
    profile = draw(write_csv(tmp_path / "a.csv", rows))
    repeats = profile["repeats"]
    assert (repeats["distinct"], repeats["repeated_rows"], repeats["contradicting_texts"]) == (40, 3, 1)
    assert [(group["rows"], group["labels"]) for group in repeats["groups"]] == [
        (2, {"negative": 1, "positive": 1}),
        (3, {"negative": 3}),
    ]
    assert [place["line"] for place in repeats["groups"][1]["places"]] == [6, 42, 43]
    assert profile["leaks"] == []
    assert build_findings(profile)["headline"]["en"] == "43 reviews, 40 of them different."


def test_copies_from_up_sampling_are_not_lost_rows(tmp_path: Path) -> None:
    reviews = [review for row, review in enumerate(make_reviews(200, LABELS)) if row % 4 != 1]
    write_csv(tmp_path / "shop.csv", [(review.label or 0, review.text) for review in reviews])
    prepare_reviews(str(tmp_path / "shop.csv"), output_dir=tmp_path / "data", balance="up")
    profile = draw(tmp_path / "data" / "shop")
    labels = profile["parts"]["train"]["labels"]
    assert labels["negative"] == labels["positive"]
    assert profile["parts"]["train"]["copies"] > 20
    assert profile["rows"]["in"] == 150 == profile["provenance"]["rows_in_manifest"]
    findings = build_findings(profile)
    assert findings["kind"] == "good"
    assert any("up-sampling" in sentence["en"] for sentence in findings["sentences"])
    assert not any("duplicate an earlier" in sentence["en"] for sentence in findings["sentences"])


def test_doubtful_labels_are_in_the_profile_or_the_reason_why_not(tmp_path: Path) -> None:
    rows = [(review.label or 0, review.text) for review in make_reviews(120, LABELS)]
    rows[31] = (0, rows[31][1])
    path = write_csv(tmp_path / "a.csv", rows)
    doubtful = draw(path, ProfileOptions())["doubtful"]
    assert doubtful["contradicted"] == len(doubtful["rows"]) == 1
    assert {key: doubtful["rows"][0][key] for key in ("line", "label", "suggested_label", "text")} == {
        "line": 33,
        "label": "negative",
        "suggested_label": "positive",
        "text": rows[31][1],
    }
    assert draw(path)["doubtful"] == {"skipped": "by choice"}
    few = draw(write_csv(tmp_path / "few.csv", rows[:6]), ProfileOptions())["doubtful"]
    assert "fewer than the 5 folds" in few["skipped"]


def test_random_labels_give_no_estimate_of_errors(tmp_path: Path) -> None:
    rng = random.Random(3)
    rows = [(rng.randrange(2), review.text) for review in make_reviews(120, LABELS)]
    profile = draw(write_csv(tmp_path / "a.csv", rows), ProfileOptions())
    assert profile["doubtful"]["is_weak"]
    said = " ".join(sentence["en"] for sentence in build_findings(profile)["sentences"])
    assert "cannot be found" in said
    assert "probably wrong" not in said + render_page(profile)


def test_imbalanced_labels_are_reported(tmp_path: Path) -> None:
    reviews = make_reviews(80, LABELS)
    rows = [(review.label or 0, review.text) for row, review in enumerate(reviews) if row % 4 != 1]
    said = [s["en"] for s in build_findings(draw(write_csv(tmp_path / "a.csv", rows)))["sentences"]]
    assert said == ["Imbalanced labels: negative 40, positive 20."]


def test_samples_are_seeded_and_of_their_label(prepared: Path) -> None:
    first, again = draw(prepared)["samples"], draw(prepared)["samples"]
    assert first == again
    texts = {part: [row["text"] for row in read_rows(prepared / f"{part}.csv")] for part in ("train", "val", "test")}
    for label, items in first.items():
        assert len(items) == len({item["text"] for item in items}) == SAMPLES_PER_LABEL
        for item in items:
            row = read_rows(prepared / f"{item['part']}.csv")[item["line"] - 2]
            assert (row["text"], LABELS[int(row["label"])]) == (item["text"], label)
            assert item["text"] in texts[item["part"]]
    assert draw(prepared, replace(NO_DOUBT, seed=7))["samples"] != first
    # The hash that chose the test part must not choose the samples as well.
    assert {item["part"] for items in first.values() for item in items} == {"train", "val", "test"}


def test_the_profile_is_deterministic(prepared: Path) -> None:
    first, second = (json.dumps(draw(prepared, ProfileOptions()), ensure_ascii=False) for _ in range(2))
    assert first == second


def test_a_very_long_review_is_marked_as_shortened(tmp_path: Path) -> None:
    profile = draw(write_csv(tmp_path / "a.csv", [(1, "长" * (TEXT_LIMIT + 500)), (0, "短")]))
    item = profile["samples"]["positive"][0]
    assert (len(item["text"]), item["characters"]) == (TEXT_LIMIT, TEXT_LIMIT + 500)


def test_one_label_alone_is_shown_too(tmp_path: Path) -> None:
    rng = random.Random(1)
    path = write_csv(tmp_path / "a.csv", [(1, make_text("positive", rng)) for _ in range(8)])
    profile = draw(path, ProfileOptions())
    assert profile["parts"]["file"]["labels"] == {"negative": 0, "positive": 8}
    assert "only the label 'positive'" in profile["doubtful"]["skipped"]
    assert any(
        sentence["en"] == "No reviews with the label negative." for sentence in build_findings(profile)["sentences"]
    )


def test_every_reason_has_a_chinese_name() -> None:
    assert {str(reason) for reason in Reason} <= set(REASONS_ZH)


def test_control_characters_are_escaped_for_the_terminal() -> None:
    assert quote_for_terminal("好\x1b[2J\r\n\x00很\u202e好", 40) == "好␛[2J ␀很\ufffd好"
    assert quote_for_terminal("字" * 50, 10) == "字" * 9 + "…"
    assert quote_for_terminal("a\ud800b", 10) == "a?b"
