"""Every error that the page can show has words of the page: in both languages, and without options."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import sentifactory
from sentifactory.engines.openai.request_errors import ReviewRefusedError
from sentifactory.errors import ConfigError, DataError, EngineError, LeakError, SentiFactoryError
from sentifactory.system.progress_file import PROGRESS_VARIABLE, end_with, read_failure
from sentifactory.ui.error_sentences import PageError, describe_error
from sentifactory.ui.error_words import ERROR_WORDS
from sentifactory.ui.publish_preview import REFUSAL_STEPS

SOURCE = Path(sentifactory.__file__).parent
# What the page has no control for: other commands, and how it is started itself.
NOT_ON_THE_PAGE = (
    "guarded_run.py", "errors.py", "notebook.py", "doctor/", "serving/", "evaluation/demo.py", "evaluation/ladder/",
    "evaluation/stack/", "metrics/power.py", "models/embedded/", "models/hub.py", "models/layer_cut.py",
    "models/store.py", "publishing/export/", "publishing/gguf/", "publishing/onnx/", "publishing/hub/upload.py",
    "system/environments.py", "training/depth/", "training/distillation/", "training/sweep/", "ui/commands.py",
    "ui/page_settings.py", "corpus/splitting/folds.py", "corpus/reading/hub_datasets.py",
    "corpus/reading/sources.py", "training/processes/", "training/run/collectives.py",
)  # fmt: skip
# Of options that the page does not have: label maps, and several files at once.
OPTIONS = {"map-invalid", "stars-and-map", "stars-scales"}
# Of requests that no control of the page makes, before the page is there, and of an error that was written down.
NEVER_SHOWN = {("ui/actions.py", "language"), ("ui/workspace.py", None), ("system/progress_file.py", None)}
# Errors that take over the code of another place, which has words.
TAKEN_OVER = {("corpus/prepare.py", None), ("models/complete_folder.py", None)}
CHINESE = re.compile("[一-鿿]")


def list_error_classes() -> dict[str, str]:
    """Return the classes of errors that users meet, with their codes."""
    classes = [SentiFactoryError, ReviewRefusedError]
    for parent in classes:  # which grows
        classes += parent.__subclasses__()
    return {one.__name__: one.code for one in classes}


def walk_calls(path: Path) -> Iterator[tuple[ast.Call, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node, node.func.id


def list_codes(path: Path) -> list[tuple[int, str | None]]:
    """Return line and code of each error that a module makes; None where it has only the code of a general class."""
    classes, general = list_error_classes(), {"error", "data", "config", "engine"}
    found: list[tuple[int, str | None]] = []
    for node, name in walk_calls(path):
        if name in classes.keys() - {"PageError"}:
            given = next((one.value for one in node.keywords if one.arg == "code"), None)
            code = given.value if isinstance(given, ast.Constant) else classes[name] if given is None else None
            found.append((node.lineno, str(code) if code not in general | {None} else None))
        if name == "Gap" and isinstance(node.args[2], ast.Constant):  # what a model folder lacks
            found.append((node.lineno, str(node.args[2].value)))
    return found


def test_every_error_that_the_page_can_show_has_words() -> None:
    without = []
    for path in sorted(SOURCE.rglob("*.py")):
        place = path.relative_to(SOURCE).as_posix()
        if place.startswith(NOT_ON_THE_PAGE):
            continue
        for line, code in list_codes(path):
            if code not in ERROR_WORDS.keys() | OPTIONS and (place, code) not in NEVER_SHOWN | TAKEN_OVER:
                without.append(f"{place}:{line} {code}")
    assert without == [], "give them a code, and the code words in error_words.py"


def test_every_word_is_used() -> None:
    codes = {code for path in SOURCE.rglob("*.py") for _, code in list_codes(path)} | {"defect"}
    codes |= set(list_error_classes().values())
    assert ERROR_WORDS.keys() - codes == set()


def test_every_refusal_to_publish_has_a_next_step_on_the_page() -> None:
    codes = set()
    for path in (SOURCE / "publishing").rglob("*.py"):
        for node, name in walk_calls(path):
            if name == "Refusal":
                assert isinstance(node.args[0], ast.Constant), f"{path.name}:{node.lineno}"
                codes.add(node.args[0].value)
    assert codes == REFUSAL_STEPS.keys()
    for step in REFUSAL_STEPS.values():
        assert CHINESE.search(step.zh)
        assert "--" not in step.en + step.zh


def test_words_are_chinese_and_name_no_options() -> None:
    for code, words in ERROR_WORDS.items():
        assert words.next_en.isascii(), code
        assert all(CHINESE.search(text) for text in (words.zh, words.next_zh)), code
        assert "--" not in f"{words.zh}{words.next_en}{words.next_zh}", code
        assert words.next_en.endswith("."), code
        assert words.next_zh.endswith("。"), code
        assert not words.zh.endswith("。"), code


@pytest.mark.parametrize("kind", [DataError, ConfigError, EngineError, LeakError])
def test_an_error_of_any_class_is_said_without_options_and_paths(kind: type[DataError]) -> None:
    error = kind(
        "There is no /home/somebody/model of 'my reviews' beside --task",
        where="/home/somebody/a.csv, line 7",
        expected="a --task",
        next_step="run `sentifactory data prepare` with --task",
        code="something new",
    )
    said = describe_error(error)
    for text in (said.en, said.zh):
        assert "--" not in text
        assert "somebody" not in text
        assert "7" in text
        assert "my reviews" in text
    assert CHINESE.search(said.zh)
    assert not CHINESE.search(said.en)
    assert not re.search("[A-Za-z]{2}", said.zh.replace("my reviews", "")), "no English, but for what is quoted"


def test_an_error_of_the_page_has_its_own_sentences() -> None:
    said = describe_error(PageError("No file.", "没有CSV文件。", code="x"))
    assert (said.en, said.zh) == ("No file.", "没有 CSV 文件。")


def test_a_command_tells_who_started_it_with_which_error_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "progress.json"
    monkeypatch.setenv(PROGRESS_VARIABLE, str(file))
    assert read_failure(file) is None
    end_with(ConfigError("The disk is full", where="a folder", code="disk-full"))
    error = read_failure(file)
    assert error is not None
    assert (error.what, error.where, error.code) == ("The disk is full", "a folder", "disk-full")
    end_with(RuntimeError("boom"))
    assert (error := read_failure(file)) is not None
    assert error.code == "defect"
    file.write_text('{"failure": {"what": 1}}')
    assert read_failure(file) is None
