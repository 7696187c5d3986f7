"""In a real browser: several uploads of different columns in one session, and the models that are chosen at first."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_files import write_opinions
from page_checks import collect_errors
from page_server import serve_page
from real_browser import IN_A_BROWSER, open_page, take_picture
from tiny_models import build_tiny_bert
from ui_workshop import build_workshop

from tools.docs.chromium import open_browser

pytestmark = IN_A_BROWSER
PATIENCE_MS = 120_000


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """The page with two pretrained models, of which the newer one is no one's base, and two tuned ones."""
    build_workshop(tmp_path)
    write_opinions(tmp_path / "opinions.csv")
    stars = [f"{at % 5 + 1},第{at}条评论各不相同{at * 7919}" for at in range(100)]
    (tmp_path / "stars.csv").write_text("\n".join(["stars,comment", *stars]), encoding="utf-8")
    (tmp_path / "header.csv").write_text("text,label\n", encoding="utf-8")
    tiny = tmp_path / "pretrained" / "tiny"
    for at, (name, base) in enumerate((("of-other", "other"), ("of-tiny", "tiny"))):
        folder = tmp_path / "space" / "models" / name
        shutil.copytree(tiny, folder)
        card = {"status": "finished", "recipe": {"model_name_or_path": str(tmp_path / "pretrained" / base)}}
        (folder / "run.json").write_text(json.dumps(card), encoding="utf-8")
        os.utime(folder / "config.json", (at + 1e9, at + 1e9))
    for name in ("other", "newest"):
        (tmp_path / "pretrained" / name).mkdir()
        build_tiny_bert(tmp_path / "pretrained" / name, seed=1)
    options = ("--models", "pretrained", "--recipes", "recipes")
    with serve_page(tmp_path, *options, password=None) as found:
        yield found


@pytest.fixture
def page(address: str) -> Iterator[Any]:
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE_MS)
    with open_browser() as browser:
        page = open_page(browser, address, locale="zh-CN", viewport={"width": 390, "height": 900})
        page.set_default_timeout(PATIENCE_MS)
        yield page


def test_uploads_of_different_columns_follow_each_other(page: Any, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    errors = collect_errors(page)
    page.on("response", lambda answer: answer.ok or errors.append(f"{answer.status} {answer.url}"))
    page.get_by_label("中文").check()
    page.get_by_role("tab", name="训练").click()
    wanted = {
        "my_reviews.csv": ("text", "label"),
        "opinions.csv": ("顾客说的话", "结论"),
        "stars.csv": ("comment", "stars"),
    }
    for name in ("my_reviews.csv", "opinions.csv", "stars.csv", "opinions.csv"):
        if (remove := page.locator("#train-file button.icon-button")).count():
            remove.first.click()
            expect(page.locator("#train-rows .sf-upload")).to_be_hidden()
        page.locator("#train-file input[type=file]").set_input_files(str(tmp_path / name))
        text, label = wanted[name]
        expect(page.locator("#train-text_column input")).to_have_value(text)
        expect(page.locator("#train-label_column input")).to_have_value(label)
        expect(page.get_by_test_id("toast-body")).to_have_count(0)
        is_cut = page.evaluate("() => document.documentElement.scrollWidth > innerWidth")
        assert not is_cut, name
    take_picture(page, "uploads_390_zh")

    # The column of the labels is in sight on a phone, and the task's name ends before the arrow.
    label_cell = page.locator("#train-rows td.label").first
    box = label_cell.bounding_box()
    assert box is not None
    assert 0 <= box["x"] < box["x"] + box["width"] <= 390
    padding = page.locator("#train-task input").evaluate("one => parseFloat(getComputedStyle(one).paddingRight)")
    assert padding >= 24

    # One column for both is refused at once, and the choice can be mended.
    page.locator("#train-text_column input").click()
    page.get_by_role("option", name="结论").click()
    expect(page.locator("#train-labels .sf-error .zh")).to_be_visible()
    take_picture(page, "uploads_same_column")
    page.locator("#train-text_column input").click()
    page.get_by_role("option", name="顾客说的话").click()
    expect(page.locator("#train-labels .label").first).to_be_visible()

    # A file without reviews says so, with nothing of the file before it.
    page.locator("#train-file button.icon-button").first.click()
    page.locator("#train-file input[type=file]").set_input_files(str(tmp_path / "header.csv"))
    expect(page.locator("#train-rows .sf-error .zh")).to_be_visible()
    expect(page.locator("#train-text_column")).to_be_hidden()
    take_picture(page, "uploads_header_only")
    assert errors == []


def test_the_base_of_the_tuned_model_is_chosen(page: Any) -> None:
    from playwright.sync_api import expect

    page.get_by_label("English").check()
    for tab in ("predict", "compare"):
        page.get_by_role("tab", name=tab.capitalize()).click()
        base, tuned = (page.locator(f"#{tab}-{side}_model input") for side in ("base", "tuned"))
        expect(base).to_have_value("pretrained/tiny")
        expect(tuned).to_have_value("ui/of-tiny")
        for model in ("ui/of-other", "ui/of-tiny", "ui/of-other"):
            tuned.click()
            page.locator(f"#{tab}-tuned_model").get_by_role("option", name=model).click()
            expect(base).to_have_value(f"pretrained/{model.removeprefix('ui/of-')}")
            base.click()  # another one by hand, which is for this tuned model alone
            page.locator(f"#{tab}-base_model").get_by_role("option", name="pretrained/newest").click()
            expect(base).to_have_value("pretrained/newest")
