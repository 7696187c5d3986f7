"""Report, ladder and data page in a real browser: both languages, wide and narrow, light and dark."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from page_checks import LANGUAGES, WIDTHS, find_faults, keep_picture, read_style
from real_browser import IN_A_BROWSER
from scripted_comparison import write_model, write_reviews

from sentifactory.bilingual import MODEL_NAMES
from sentifactory.corpus.inspection.data_page import render_page as render_data
from sentifactory.corpus.inspection.data_profile import build_profile
from sentifactory.corpus.inspection.loaded_data import load_inspected
from sentifactory.corpus.prepare import prepare_reviews
from sentifactory.engines.base import OnAnswer
from sentifactory.engines.local.baselines import MajorityEngine, TfidfEngine
from sentifactory.evaluation import compare
from sentifactory.evaluation.compare_options import CompareOptions
from sentifactory.evaluation.ladder.ladder import add_comparisons, describe_entry
from sentifactory.evaluation.ladder.ladder_entries import (
    ENTRIES,
    EntryAnswers,
    LadderOptions,
    list_addable,
)
from sentifactory.evaluation.ladder.ladder_report import render_ladder
from sentifactory.evaluation.report.report import page_path_for
from sentifactory.records import Prediction, Review
from sentifactory.task.task import BINARY_SENTIMENT, Task
from tools.docs.chromium import open_browser

_HAS_AXE = pytest.mark.skipif(find_spec("axe_playwright_python") is None, reason="needs axe-playwright-python")


def in_a_browser(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that opens pages and checks their accessibility."""
    for mark in (*IN_A_BROWSER, _HAS_AXE):
        test = mark(test)
    return test


PAGES = ("report_scored", "report_written", "report_three", "ladder", "ladder_short", "data")
TUNED_COLOUR = "rgb(15, 118, 110)"
BARS = {"data": ".whole-bar .tone-4", "ladder_short": ".bar.tfidf"}
COLOURS = {"ladder_short": "rgb(183, 121, 31)"}
TEMPERS = ("差糟坏烂劣厌恨怒", "好棒美佳优赞喜爱", "平常一般普通凑合")


def make_rows(n: int, seed: int, n_labels: int = 2) -> list[tuple[int, str]]:
    """Made reviews: characters of all tempers, more of the label's own; long ones and one without a break."""
    dice = random.Random(seed)
    rows = []
    for row in range(n):
        label = row % n_labels
        length = dice.choice([7, 11, 30, 160])
        text = "".join(
            dice.choice(TEMPERS[label if dice.random() > 0.4 else dice.randrange(n_labels)]) for _ in range(length)
        )
        rows.append((label, f"{text}{seed}号{row}" + ("x" * 90 if row == 3 else "")))
    return rows


class Talkative(TfidfEngine):
    """TF-IDF that leaves most reviews without a readable answer, as a base model in mode generate does."""

    def predict(self, reviews: Any, on_answer: OnAnswer | None = None) -> list[Prediction]:
        found = super().predict(reviews)
        return [
            Prediction(one.label, raw="1") if row % 7 == 0 else Prediction(None, raw="" if row % 5 else "我觉得" * 60)
            for row, one in enumerate(found)
        ]


def write_comparison(folder: Path, patch: pytest.MonkeyPatch, task: Task, **changes: Any) -> Path:
    """Compare TF-IDF of few reviews with TF-IDF of many, as base and tuned, and return the page."""
    n_labels = len(task.labels)
    for name, n, seed in (("test", 150, 1), ("other", 80, 2), ("val", 100, 3), ("train", 240, 4)):
        rows = [(task.answer_values[label], text) for label, text in make_rows(n, seed, n_labels)]
        write_reviews(folder / f"{name}.csv", rows)
    for side in ("base", "tuned"):
        write_model(folder / f"{side}_model")

    def build(kind: str, model: str, task: Task, *, name: str, mode: str, **_: Any) -> TfidfEngine:
        kind_of = Talkative if mode == "generate" and name == "base" else TfidfEngine
        reviews = [
            Review(text, label) for label, text in make_rows(4 * n_labels if name == "base" else 500, 5, n_labels)
        ]
        return kind_of(task, name=name).fit(reviews)

    patch.setattr(compare, "build_engine", build)
    options = {"mode": "score", "val_path": str(folder / "val.csv"), "more_csv_paths": (str(folder / "other.csv"),)}
    report_file = str(folder / "out" / "report.json")
    compare.run_comparison(
        CompareOptions(
            csv_path=str(folder / "test.csv"),
            base_model=str(folder / "base_model"),
            finetuned_model=str(folder / "tuned_model"),
            output_file=report_file,
            engine="transformers",
            train_csv=str(folder / "train.csv"),
            task=task.name,
            **(options | changes),
        )
    )
    return page_path_for(report_file)


def make_ladder(options: LadderOptions, keys: list[str], folder: Path) -> dict[str, Any]:
    """A ladder whose models are TF-IDF of more and more reviews, with made costs."""
    test = [Review(text, label) for label, text in make_rows(150, 1)]
    train = [Review(text, label) for label, text in make_rows(400, 4)]
    entries, answered = {}, {}
    for place, key in enumerate(keys):
        engine = (
            MajorityEngine(train) if key == "majority" else TfidfEngine(BINARY_SENTIMENT).fit(train[: 20 + 60 * place])
        )
        answered[key] = engine.predict(test)
        facts = {"model": str(folder / key), "size_bytes": 5 * 10 ** (6 + place // 3), "train_s": 4.0 * 8**place}
        answers = EntryAnswers(answered[key], 1.0, 0.02 * 4**place, facts, None)
        title = MODEL_NAMES[key].table if key in MODEL_NAMES and key not in ENTRIES else ENTRIES[key][0]
        entries[key] = {
            "title": {"en": title.en, "zh": title.zh},
            **describe_entry(answers, test, BINARY_SENTIMENT, 0, 3 * 10**8 * (place + 1)),
        }
    add_comparisons(entries, answered, test)
    facts = {"file": str(folder / "test.csv"), "sha256": "0" * 64, "reviews": 150, "asked": 150}
    return {
        "warnings": [],
        "created_at": "2030-01-01T00:00:00+00:00",
        "data": {"test": facts, "train": facts},
        "rungs": entries,
        "addable": list_addable(options, BINARY_SENTIMENT),
        "task": {"prompt_template": BINARY_SENTIMENT.prompt_template},
        "settings": {"engine": "vllm"},
        "machine": {"processor": "CPU", "cores": 2, "memory_gib": 16, "system": "Linux"},
        "versions": {"python": "3.11"},
        "command": f"sentifactory eval ladder --csv_path {folder}/test.csv",
    }


def write_data_page(folder: Path) -> str:
    rows = [(label, text, ("books", "酒店")[row % 2]) for row, (label, text) in enumerate(make_rows(400, 9))]
    rows += rows[:20]
    lines = [f"{label},{text},{domain}" for label, text, domain in rows]
    (folder / "shop.csv").write_text("label,text,domain\n" + "\n".join(lines) + "\n", encoding="utf-8")
    prepare_reviews(str(folder / "shop.csv"), output_dir=folder / "data", val_size=40, test_size=60)
    return render_data(build_profile(load_inspected(str(folder / "data" / "shop"))))


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, three: Task, three_file: str) -> dict[str, Path]:
    """Each page, written as the commands write it."""
    root = tmp_path_factory.mktemp("pages")
    found: dict[str, str] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SENTIFACTORY_CACHE_DIR", str(root / "cache"))
        for name, task, changes in (
            ("report_scored", BINARY_SENTIMENT, {"adapt_prior": True}),
            ("report_written", BINARY_SENTIMENT, {"mode": "generate", "val_path": None, "more_csv_paths": ()}),
            ("report_three", three, {"task": three_file}),
        ):
            (root / name).mkdir()
            task_changes = {key: value for key, value in changes.items() if key != "task"}
            shown = task if "task" not in changes else Task(three_file, *_parts(task))
            found[name] = write_comparison(root / name, patch, shown, **task_changes).read_text(encoding="utf-8")
    whole = LadderOptions("test.csv", "train.csv", "base", "freeze", encoder_models=("e5",))
    keys = ["majority", "tfidf", "encoder", "zero_shot", "few_shot", "freeze"]
    found["ladder"] = render_ladder(make_ladder(whole, keys, root))
    found["ladder_short"] = render_ladder(make_ladder(LadderOptions("test.csv", "train.csv"), keys[:2], root))
    found["data"] = write_data_page(root)
    written = {}
    for name, text in found.items():
        written[name] = root / f"{name}.html"
        written[name].write_text(text, encoding="utf-8")
    return written


def _parts(task: Task) -> tuple[Any, ...]:
    return task.labels, task.answer_key, task.answer_values, task.prompt_template


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp() / "pictures"


def test_only_one_template_is_a_whole_page() -> None:
    templates = [
        path
        for package in ("pages", "evaluation/report", "corpus/inspection", "ui")
        for path in Path(str(files("sentifactory"))).joinpath(package, "templates").glob("*.html.j2")
    ]
    assert [path.name for path in templates if "<html" in path.read_text(encoding="utf-8")] == ["page.html.j2"]


@in_a_browser
def test_the_checks_are_not_blind(browser: Any, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!DOCTYPE html><html><title>x</title><body><input type=radio id=choose-en><label for=choose-en>e</label>"
        "<p class=zh>中</p><p class=en style='color:#ccc;width:2000px'>pale</p>"
        "<script>nobody()</script><img src='data:,'></html>",
        encoding="utf-8",
    )
    faults = " ".join(find_faults(browser, bad, "en", 390, tmp_path))
    for fault in (
        "1 visible texts in zh", "the font is not", "wider than the window", "too wide: P", "script error",
        "color-contrast", "image-alt", "html-has-lang",
    ):  # fmt: skip
        assert fault in faults, fault


# Which labels in the picture of costs cover another label, or the point or whisker of another model.
_LIST_COVERED = """() => {
  const boxes = [...document.querySelectorAll(".plane-area > div")].flatMap((group, owner) =>
    [...group.querySelectorAll(".label, .point, .range")].map(element => {
      const box = element.getBoundingClientRect();
      return {owner, box, text: element.textContent.trim(), isLabel: element.classList.contains("label")};
    }).filter(one => one.box.width > 0));
  const covers = (a, b) => Math.min(a.right, b.right) > Math.max(a.left, b.left)
    && Math.min(a.bottom, b.bottom) > Math.max(a.top, b.top);
  const labels = boxes.filter(one => one.isLabel);
  const found = labels.flatMap(label => boxes
    .filter(other => other.owner != label.owner && covers(label.box, other.box))
    .map(other => `${label.text} covers ${other.text || "the mark of " + other.owner}`));
  return [labels.length, found];
}"""


def draw_crowded_ladder(folder: Path, seed: int) -> Path:
    """The page of a ladder whose models are close together, with long names."""
    dice = random.Random(seed)
    options = LadderOptions("test.csv", "train.csv", "base", "freeze", "lora", encoder_models=("e5",))
    ladder = make_ladder(options, ["majority", "tfidf", "snownlp", "encoder", "zero_shot", "freeze", "lora"], folder)
    for entry in ladder["rungs"].values():
        accuracy = dice.uniform(0.8, 0.9)
        entry["metrics"]["accuracy"] = accuracy
        entry["metrics"]["accuracy_interval"] = {"low": accuracy - 0.04, "high": accuracy + 0.03}
        entry["reviews_per_s"] = 10 ** dice.uniform(0.5, 3.5)
    page = folder / f"crowded_{seed}.html"
    page.write_text(render_ladder(ladder), encoding="utf-8")
    return page


@in_a_browser
@pytest.mark.parametrize("seed", range(3))
def test_no_label_of_the_costs_covers_another_model(browser: Any, tmp_path: Path, pictures: Path, seed: int) -> None:
    crowded = draw_crowded_ladder(tmp_path, seed)
    for width in (*WIDTHS, 1000, 960, 700, 320):
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.goto(crowded.as_uri())
        for language in LANGUAGES:
            page.locator(f"label[for=choose-{language}]").click()
            n_labels, covered = page.evaluate(_LIST_COVERED)
            assert (n_labels, covered) == (6, []), (width, language)
            if width in WIDTHS:
                keep_picture(page, f"crowded_{seed}_{width}_{language}", pictures)
        page.close()


# Which figures of bars stick out of their chart.
_LIST_STICKING_OUT = """() => [...document.querySelectorAll(".chart.bars .value")]
  .filter(one => one.getBoundingClientRect().right > one.closest(".chart").getBoundingClientRect().right + .5)
  .map(one => one.textContent)"""


@in_a_browser
@pytest.mark.parametrize("width", [*WIDTHS, 320])
def test_the_figure_of_a_full_bar_stays_in_its_chart(browser: Any, tmp_path: Path, width: int) -> None:
    ladder = make_ladder(LadderOptions("test.csv", "train.csv"), ["majority", "tfidf"], tmp_path)
    ladder["rungs"]["tfidf"]["metrics"] |= {"accuracy": 1.0, "accuracy_interval": {"low": 0.9, "high": 1.0}}
    file = tmp_path / "full.html"
    file.write_text(render_ladder(ladder), encoding="utf-8")
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(file.as_uri())
    assert page.locator(".chart.bars .value").last.text_content() == "100.0%"
    assert page.evaluate(_LIST_STICKING_OUT) == []
    page.close()


# Which labels of the marks in a histogram are cut, or cover the other label or its line.
_LIST_BAD_MARKS = """() => {
  const shown = [...document.querySelectorAll(".histogram")].flatMap(picture => {
    const marks = [...picture.querySelectorAll(".mark")].map(mark => ({
      line: mark.getBoundingClientRect(), label: mark.querySelector("b").getBoundingClientRect(),
      text: mark.querySelector("b").innerText}));
    return marks.map((mark, place) => ({mark, other: marks[1 - place]}));
  });
  const covers = (a, b) => a.right > b.left && b.right > a.left && a.bottom > b.top && b.bottom > a.top;
  return shown.filter(({mark, other}) => covers(mark.label, other.label) || covers(mark.label, other.line)
    || mark.label.left < 0 || mark.label.right > innerWidth).map(({mark}) => mark.text);
}"""


def write_lengths(folder: Path, name: str, lengths: Sequence[int]) -> Path:
    """The page of a file whose reviews have these lengths."""
    lines = [f"{row % 2},{str(row).zfill(5)}{'好' * (length - 5)}" for row, length in enumerate(lengths)]
    (folder / f"{name}.csv").write_text("\n".join(["label,text", *lines, ""]), encoding="utf-8")
    page = folder / f"{name}.html"
    profile = build_profile(load_inspected(str(folder / f"{name}.csv")))
    page.write_text(render_data(profile), encoding="utf-8")
    return page


@pytest.mark.slow
@in_a_browser
@pytest.mark.parametrize(
    ("name", "lengths"),
    [
        ("close", [22 + row % 7 for row in range(100)]),
        ("same", [25] * 100),
        ("long_tail", [8] * 94 + [900] * 6),
        ("two_heaps", [8] * 40 + [2000] * 60),
        ("even", [6 + 2 * row for row in range(100)]),
        ("high", [5] + [1900 + row for row in range(99)]),
    ],
)
def test_the_marks_of_a_histogram_can_be_read(
    browser: Any, tmp_path: Path, pictures: Path, name: str, lengths: list[int]
) -> None:
    file = write_lengths(tmp_path, name, lengths)
    for width in WIDTHS:
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.goto(file.as_uri())
        for language in LANGUAGES:
            page.locator(f"label[for=choose-{language}]").click()
            assert page.locator(".histogram .mark").count() >= 2
            assert page.evaluate(_LIST_BAD_MARKS) == [], (width, language)
            keep_picture(page, f"lengths_{name}_{width}_{language}", pictures)
        page.close()


@pytest.mark.parametrize("name", PAGES)
class TestPages:
    """Every page that the commands write."""

    pytestmark = pytest.mark.slow

    @in_a_browser
    @pytest.mark.parametrize("width", WIDTHS)
    @pytest.mark.parametrize("language", LANGUAGES)
    def test_it_can_be_read(
        self, browser: Any, pages: dict[str, Path], pictures: Path, name: str, language: str, width: int
    ) -> None:
        assert find_faults(browser, pages[name], language, width, pictures) == []

    @in_a_browser
    def test_it_can_be_read_in_the_dark(self, browser: Any, pages: dict[str, Path], pictures: Path, name: str) -> None:
        assert find_faults(browser, pages[name], "en", WIDTHS[0], pictures, scheme="dark") == []

    @in_a_browser
    def test_bars_have_their_colours(self, browser: Any, pages: dict[str, Path], name: str) -> None:
        page = browser.new_page(color_scheme="light")
        page.goto(pages[name].as_uri())
        bar = BARS.get(name, ".bar.tuned")
        assert read_style(page, bar, "background-color") == COLOURS.get(name, TUNED_COLOUR)
        assert page.locator(bar).first.bounding_box()["width"] > 20
        page.close()

    def test_it_names_no_folder_of_this_machine(self, pages: dict[str, Path], name: str) -> None:
        assert str(pages[name].parent) not in pages[name].read_text(encoding="utf-8")
