"""A training that is stopped and continued on the page, in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_server import serve_page
from real_browser import IN_A_BROWSER, open_page, take_picture
from ui_workshop import RECIPE, build_workshop

from tools.docs.chromium import open_browser

pytestmark = IN_A_BROWSER
PATIENCE_MS = 240_000
# Long enough to be stopped on a fast machine; it saves a checkpoint when it is.
LONG = RECIPE + "early_stopping_patience: 0\n"


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Any]:
    """The tab Train with a prepared data set, a long recipe and one that fails."""
    folder = build_workshop(tmp_path)
    model = folder / "pretrained" / "tiny"
    recipes = {"long": LONG.format(model=model, epochs=40), "broken": LONG.format(model=model, epochs=-3)}
    for name, text in recipes.items():
        (folder / "recipes" / f"{name}.yaml").write_text(text, encoding="utf-8")
    with (
        serve_page(folder, "--models", "pretrained", "--recipes", "recipes", password=None) as address,
        open_browser() as browser,
    ):
        page = open_page(browser, address, locale="en-US", viewport={"width": 1280, "height": 900})
        page.set_default_timeout(PATIENCE_MS)
        page.get_by_role("tab", name="Train").click()
        page.locator("#train-file input[type=file]").set_input_files(str(folder / "my_reviews.csv"))
        page.locator("#train-labels .sf-labels").wait_for()
        page.locator("#check_data").click()
        page.frame_locator("#data-report iframe").locator("h1").wait_for()
        yield page


def start(page: Any, recipe: str, name: str) -> None:
    page.locator("#train-recipe input").click()
    page.locator("#train-recipe").get_by_role("option", name=recipe, exact=True).click()
    page.locator("#model_name textarea, #model_name input").fill(name)
    page.locator("#start").click()
    page.locator("#progress .state code", has_text=name).wait_for()


def read_steps(page: Any) -> int:
    found = re.search(r"step (\d+)", page.locator("#progress .sf-bar.whole .value").inner_text())
    assert found
    return int(found[1])


def test_a_training_is_stopped_and_continued_and_leads_to_the_next_steps(page: Any) -> None:
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE_MS)
    start(page, "long", "mine")
    expect(page.locator("#stop")).to_be_visible()
    expect(page.locator("#start")).to_be_disabled()
    page.locator("#progress .sf-bar.whole").wait_for()
    page.locator("#stop").click()
    expect(page.locator("#progress .state.stopped")).to_be_visible()
    ending = page.locator("#progress .ending .en").inner_text()
    assert re.search(r"^Stopped at step \d+ of \d+\. It can continue from the checkpoint of step \d+\.$", ending), (
        ending
    )
    stopped_at = read_steps(page)
    assert f"step {stopped_at} of" in ending
    expect(page.locator("#resume")).to_be_visible()
    expect(page.locator("#stop")).to_be_hidden()
    expect(page.locator("#start")).to_be_enabled()
    expect(page.locator("#next-steps")).to_be_hidden()
    take_picture(page, "train_stopped")

    page.locator("#resume").click()
    expect(page.locator("#progress .state.running")).to_be_visible()
    expect(page.locator("#resume")).to_be_hidden()
    expect(page.locator("#stop")).to_be_visible()
    page.locator("#progress .sf-bar.whole").wait_for()
    assert read_steps(page) >= stopped_at, "it does not begin anew"
    expect(page.locator("#progress .state.finished")).to_be_visible()
    assert "steps are done" in page.locator("#progress .ending .en").inner_text()
    expect(page.locator("#stop")).to_be_hidden()
    for button in ("use_model", "compare_model", "publish_model"):
        expect(page.locator(f"#{button}")).to_be_visible()
    expect(page.locator("#predict-tuned_model input")).to_have_value("ui/mine")
    expect(page.locator(".toast-body.error")).to_have_count(0)
    take_picture(page, "train_continued")


def test_a_training_that_fails_says_why_in_the_language_of_the_page(page: Any) -> None:
    start(page, "broken", "bad")
    page.locator("#progress .state.failed").wait_for()
    page.get_by_label("中文").check()
    ending = page.locator("#progress .ending .zh")
    ending.wait_for()
    said = ending.inner_text()
    assert "配方有误" in said
    assert not re.search("[A-Za-z]{3} [A-Za-z]{2}", said), said
    take_picture(page, "train_failed_zh")
