"""Every tab of the page in a real browser: both languages, wide and narrow, by mouse and by keyboard.

A model is trained and compared first, so that the tabs are full. Pictures are kept in the folder of the run, or in the
one that UI_PICTURES names.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_checks import LANGUAGES, WIDTHS, collect_errors, keep_picture, list_faults, read_style
from page_server import serve_page
from real_browser import IN_A_BROWSER, load_page
from ui_workshop import build_workshop

from sentifactory.ui.actions import PageActions
from sentifactory.ui.training_jobs import FINISHED, RUNNING, find_job
from sentifactory.ui.workspace import open_workspace
from tools.docs.chromium import open_browser

pytestmark = IN_A_BROWSER
PATIENCE_S = 240
TABS = ("predict", "train", "compare", "models")
TUNED_COLOUR = "rgb(15, 118, 110)"
NAMES = {"en": "en-US", "zh": "zh-CN"}
# What has the focus, with the size of its place on the screen.
FOCUSED = """() => {
  const element = document.activeElement;
  if (element === document.body) return null;
  const name = element.getAttribute("aria-label") || element.innerText || element.value || "";
  const place = element.closest("[id]");
  return [`${element.tagName} ${place ? place.id : ""} ${name.trim()}`, element.getBoundingClientRect().width];
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page on a workspace with a trained and compared model."""
    folder = tmp_path_factory.mktemp("screens")
    build_workshop(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SENTIFACTORY_CACHE_DIR", str(folder / "cache"))
        patch.chdir(folder)
        workspace = open_workspace(folder / "space")
        actions = PageActions(workspace, (folder / "pretrained",), (folder / "recipes",))
        data, _ = actions.prepare(str(folder / "my_reviews.csv"), "my_reviews.csv")
        actions.start(data, "quick", "mine")
        deadline = time.monotonic() + PATIENCE_S
        while (job := find_job(workspace)) is None or job.state == RUNNING:
            assert time.monotonic() < deadline
            time.sleep(0.5)
        assert job.state == FINISHED, job.log
        actions.compare("pretrained/tiny", "ui/mine", None, data)
        with serve_page(folder, "--models", "pretrained", "--recipes", "recipes", password=None) as found:
            yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as found:
        yield found


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return tmp_path / "pictures"


def open_full_page(
    browser: Any, address: str, language: str, width: int, scheme: str = "light"
) -> tuple[Any, list[str]]:
    """Return the page in a language once its lists are filled, and the list of the errors of its scripts."""
    page = browser.new_page(viewport={"width": width, "height": 900}, locale=NAMES[language], color_scheme=scheme)
    page.set_default_timeout(1000 * PATIENCE_S)
    errors = collect_errors(page)
    load_page(page, address)
    page.locator("#card .sf-tests").wait_for(state="attached")
    return page, errors


def open_tab(page: Any, tab: str) -> None:
    page.locator(f"#tab-{tab}-button").click()
    page.locator(f"#tab-{tab}").wait_for()


def fill_tab(page: Any, tab: str) -> None:
    """Make a tab show what it shows when it is used."""
    if tab == "predict":
        page.locator("#texts textarea").fill("房间服务很好喜欢满意\n早餐太差失望糟糕")
        page.locator("#ask").click()
        page.locator("#answers .sf-bar").first.wait_for()
    if tab == "train":
        page.locator("#next-steps").wait_for()
    if tab in ("compare", "models"):
        chooser, place = {"compare": ("past-report", "report"), "models": ("card-report", "card-report-page")}[tab]
        page.locator(f"#{chooser} input").click()
        page.get_by_role("option").first.click()
        page.frame_locator(f"#{place} iframe").locator("h1").wait_for()


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("width", WIDTHS)
def test_every_tab_has_one_language_its_style_and_nothing_cut_off(
    width: int, language: str, browser: Any, address: str, pictures: Path
) -> None:
    page, errors = open_full_page(browser, address, language, width)
    faults: list[str] = []
    for tab in TABS:
        open_tab(page, tab)
        fill_tab(page, tab)
        page.wait_for_timeout(1000)
        found = list_faults(page, language, width)
        if tab == "compare":  # outside of the report all its texts are labels of gradio's
            page.frame_locator("#report iframe").locator(f".headline .{language}").wait_for()
            found = [fault for fault in found if fault != f"0 visible texts in {language}"]
        faults += [f"{tab}: {fault}" for fault in found]
        keep_picture(page, f"page_{tab}_{width}_{language}", pictures)
    assert faults + errors == []
    open_tab(page, "train")
    assert read_style(page, "#progress .sf-bar.whole .fill", "background-color") == TUNED_COLOUR
    assert page.locator("footer").count() == 0 or not page.locator("footer").is_visible()
    page.close()


def test_what_the_user_chooses_while_the_lists_are_filled_stays(browser: Any, address: str) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900}, locale="en-US")
    page.set_default_timeout(1000 * PATIENCE_S)
    held: list[Any] = []
    is_holding = True

    def hold(route: Any) -> None:
        if is_holding:
            held.append(route)
        else:
            route.continue_()

    page.route("**/gradio_api/queue/join*", hold)
    load_page(page, address)
    chosen = {"predict-base_model": "ui/mine", "predict-tuned_model": "pretrained/tiny"}
    for chooser, name in chosen.items():
        assert page.locator(f"#{chooser} input").input_value() != name
        page.locator(f"#{chooser} input").click()
        page.locator(f"#{chooser}").get_by_role("option", name=name).click()
    assert held, "the lists are not filled yet"
    is_holding = False
    for route in held:
        route.continue_()
    page.locator("#card .sf-tests").wait_for(state="attached")
    page.wait_for_timeout(2000)
    for chooser, name in chosen.items():
        assert page.locator(f"#{chooser} input").input_value() == name
    assert page.locator("#compare-tuned_model input").input_value() == "ui/mine", "the newest, as nobody chose another"
    page.locator("#texts textarea").fill("很好")
    page.locator("#ask").click()
    page.locator("#answers .sf-bar").first.wait_for()
    assert page.locator(".toast-body.error").count() == 0
    page.close()


def test_dark_pages_have_enough_contrast(browser: Any, address: str, pictures: Path) -> None:
    page, errors = open_full_page(browser, address, "en", 1280, "dark")
    faults: list[str] = []
    for tab in TABS:
        open_tab(page, tab)
        fill_tab(page, tab)
        page.wait_for_timeout(500)
        faults += [f"{tab}: {fault}" for fault in list_faults(page, "en", 1280) if "visible texts" not in fault]
        keep_picture(page, f"page_{tab}_1280_en_dark", pictures)
    assert faults + errors == []
    page.close()


def test_on_a_phone_names_are_whole_and_the_page_is_centred_on_a_desk(browser: Any, address: str) -> None:
    page, _ = open_full_page(browser, address, "en", 390)
    assert page.locator("h1").evaluate("e => e.scrollWidth <= e.parentElement.clientWidth")
    for tab, chooser in (("predict", "predict-base_model"), ("models", "card-model")):
        open_tab(page, tab)
        box = page.locator(f"#{chooser} input")
        box.evaluate("e => { e.value = 'saves/pretrained/multilingual-e5-small' }")
        assert box.evaluate("e => e.scrollWidth <= e.clientWidth"), "38 letters can be read"
    page.close()
    page, _ = open_full_page(browser, address, "en", 1600)
    left, right = page.locator("#masthead").evaluate(
        "e => { const box = e.getBoundingClientRect(), page = document.documentElement.clientWidth;"
        " return [box.left, page - box.right]; }"
    )
    assert abs(left - right) <= 2
    page.close()


def test_the_keyboard_reaches_each_control_once(browser: Any, address: str) -> None:
    page, _ = open_full_page(browser, address, "en", 1280)
    for tab in TABS:
        open_tab(page, tab)
        page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
        page.mouse.click(2, 2)
        reached: list[str] = []
        for _ in range(60):
            page.keyboard.press("Tab")
            found = page.evaluate(FOCUSED)
            if found is None:
                break
            assert found[1] > 0, f"{found[0]} has the focus and no place on the screen"
            reached.append(found[0])
        assert len(reached) == len(set(reached)), (tab, reached)
        assert len(reached) > 6, (tab, reached)
    page.close()


def test_an_embedded_report_is_a_part_of_the_page(browser: Any, address: str) -> None:
    page, _ = open_full_page(browser, address, "en", 1280)
    open_tab(page, "models")
    fill_tab(page, "models")
    report = page.frame_locator("#card-report-page iframe")
    assert not report.locator("header .mark").is_visible()
    assert not report.locator("header nav").is_visible()
    page.wait_for_timeout(1000)
    frame = page.locator("#card-report-page iframe")
    assert frame.evaluate("e => e.contentDocument.documentElement.scrollHeight <= e.clientHeight + 1"), "no scroll box"
    assert report.locator(".headline .en").is_visible()
    page.get_by_label("中文").check()
    report.locator(".headline .zh").wait_for()
    assert not report.locator(".headline .en").is_visible()
    page.close()


def test_a_finished_training_leads_to_the_next_steps(browser: Any, address: str) -> None:
    page, _ = open_full_page(browser, address, "en", 1280)
    open_tab(page, "train")
    page.locator("#compare_model").click()
    page.locator("#run_compare").wait_for()
    assert page.locator("#compare-tuned_model input").input_value() == "ui/mine"
    assert page.locator("#compare-base_model input").input_value() == "pretrained/tiny"
    assert page.locator("#compare-data input").input_value() == "my_reviews"
    open_tab(page, "train")
    page.locator("#use_model").click()
    page.locator("#ask").wait_for()
    assert page.locator("#predict-tuned_model input").input_value() == "ui/mine"
    open_tab(page, "train")
    page.locator("#publish_model").click()
    page.locator("#publication .sf-publish").wait_for()
    page.close()
