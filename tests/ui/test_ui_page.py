"""The page as gradio is given it, without a browser."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tiny_models import build_tiny_bert

from sentifactory.errors import ConfigError, DataError
from sentifactory.system.hardware import read_memory
from sentifactory.ui.actions import PageActions
from sentifactory.ui.views import show_errors
from sentifactory.ui.workspace import open_workspace


@pytest.fixture(autouse=True)
def without_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradio sets this for the whole process where a page sends nothing."""
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "True")


@pytest.mark.slow
def test_a_mistake_is_shown_in_both_languages_without_paths_and_markup() -> None:
    import gradio

    def fail(name: str) -> None:
        raise DataError(f"There is no {name}", where="/home/somebody/saves/mine/a.csv, line 3", next_step="look there")

    with pytest.raises(gradio.Error) as caught:
        show_errors(fail)("<b>review</b>")
    message = caught.value.message
    assert '<span class="en" lang="en">Line 3: There is no &lt;b&gt;review' in message
    assert '<span class="zh" lang="zh-CN">第 3 行：' in message
    assert "somebody" not in message
    with pytest.raises(ZeroDivisionError):
        show_errors(lambda: 1 // 0)()
    assert show_errors(lambda one, two: (two, one))(1, 2) == (2, 1)


def test_actions_that_must_not_meet_wait_for_each_other(tmp_path: Path) -> None:
    from sentifactory.ui.page import build_page

    page = build_page(PageActions(open_workspace(tmp_path / "space"), (tmp_path,), (tmp_path,)))
    queues = {one.name: (one.concurrency_id, one.concurrency_limit) for one in page.fns.values()}
    assert queues["predict"] == ("models", 1)
    assert queues["compare"] == ("comparisons", 1)
    assert queues["prepare"] == ("data", 1)
    without = build_page(PageActions(open_workspace(tmp_path / "space"), (), ()), has_training=False)
    assert {"predict", "compare"} <= {one.name for one in without.fns.values()}
    assert not {"prepare", "start", "stop", "resume"} & {one.name for one in without.fns.values()}


def test_nothing_is_offered_to_programs(tmp_path: Path) -> None:
    from sentifactory.ui.page import build_page

    page = build_page(PageActions(open_workspace(tmp_path / "space"), (tmp_path,), (tmp_path,)))
    assert {one.api_name for one in page.fns.values()} == {False}
    assert page.get_api_info() == {"named_endpoints": {}, "unnamed_endpoints": {}}


def test_a_choice_from_a_list_that_the_server_knows_otherwise_reaches_its_action(tmp_path: Path) -> None:
    """Gradio's own lists refuse it, with an English sentence: after an upload of other columns, or a new model."""
    from gradio import Dropdown

    from sentifactory.ui.choice_lists import make_choice_list
    from sentifactory.ui.page import build_page

    page = build_page(PageActions(open_workspace(tmp_path / "space"), (tmp_path,), (tmp_path,)))
    lists = [block for block in page.blocks.values() if isinstance(block, Dropdown)]
    assert len(lists) > 10
    assert {type(one) for one in lists} == {make_choice_list()}
    assert {one.get_block_name() for one in lists} == {"dropdown"}
    assert lists[0].preprocess("of another file") == "of another file"
    for strange in (1, ["a"], {"a": 1}, "a" * 10_000, None):
        assert lists[0].preprocess(strange) is None


@pytest.mark.slow
def test_reading_a_file_never_holds_up_predictions(tmp_path: Path) -> None:
    for side in ("base", "tuned"):
        (tmp_path / "models" / side).mkdir(parents=True)
        build_tiny_bert(tmp_path / "models" / side)
    (tmp_path / "broken.csv").write_text("neither,nor\n1,2\n")
    actions = PageActions(open_workspace(tmp_path / "space"), (tmp_path / "models",), ())
    with ThreadPoolExecutor(1) as pool, actions.models_lock:  # a prediction is at it
        comparison = pool.submit(actions.compare, "models/base", "models/tuned", str(tmp_path / "broken.csv"), None)
        with pytest.raises(DataError):
            comparison.result(60)


@pytest.mark.slow
def test_two_do_not_ask_models_at_once(tmp_path: Path) -> None:
    (tmp_path / "models" / "base").mkdir(parents=True)
    build_tiny_bert(tmp_path / "models" / "base")
    actions = PageActions(open_workspace(tmp_path / "space"), (tmp_path / "models",), ())
    with ThreadPoolExecutor(1) as pool:
        with actions.models_lock:
            prediction = pool.submit(actions.predict, "很好", "models/base", None)
            with pytest.raises(TimeoutError):
                prediction.result(2)
        assert "sf-bar" in prediction.result(60)


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "a,b"):
        with pytest.raises(ConfigError, match="choose another --workspace"):
            open_workspace(place)


@pytest.mark.slow
def test_the_memory_of_a_compared_model_is_not_that_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("base", "tuned"):
        (tmp_path / "models" / name).mkdir(parents=True)
        build_tiny_bert(tmp_path / "models" / name, seed=len(name))
    actions = PageActions(open_workspace(tmp_path / "space"), (tmp_path / "models",), ())
    rows = [f"{row}这家店{'真好吃' if row % 2 else '太差了'}{row * row},{row % 2}" for row in range(300)]
    (tmp_path / "reviews.csv").write_text("\n".join(["review,label", *rows]), encoding="utf-8")
    data, _ = actions.prepare(str(tmp_path / "reviews.csv"), "reviews.csv")
    held = bytearray(b"x") * 1_500_000_000  # more than any of the models needs
    name, page = actions.compare("models/base", "models/tuned", None, data)
    report = json.loads((actions.workspace.reports / name / "report.json").read_text())
    peaks = {model: facts["peak_bytes"] for model, facts in report["models"].items()}
    assert read_memory(os.getpid()) > len(held)
    assert 30e6 < peaks["tfidf"] < peaks["base"] < len(held)
    assert 30e6 < peaks["tuned"] < len(held)
    assert "report" in page
