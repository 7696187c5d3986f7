"""The page as gradio is given it, without a browser."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tiny_models import build_tiny_bert

from sentifactory.errors import ConfigError, DataError
from sentifactory.ui.actions import PageActions
from sentifactory.ui.mistakes import tell_mistakes
from sentifactory.ui.workspace import open_workspace


def test_a_mistake_is_told_without_the_place_of_a_file() -> None:
    import gradio

    def fail(name: str) -> None:
        raise DataError(f"There is no {name}", where="/home/somebody/saves/mine/a.csv, line 3", next_step="look there")

    with pytest.raises(gradio.Error) as caught:
        tell_mistakes(fail)("review")
    assert caught.value.message == "a.csv, line 3: There is no review. Next: look there."
    with pytest.raises(ZeroDivisionError):
        tell_mistakes(lambda: 1 // 0)()
    assert tell_mistakes(lambda one, two: (two, one))(1, 2) == (2, 1)


def test_actions_that_must_not_meet_wait_for_each_other(tmp_path: Path) -> None:
    from sentifactory.ui.page import build_page

    page = build_page(PageActions(open_workspace(tmp_path / "space"), (tmp_path,), (tmp_path,)))
    queues = {one.api_name: (one.concurrency_id, one.concurrency_limit) for one in page.fns.values()}
    assert queues["predict"] == ("models", 1)
    assert queues["compare"] == ("comparisons", 1)
    assert queues["prepare"] == ("data", 1)
    assert queues["progress"][1] != 1
    without = build_page(PageActions(open_workspace(tmp_path / "space"), (), ()), has_training=False)
    assert not {"prepare", "train", "stop", "resume", "progress"} & {one.api_name for one in without.fns.values()}


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
