"""What the page offers, and what it refuses: models, recipes, names, texts, visitors."""

from __future__ import annotations

import asyncio
import errno
import json
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from sentifactory.cli import build_app
from sentifactory.errors import ConfigError, SentiFactoryError
from sentifactory.ui.actions import PageActions
from sentifactory.ui.error_sentences import PageError
from sentifactory.ui.logins import LoginThrottle
from sentifactory.ui.model_actions import ModelActions
from sentifactory.ui.model_choices import choose_sides, find_models, find_recipes
from sentifactory.ui.model_facts import describe_model
from sentifactory.ui.page_settings import PASSWORD_VARIABLE, PageAccess, read_password
from sentifactory.ui.page_words import WORDS
from sentifactory.ui.pasted_texts import split_texts
from sentifactory.ui.security_middleware import SecurityMiddleware
from sentifactory.ui.training_jobs import find_job
from sentifactory.ui.uploads import Uploads
from sentifactory.ui.views import show_answers, show_card, show_progress, show_report
from sentifactory.ui.workspace import choose_name, open_workspace

PASSWORD = "correct-horse-battery"


def make_model(folder: Path, *, weights: str = "model.safetensors", status: str | None = None, **config: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"architectures": ["BertModel"], **config}))
    (folder / weights).write_bytes(b"")
    if status:
        (folder / "run.json").write_text(json.dumps({"status": status}))
    return folder


def test_unsafe_and_unfinished_models_are_not_offered(tmp_path: Path) -> None:
    make_model(tmp_path / "good")
    make_model(tmp_path / "deep" / "tuned", status="finished")
    make_model(tmp_path / "pickled", weights="pytorch_model.bin")
    make_model(tmp_path / "coded", auto_map={"AutoModel": "theirs.Model"})
    make_model(tmp_path / "half", status="interrupted")
    make_model(tmp_path / "deep" / "checkpoint-3")
    make_model(tmp_path / "own" / "mine")
    assert set(find_models({"a": tmp_path}, skipped=[tmp_path / "own"])) == {"a/good", "a/deep/tuned"}


CODE = {"auto_map": {"AutoTokenizer": ["theirs.Tokenizer", None]}}
RISKS: dict[str, dict[str, Any]] = {
    "nested code": {"config.json": {"text_config": {"parts": [CODE]}}},
    "a coded tokenizer": {"tokenizer_config.json": CODE},
    "a coded processor": {"preprocessor_config.json": {"image": CODE}},
    "a coded pipeline": {"config.json": {"custom_pipelines": {"x": {"impl": "theirs.Pipeline"}}}},
    "spelt otherwise": {"tokenizer_config.json": '{"auto\\u005fmap": {}}'},
    "broken": {"generation_config.json": "{"},
    "a pickle beside": {"pytorch_model.bin": ""},
    "an upper-case pickle beside": {"weights.PT": ""},
    "another pickle beside": {"head.pkl": ""},
    "an index of a pickle": {"model.safetensors.index.json": {"weight_map": {"a": "pytorch_model.bin"}}},
    "an index of another place": {"model.safetensors.index.json": {"weight_map": {"a": "../b.safetensors"}}},
    "an index of no names": {"model.safetensors.index.json": {"weight_map": ["b.safetensors"]}},
    "an adapter of nothing": {"adapter_config.json": {"base_model_name_or_path": "org/on-a-hub"}},
    "an adapter of a pickle": {"adapter_config.json": {"base_model_name_or_path": "pickled"}},
    "an adapter of itself": {"adapter_config.json": {"base_model_name_or_path": "."}},
}


@pytest.mark.parametrize("risk", RISKS)
def test_a_folder_that_might_run_code_is_not_offered(
    risk: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(make_model(tmp_path / "models" / "risky"))
    make_model(tmp_path / "models" / "risky" / "pickled", weights="pytorch_model.bin")
    sound = make_model(tmp_path / "models" / "sound")
    (sound / "training_args.bin").write_bytes(b"")
    (sound / "tokenizer_config.json").write_text('{"added": [{"map": "auto_map"}]}')
    (sound / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1-of-2.safetensors"}}')
    base = make_model(tmp_path / "models" / "adapted")
    (base / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(sound)}))
    models = {"a": tmp_path / "models"}
    assert set(find_models(models)) == {"a/risky", "a/sound", "a/adapted"}, "as long as there is no risk"
    for name, content in RISKS[risk].items():
        text = content if isinstance(content, str) else json.dumps(content)
        Path(name).write_text(text)
    assert set(find_models(models)) == {"a/sound", "a/adapted"}


def test_recipes_are_offered_that_can_run_here(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    keys = {"stage": "encoder", "model_name_or_path": str(model), "dataset": "d", "output_dir": "o"}
    changed: dict[str, dict[str, Any]] = {
        "good": {},
        "absent": {"model_name_or_path": "org/on-a-hub"},
        "taught": {"soft_label_path": "x.jsonl"},
        "coded": {"trust_remote_code": True},
        "served": {"stage": None},
        "usual": {},
    }
    for name, change in changed.items():
        lines = [f"{key}: {json.dumps(value)}" for key, value in {**keys, **change}.items() if value is not None]
        (tmp_path / f"{name}.yaml").write_text("\n".join(["# Purpose: to learn", "#          much.", *lines]))
    usual = (tmp_path / "usual.yaml").read_text()
    (tmp_path / "usual.yaml").write_text(f"# Recommended: 1 (place in the list)\n{usual}")
    (tmp_path / "broken.yaml").write_text(": [")
    found = find_recipes([tmp_path])
    assert list(found) == ["usual", "good"], "the recommended one comes first"
    assert found["good"].purpose == "to learn much."


def test_names_lead_nowhere_else_and_replace_nothing(tmp_path: Path) -> None:
    assert choose_name(tmp_path, "../../etc/passwd") == "passwd"
    assert choose_name(tmp_path, "我的评论v1.5") == "我的评论v1_5"
    assert choose_name(tmp_path, "....") == "reviews"
    (tmp_path / "mine").mkdir()
    assert choose_name(tmp_path, "mine") == "mine_2"


def make_actions(folder: Path) -> PageActions:
    return PageActions(open_workspace(folder / "space"), (folder / "models",), (folder / "recipes",))


def test_only_what_is_in_the_lists_is_opened(tmp_path: Path) -> None:
    actions = make_actions(tmp_path)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "report.html").write_text("secret")
    for name in ("../../secret", str(tmp_path / "secret"), "."):
        for action in (actions.show_report, actions.show_data, ModelActions(actions).show_card):
            with pytest.raises(ConfigError):
                action(name)
        with pytest.raises(ConfigError, match="no model"):
            actions.predict("很好", name, None)
        with pytest.raises(ConfigError, match="no data set"):
            actions.start(name, "recipe", "")
    for file, code in ((str(tmp_path / "a.pkl"), "file-kind"), (None, "file-not-chosen")):
        with pytest.raises(PageError) as caught:
            actions.prepare(file, "a.pkl")
        assert caught.value.code == code
    for action in (actions.stop, actions.resume):
        with pytest.raises(PageError) as caught:
            action()
        assert caught.value.code == "no-training"


def write_opinions(file: Path, n: int) -> Path:
    dice = random.Random(n)
    rows = [f"{row % 2},{''.join(chr(dice.randrange(0x4E00, 0x9000)) for _ in range(12))}#{n}" for row in range(n)]
    file.parent.mkdir(exist_ok=True)
    file.write_text("\n".join(["label,text", *rows, ""]), encoding="utf-8")
    return file


def test_two_pages_on_a_workspace_replace_nothing_of_each_other(tmp_path: Path) -> None:
    files = [write_opinions(tmp_path / str(n) / "reviews.csv", n) for n in (60, 90)]
    start = threading.Barrier(2)

    def prepare(file: Path) -> str:
        actions = make_actions(tmp_path)
        start.wait()
        return actions.prepare(str(file), file.name)[0]

    with ThreadPoolExecutor(2) as pool:
        names = [*pool.map(prepare, files)]
    assert sorted(names) == ["reviews", "reviews_2"]
    data = tmp_path / "space" / "data"
    for name, file in zip(names, files, strict=True):
        kept = "".join((data / name / f"{part}.csv").read_text(encoding="utf-8") for part in ("train", "val", "test"))
        assert kept.count("#") == kept.count(f"#{len(file.read_text(encoding='utf-8').split()) - 1}") > 50


def test_what_fails_leaves_no_name_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    actions = make_actions(tmp_path)
    broken = tmp_path / "reviews.csv"
    broken.write_text("label,text\n")
    with pytest.raises(SentiFactoryError):
        actions.prepare(str(broken), "reviews.csv")
    assert list((tmp_path / "space" / "data").iterdir()) == []

    def fill_disk(source: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    monkeypatch.setattr("sentifactory.ui.workspace.shutil.copyfile", fill_disk)
    with pytest.raises(ConfigError) as refused:
        actions.prepare(str(write_opinions(broken, 60)), "reviews.csv")
    assert refused.value.code == "disk-full"
    assert [*(tmp_path / "space" / "data").iterdir(), *(tmp_path / "space" / "uploads").iterdir()] == []


def test_a_comparison_is_offered_once_it_has_a_report(tmp_path: Path) -> None:
    actions = make_actions(tmp_path)
    for name in ("running", "done"):
        (tmp_path / "space" / "reports" / name).mkdir()
    (tmp_path / "space" / "reports" / "done" / "report.html").write_text("")
    assert actions.list_reports() == ["done"]


def test_texts_are_taken_line_by_line_and_not_without_end() -> None:
    assert [review.text for review in split_texts(" 很好 \n\n\u200b\n&nbsp;\n太差\r\n")] == ["很好", "太差"]
    for texts in ("", " \n ", "好\n" * 201, "好" * 2001):
        with pytest.raises(PageError) as caught:
            split_texts(texts)
        assert caught.value.code == "texts"


def test_what_strangers_wrote_is_shown_as_text(tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>"
    rows = [{"text": evil, "answers": [{"label": "positive", "probabilities": {"negative": 0.25, "positive": 0.75}}]}]
    shown = show_answers(rows, [("base", evil)])
    assert "<img" not in shown
    assert "75.0%" in shown
    assert "正面" in shown
    card = describe_model(tmp_path, {"status": "finished", "note": evil, "recipe": {"dataset": evil}}, [])
    assert "<img" not in show_card(evil, card)
    frame = show_report(f'<input id="choose-en" checked><input id="choose-zh">{evil}', 'a" onload="x', "zh")
    assert "<img" not in frame
    assert "id=&quot;choose-zh&quot; checked" in frame
    assert "id=&quot;choose-en&quot;&gt;" in frame
    assert 'onload="x' not in frame
    assert 'sandbox="allow-same-origin"' in frame, "no scripts, forms or windows"
    assert "尚未" in show_progress(None)


def test_everything_is_said_in_both_languages() -> None:
    for key, (english, chinese) in WORDS.items():
        assert english.isascii(), key
        assert any("一" <= letter <= "鿿" for letter in chinese), key


def test_a_pretrained_and_the_newest_other_model_are_chosen_first() -> None:
    def choose(*names: str) -> tuple[str | None, str | None]:
        return choose_sides({name: Path("/nowhere") / name for name in names})

    assert choose() == (None, None)
    assert choose("ui/b", "ui/a", "saves/x", "saves/pretrained/e5") == ("saves/pretrained/e5", "ui/b")
    assert choose("saves/x", "ui/b", "saves/pretrained/e5") == ("saves/pretrained/e5", "saves/x")
    assert choose("saves/x", "saves/y") == ("saves/x", "saves/y")


@pytest.mark.parametrize("option", [["--share"], ["--tunnel"], ["--host", "0.0.0.0"], ["--host", "192.168.1.2"]])
def test_the_page_is_not_opened_to_others_without_a_password(
    option: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for password in (None, "", "short"):
        monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)
        if password is not None:
            monkeypatch.setenv(PASSWORD_VARIABLE, password)
        result = CliRunner().invoke(build_app(), ["ui", "--workspace", str(tmp_path / "space"), *option])
        assert isinstance(result.exception, ConfigError)
        assert PASSWORD_VARIABLE in str(result.exception)
        assert not password or password not in str(result.exception).replace("too short", "")
    assert not (tmp_path / "space").exists()


def test_training_is_offered_to_others_only_in_so_many_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
    password = read_password()
    assert PageAccess().has_training
    for remote in ({"is_shared": True}, {"is_tunnelled": True}, {"host": "0.0.0.0"}):
        access = PageAccess(password=password, **remote)
        access.check()
        assert not access.has_training
        assert PageAccess(password=password, allow_remote_training=True, **remote).has_training
    assert PASSWORD not in repr(PageAccess(password=password))


def test_a_password_is_made_only_where_one_is_required(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first, second = (PageAccess(host="0.0.0.0").with_password() for _ in range(2))
    first.check()
    assert first.password != second.password
    assert first.is_password_made
    assert PageAccess().with_password().password is None
    given = PageAccess(host="0.0.0.0", password=PASSWORD)
    assert given.with_password() == given

    opened: list[PageAccess] = []

    def open_page(_: object, access: PageAccess, __: int) -> SimpleNamespace:
        opened.append(access)
        return SimpleNamespace(close=lambda verbose: None)

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sentifactory.ui.launch.launch_page", open_page)
    monkeypatch.setattr("threading.Event.wait", stop)
    words = ["ui", "--workspace", str(tmp_path), "--host", "0.0.0.0", "--port", "0"]
    shown = CliRunner().invoke(build_app(), [*words, "--make_password"]).output
    assert str(opened[-1].password) in shown
    monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
    assert PASSWORD not in CliRunner().invoke(build_app(), [*words, "--make_password"]).output
    assert opened[-1].password == PASSWORD


@pytest.mark.parametrize(
    ("headers", "is_answered"),
    [
        ({"host": "127.0.0.1:7860"}, True),
        ({"host": "localhost"}, True),
        ({"host": "[::1]:7860"}, True),
        ({"host": "evil.example:7860"}, False),
        ({"host": "127.0.0.1.evil.example"}, False),
        ({}, False),
        ({"host": "127.0.0.1:7860", "X-Forwarded-For": "1.2.3.4"}, False),
        ({"host": "localhost", "cf-connecting-ip": "1.2.3.4"}, False),
        ({"host": "[broken"}, False),
    ],
)
@pytest.mark.parametrize("is_remote", [False, True])
def test_who_comes_through_a_tunnel_that_was_not_announced_is_refused(
    headers: dict[str, str], is_answered: bool, is_remote: bool, tmp_path: Path
) -> None:
    sent: list[Any] = []

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def collect(message: Any) -> None:
        sent.append(message)

    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "GET", "path": "/theme.css", "headers": pairs}
    uploads = Uploads(open_workspace(tmp_path / "space"))
    guard = SecurityMiddleware(answer, is_remote, uploads, lambda headers: True, LoginThrottle())
    asyncio.run(guard(scope, None, collect))  # type: ignore[arg-type]
    assert sent[0]["status"] == (200 if is_answered or is_remote else 403)
    if sent[0]["status"] == 200:
        assert b"content-security-policy" in dict(sent[0]["headers"])


@pytest.mark.parametrize("content", [b"", b"[]", b'{"a":' * 5000, b'{"name": 1, "pid": "x"}', b"\xff"])
def test_a_job_whose_file_is_broken_is_passed_over(tmp_path: Path, content: bytes) -> None:
    workspace = open_workspace(tmp_path / "space")
    assert find_job(workspace) is None
    folder = workspace.jobs / "mine"
    folder.mkdir(parents=True)
    (folder / "job.json").write_bytes(content)
    assert find_job(workspace) is None
