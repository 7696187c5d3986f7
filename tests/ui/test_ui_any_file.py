"""In a real browser: a file with three classes and columns of other names, from the upload to a comparison.

By the mouse alone, in Chinese; and a prediction by the keyboard alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_files import WORDS, write_opinions
from page_server import serve_page
from real_browser import IN_A_BROWSER, open_page, take_picture
from ui_workshop import build_workshop

from tools.docs.chromium import open_browser

pytestmark = IN_A_BROWSER
PATIENCE_MS = 240_000


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Any]:
    build_workshop(tmp_path)
    write_opinions(tmp_path / "opinions.csv")
    options = ("--models", "pretrained", "--recipes", "recipes", "--data", "prepared")
    with serve_page(tmp_path, *options, password=None) as address, open_browser() as browser:
        page = open_page(browser, address, locale="ja-JP", viewport={"width": 1280, "height": 900})
        page.set_default_timeout(PATIENCE_MS)
        yield page


def choose(page: Any, control: str, option: str) -> None:
    """Choose an option of a list with the mouse; open it again if an answer of the server has closed it."""
    from playwright.sync_api import TimeoutError as TooLateError

    field, found = page.locator(f"#{control} input"), page.get_by_role("option", name=option)
    for _ in range(5):
        field.click()
        try:
            found.click(timeout=PATIENCE_MS / 20)
        except TooLateError:
            field.blur()
        else:
            return
    raise AssertionError(f"{control} does not offer {option}")


def count_visible(page: Any, language: str) -> int:
    """Return how many texts of a language are shown."""
    found = page.evaluate(
        "name => [...document.querySelectorAll(name)].filter(e => e.getClientRects().length)", f".{language}"
    )
    return len(found)


def test_three_classes_and_columns_of_other_names_by_mouse_in_chinese(page: Any, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE_MS)
    page.get_by_label("中文").check()
    page.get_by_role("tab", name="训练").click()
    expect(page.locator("#train-file")).to_contain_text("点击上传")

    # A mistake is said in Chinese alone.
    page.get_by_role("button", name="1. 检查并准备数据").click()
    expect(page.get_by_test_id("toast-body").locator(".zh")).to_be_visible()
    expect(page.get_by_test_id("toast-body").locator(".en")).to_be_hidden()
    page.get_by_test_id("toast-close").click()

    # The upload: rows, guessed columns, labels found, and a new task in two clicks.
    page.locator("#train-file input[type=file]").set_input_files(str(tmp_path / "opinions.csv"))
    expect(page.locator("#train-rows tbody tr")).to_have_count(5)
    expect(page.locator("#train-text_column input")).to_have_value("顾客说的话")
    expect(page.locator("#train-label_column input")).to_have_value("结论")
    expect(page.locator("#train-encoding input")).to_have_value("自动识别")
    expect(page.locator("#train-labels .label")).to_have_count(3)
    expect(page.locator("#train-task input")).to_have_value("新建任务：差评、中评、好评")
    choose(page, "train-label_column", "城市")
    expect(page.locator("#train-labels .label").filter(has_text="上海")).to_be_visible()
    choose(page, "train-label_column", "结论")
    expect(page.locator("#train-labels .label").first).to_contain_text("好评")
    choose(page, "train-task", "新建任务")
    take_picture(page, "any_file_upload")
    page.get_by_role("button", name="1. 检查并准备数据").click()
    expect(page.frame_locator("#data-report iframe").locator("h1")).to_contain_text("opinions")
    expect(page.locator("#train-data input")).to_have_value("opinions")

    choose(page, "train-recipe", "quick")
    expect(page.locator("#purpose .zh")).to_be_visible()
    page.get_by_role("button", name="2. 开始训练").click()
    expect(page.locator("#progress .state.finished")).to_be_visible()

    # Compare on its test part: the newest model, where it comes from, and the newest data are chosen.
    page.get_by_role("tab", name="对比").click()
    expect(page.locator("#compare-tuned_model input")).to_have_value("ui/opinions-quick")
    expect(page.locator("#compare-base_model input")).to_have_value("pretrained/tiny")
    expect(page.locator("#compare-data input")).to_have_value("opinions")
    page.locator("#run_compare").click()
    expect(page.frame_locator("#report iframe").locator(".headline .zh")).to_be_visible()

    # The card of the model tells of the comparison at once.
    page.get_by_role("tab", name="模型").click()
    expect(page.locator("#card .sf-tests li")).to_have_count(1)
    page.get_by_role("tab", name="对比").click()

    # A file of another task is explained before it is used.
    page.locator("#compare-file input[type=file]").set_input_files(str(tmp_path / "my_reviews.csv"))
    expect(page.locator("#compare-labels .misfit .zh").first).to_be_visible()
    take_picture(page, "any_file_compare")

    page.get_by_role("tab", name="预测").click()
    page.get_by_label("评论（每行一条）").fill("\n".join(f"房间服务{word * 3}" for word in WORDS.values()))
    page.get_by_role("button", name="开始预测").click()
    expect(page.locator("#answers tbody tr")).to_have_count(3)
    expect(page.locator("#answers tbody tr").first.locator("td:nth-child(3) .sf-bar")).to_have_count(3)
    assert count_visible(page, "en") == 0
    assert count_visible(page, "zh") > 0
    page.get_by_label("English").check()
    page.get_by_role("tab", name="Train").click()
    expect(page.locator("#train-encoding input")).to_have_value("detect")
    assert count_visible(page, "zh") == 0


def test_a_prediction_by_the_keyboard_alone(page: Any) -> None:
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE_MS)

    def press_tab_until(selector: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("selector => document.activeElement.closest(selector) !== null", selector):
                return
        raise AssertionError(f"{selector} is not reached by the Tab key")

    expect(page.get_by_role("tab", name="Predict")).to_be_visible()
    press_tab_until("#texts textarea")
    page.keyboard.type("很好 喜欢 满意")
    press_tab_until("#predict-base_model input")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    press_tab_until("#ask")
    page.keyboard.press("Enter")
    expect(page.locator("#answers tbody tr")).to_have_count(1)
    expect(page.locator("#answers .sf-bar")).to_have_count(2)
