"""The guides are correct: commands parse, files exist, both languages have the same commands, cheap commands run."""

from __future__ import annotations

import ast
import json
import random
import re
import runpy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from guide_pages import MADE, list_pages, read_blocks, split_commands
from typer.testing import CliRunner

from sentifactory.cli import build_app
from sentifactory.corpus.reading.review_files import read_reviews
from sentifactory.errors import SentiFactoryError
from sentifactory.task.task import BINARY_SENTIMENT

ROOT = Path(__file__).resolve().parents[2]
PAGES = list_pages(ROOT)
GUIDES = [page for page in PAGES if page.parent.name == "contexts" and not page.stem.endswith("_zh")]
# Folders whose files a page may name; a name that ends in a slash is a folder.
_FILE = re.compile(r"(?<![\w/.-])((?:examples|contexts|scripts|deploy|notebooks|requirements)/[\w./-]*[\w/])")
PHRASES = {
    0: ["房间太脏", "早餐难吃", "服务冷淡", "内容空洞", "屏幕模糊"],
    1: ["房间干净", "早餐丰富", "服务热情", "内容精彩", "屏幕清晰"],
}
FAIR = ["马马虎虎", "勉强及格", "没有惊喜", "凑合能用", "一般水平"]


def name_page(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@cache
def get_command() -> Any:
    return typer.main.get_command(build_app())


def parse_ours(words: list[str]) -> None:
    """Let the real parser of the command read its words, without running it."""
    command, rest, path = get_command(), words[1:], "sentifactory"
    while hasattr(command, "commands"):
        assert rest, f"{path} is no command"
        name, *rest = rest
        assert name in command.commands, f"there is no command {path} {name}"
        command, path = command.commands[name], f"{path} {name}"
    if rest != ["--help"]:
        command.make_context(path, rest)


def parse_script(words: list[str]) -> None:
    """Let the parser of a script under `scripts/` read its words, without running it."""
    path = ROOT / words[1]
    calls = [
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "run_script"
    ]
    if not calls:
        assert words[2:] == [], f"{words[1]} takes no words"
        return
    app = typer.Typer(add_completion=False)
    app.command()(runpy.run_path(str(path), run_name="parsed")[calls[0].args[0].id])  # type: ignore[attr-defined]
    typer.main.get_command(app).make_context(words[1], words[2:])


@pytest.mark.parametrize("page", PAGES, ids=name_page)
def test_every_command_line_is_one(page: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for block in read_blocks(page, "bash"):
        for words in split_commands(block):
            program = Path(words[0]).name
            try:
                if program == "sentifactory":
                    parse_ours(words)
                elif program == "python" and words[1].startswith("scripts/"):
                    parse_script(words)
                elif program == "make":
                    assert words[1] in targets, f"make {words[1]}"
                elif program == "docker" and "-f" in words:
                    assert (ROOT / words[words.index("-f") + 1]).is_file(), words
            except (typer.BadParameter, Exception) as error:
                raise AssertionError(f"{name_page(page)}: {' '.join(words)}: {error}") from error


def test_a_command_line_that_is_none_is_found() -> None:
    for words in (
        ["sentifactory", "train"],
        ["sentifactory", "serv", "x"],
        ["sentifactory", "serve", "x", "--prot", "1"],
        ["sentifactory", "eval", "power", "--reviews", "many"],
    ):
        with pytest.raises(BaseException) as caught:  # noqa: PT011 - of the parser, by whatever name
            parse_ours(words)
        assert not isinstance(caught.value, KeyboardInterrupt)


def list_anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_page)
def test_files_links_and_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    missing = [name for name in set(_FILE.findall(text)) if "..." not in name and not (ROOT / name).exists()]
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        file, _, anchor = target.partition("#")
        linked = page.parent / file if file else page
        if not linked.exists() or (anchor and anchor not in list_anchors(linked)):
            missing.append(target)
    assert missing == [], f"{name_page(page)} names what is not there"


def test_variables_and_metrics_are_those_of_the_code() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    code += (ROOT / "notebooks" / "sentifactory.ipynb").read_text(encoding="utf-8")
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for name in set(re.findall(r"SENTIFACTORY_[A-Z_]+[A-Z]", text)):
            assert name in code, f"{name_page(page)}: {name}"
        for name in re.findall(r"`sentifactory_(\w+)`", text):
            assert f'"{name}"' in code or f'"sentifactory_{name}"' in code, f"{name_page(page)}: sentifactory_{name}"


@pytest.mark.parametrize("page", GUIDES, ids=name_page)
def test_both_languages_have_the_same_commands(page: Path) -> None:
    other = page.with_name(f"{page.stem}_zh.md")
    assert other.is_file()
    for language in ("bash", "csv", "jsonl"):
        ours, theirs = (
            [split_commands(block) if language == "bash" else block for block in read_blocks(one, language)]
            for one in (page, other)
        )
        assert ours == theirs
    fenced = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
    headings = [
        re.findall(r"^#+ ", fenced.sub("", one.read_text(encoding="utf-8")), re.MULTILINE) for one in (page, other)
    ]
    assert headings[0] == headings[1]


@pytest.mark.parametrize("suffix", ["", "_zh"])
def test_every_guide_is_in_the_readme(suffix: str) -> None:
    readme = (ROOT / f"README{suffix}.md").read_text(encoding="utf-8")
    names = [f"contexts/{page.stem}{suffix}.md" for page in GUIDES] + [f"contexts/{name}" for name in MADE]
    assert [name for name in names if name not in readme] == []


@pytest.mark.parametrize("page", PAGES, ids=name_page)
def test_blocks_in_other_languages_are_sound(page: Path, tmp_path: Path) -> None:
    for block in read_blocks(page, "python"):
        ast.parse(block)
    for block in read_blocks(page, "yaml"):
        yaml.safe_load(block)
    for block in read_blocks(page, "json"):
        json.loads(block)
    for suffix in ("csv", "jsonl"):
        for block in read_blocks(page, suffix):
            file = tmp_path / f"example.{suffix}"
            file.write_text(block, encoding="utf-8")
            reviews = list(read_reviews(str(file), BINARY_SENTIMENT))
            assert sorted({review.label for review in reviews}) == [0, 1]


def write_reviews(folder: Path) -> None:
    """Write the files of reviews that the guides' commands begin with."""
    rng = random.Random(0)
    lines = {"my_reviews.csv": ["label,text"], "stars.csv": ["stars,text"], "words.csv": ["label,text"]}
    for number in range(80):
        label = number % 2
        text = "，".join([*rng.sample(PHRASES[label], 3), f"第{rng.randrange(10**6)}次"])
        lines["my_reviews.csv"].append(f"{label},{text}")
        lines["stars.csv"] += [f"{5 if label else 1},{text}", f"3,一般般，{'，'.join(rng.sample(FAIR, 3))}{number}次"]
        lines["words.csv"].append(f"{'好' if label else '坏'},{text}")
    for name, rows in lines.items():
        (folder / name).write_text("\n".join(rows) + "\n", encoding="utf-8")


@pytest.mark.slow
def test_the_cheap_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    write_reviews(tmp_path)
    runner, app, done = CliRunner(), build_app(), []
    commands = [
        words
        for name in ("quick_reference.md", "data_formats.md", "evaluation.md")
        for block in read_blocks(ROOT / "contexts" / name, "bash")
        for words in split_commands(block)
        if words[:2] == ["sentifactory", "data"] or words[:3] == ["sentifactory", "eval", "power"]
    ]
    for words in commands:
        if "--star_threshold" in words or "three" in words:
            words = ["stars.csv" if word == "my_reviews.csv" else word for word in words]
            words += ["--star_threshold", "3", "--label_column", "stars"] if "three" in words else []
        elif "--label_map" in words:
            words = ["words.csv" if word == "my_reviews.csv" else word for word in words]
        result = runner.invoke(app, words[1:])
        if isinstance(result.exception, SentiFactoryError):
            raise AssertionError(f"{' '.join(words)}: {result.exception.describe()}")
        assert result.exit_code == 0, f"{' '.join(words)}: {result.output}{result.exception}"
        done.append(words[2])
    assert {"prepare", "check", "show", "doubt", "power"} <= set(done)
    assert (tmp_path / "data" / "my_reviews" / "train.jsonl").is_file()
    assert json.loads((tmp_path / "data" / "dataset_info.json").read_text(encoding="utf-8"))["my_reviews_train"]
