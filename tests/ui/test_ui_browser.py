"""The page in a real browser: predict, upload, train, come back, compare, switch the language."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_server import serve_page
from real_browser import IN_A_BROWSER, open_page, take_picture
from ui_workshop import build_workshop

from tools.docs.chromium import open_browser

pytestmark = IN_A_BROWSER
PATIENCE_MS = 240_000


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """The page, started as its users start it."""
    build_workshop(tmp_path)
    with serve_page(tmp_path, "--models", "pretrained", "--recipes", "recipes", password=None) as address:
        yield address


@pytest.fixture
def page(address: str) -> Iterator[Any]:
    with open_browser() as browser:
        page = open_page(browser, address, locale="en-US", viewport={"width": 1280, "height": 900})
        page.set_default_timeout(PATIENCE_MS)
        yield page


def test_the_road_of_a_person_without_python(page: Any, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE_MS)
    strangers: list[str] = []
    page.on("requestfinished", lambda request: strangers.append(request.url))

    # Predict, by the keyboard alone.
    box = page.get_by_label("Reviews, one per line")
    box.click()
    page.keyboard.type("很好 喜欢 满意")
    page.keyboard.press("Enter")
    page.keyboard.type("<b>太差</b> 失望")
    button = page.get_by_role("button", name="Ask both models")
    button.focus()
    page.keyboard.press("Enter")
    answers = page.locator("#answers")
    expect(answers.locator("tbody tr")).to_have_count(2)
    expect(answers.locator("tbody tr").nth(1)).to_contain_text("<b>太差</b>")
    expect(answers.locator(".sf-bar")).to_have_count(4)

    # Upload, look at the data, train.
    page.get_by_role("tab", name="Train").click()
    page.locator("#train-file input[type=file]").set_input_files(str(tmp_path / "my_reviews.csv"))
    expect(page.locator("#train-file")).to_contain_text("my_reviews")
    # The controls of the file move the button down when they appear: a press that they come into is no click.
    expect(page.locator("#train-labels .sf-labels")).to_be_visible()
    page.get_by_role("button", name="1. Check and prepare the data").click()
    expect(page.frame_locator("#data-report iframe").locator("h1")).to_contain_text("my_reviews")
    page.get_by_label("Recipe").fill("quick")
    page.keyboard.press("Enter")
    page.get_by_label("Name of the new model").fill("mine")
    page.get_by_role("button", name="2. Start training").click()
    expect(page.locator("#progress .state")).to_contain_text("mine")
    page.reload()
    page.get_by_role("tab", name="Train").click()
    expect(page.locator("#progress .state")).to_contain_text("mine")
    expect(page.locator("#progress .state.finished")).to_be_visible()
    expect(page.locator("#progress polyline.train")).to_be_visible()
    take_picture(page, "train")

    # The new model is offered beside the old one, and better on the test part.
    page.get_by_role("tab", name="Predict").click()
    expect(page.get_by_label("Tuned model").first).to_have_value("ui/mine")
    expect(page.get_by_label("Base model").first).to_have_value("pretrained/tiny")
    page.get_by_label("Reviews, one per line").fill("房间服务很好喜欢满意\n早餐太差失望糟糕")
    page.get_by_role("button", name="Ask both models").click()
    expect(answers.locator(".sf-bar")).to_have_count(8)
    tuned = answers.locator("tbody tr td:nth-child(3) strong .en")
    assert tuned.all_inner_texts() == ["positive", "negative"]
    take_picture(page, "predict")
    page.get_by_role("tab", name="Compare").click()
    page.locator("#compare-data input").click()
    page.get_by_role("option", name="my_reviews").click()
    page.locator("#run_compare").click()
    report = page.frame_locator("#report iframe")
    expect(report.locator(".headline .en")).to_be_visible()
    take_picture(page, "compare")

    # Chinese, and the run card.
    page.get_by_label("中文").check()
    expect(page.get_by_role("tab", name="模型")).to_be_visible()
    page.get_by_role("tab", name="模型").click()
    page.locator("#card-model input").click()
    page.get_by_role("option", name="ui/mine").click()
    expect(page.locator("#card")).to_contain_text("finished")
    expect(page.locator("#card polyline.train")).to_be_visible()
    take_picture(page, "models")
    page.reload()
    expect(page.get_by_role("tab", name="预测")).to_be_visible()
    take_picture(page, "predict_zh")

    assert page.request.get(f"{page.url}gradio_api/info").json()["named_endpoints"] == {}
    assert page.request.get(page.url, headers={"X-Forwarded-For": "1.2.3.4"}).status == 403
    assert {entry.name for entry in tmp_path.iterdir()} <= {
        "pretrained", "recipes", "my_reviews.csv", "space", "sentifactory-cache",
    }  # fmt: skip
    assert not [url for url in strangers if not url.startswith((page.url, "data:", "blob:"))]
