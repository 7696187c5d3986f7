"""The command table: it answers at once, needs only the core dependencies, and says what is wrong in a sentence."""

from __future__ import annotations

import importlib
import os
import pkgutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import sentifactory
from sentifactory import cli
from sentifactory.errors import EXIT_BAD_INPUT, ConfigError, DataError, SentiFactoryError
from sentifactory.system.extras import require_packages
from sentifactory.system.stop_signals import ReportedExit

HEAVY = ["torch", "transformers", "llamafactory", "vllm", "gradio", "datasets", "sklearn", "pandas", "fastapi", "ray"]


@pytest.mark.slow
def test_help_lists_the_commands() -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "sentifactory.cli", "--help"], capture_output=True, text=True, check=True
    )
    for command in ["data", "model", "predict", "train", "eval", "serve", "label", "demo"]:
        assert command in finished.stdout


@pytest.mark.slow
def test_the_command_table_imports_nothing_heavy() -> None:
    """This is what makes `--help` answer at once; a time would depend on the machine."""
    code = "import sys, sentifactory.cli; print([m for m in sys.argv[1:] if m in sys.modules])"
    finished = subprocess.run([sys.executable, "-c", code, *HEAVY], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"


@pytest.mark.slow
def test_every_module_imports_without_torch(tmp_path: Path) -> None:
    """With the core dependencies alone every module can be imported: torch and its kin are made unimportable."""
    modules = [
        name for _, name, _ in pkgutil.walk_packages(sentifactory.__path__, "sentifactory.") if "__main__" not in name
    ]
    assert len(modules) > 20
    blocked = ["torch", "transformers", "llamafactory", "vllm", "gradio", "datasets", "tokenizers", "gguf", "peft"]
    code = (
        "import sys, importlib\n"
        f"for name in {blocked!r}: sys.modules[name] = None\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
    )
    finished = subprocess.run([sys.executable, "-c", code, *modules], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["data", "prepare"],
        ["data", "check"],
        ["data", "doubt"],
        ["data", "show"],
        ["model", "fetch"],
        ["train"],
        ["predict"],
        ["sweep"],
        ["eval", "compare"],
        ["serve"],
        ["label"],
        ["demo"],
        ["publish"],
        ["export", "merge"],
        ["export", "dtype"],
        ["export", "gguf"],
        ["doctor"],
    ],
)
def test_every_command_has_help_with_a_summary(command: list[str]) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "sentifactory.cli", *command, "--help"], capture_output=True, text=True, check=True
    )
    words = finished.stdout.split("Options")[0].split()
    assert len(words) > 8, finished.stdout


def test_a_users_mistake_is_one_sentence_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise DataError("The label is 'good'", where="a.csv, line 3", expected="0 or 1", next_step="correct the row")

    with pytest.raises(SystemExit) as stop:
        cli.run_guarded(fail)
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        "Error: a.csv, line 3: The label is 'good'. Expected: 0 or 1. Next: correct the row.\n"
    )


def test_a_defect_of_ours_is_one_sentence_and_its_traceback_goes_to_a_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["sentifactory", "publish", "--hub_token", "s3cr3t"])

    def fail() -> None:
        raise ZeroDivisionError("http://me:s3cr3t@proxy is no number\nand more")

    with pytest.raises(SystemExit) as stop:
        cli.run_guarded(fail)
    assert stop.value.code == 70
    told = capsys.readouterr()
    log = next(tmp_path.iterdir())
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert str(log) in told.err
    content = log.read_text(encoding="utf-8")
    assert "in fail" in content
    assert "s3cr3t" not in told.err + content
    assert log.stat().st_mode & 0o077 == 0


def test_a_defect_on_a_full_disk_is_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(SystemExit) as stop:
        cli.run_guarded(lambda: 1 / 0)
    assert stop.value.code == 70
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("n_lines", [1, 100_000])
@pytest.mark.parametrize("how", ["typer", "plain"])
def test_a_reader_that_goes_away_is_no_error(how: str, n_lines: int) -> None:
    code = (
        "import sys; from sentifactory import cli\n"
        f"def shout(): [print('x' * 80) for _ in range({n_lines})]\n"
        f"cli.run_script(shout) if {how == 'typer'} else cli.run_guarded(shout)"
    )
    reading, writing = os.pipe()
    os.close(reading)
    finished = subprocess.run([sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (finished.returncode, finished.stderr) == (141, "")


def test_a_broken_pipe_to_a_process_of_ours_is_a_defect(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def fail() -> None:
        raise BrokenPipeError

    with pytest.raises(SystemExit) as stop:
        cli.run_guarded(fail)
    assert stop.value.code == 70


def test_a_package_that_is_not_installed_is_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, words in (
        ("prometheus_client", "run `make setup`, or pip install 'sentifactory[serve]'"),
        ("no_such_package.inner", "run `make setup`"),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(SystemExit) as stop:
            cli.run_guarded(lambda name=module: importlib.import_module(name))  # type: ignore[misc]
        assert stop.value.code == 2
        package = module.partition(".")[0]
        assert capsys.readouterr().err == f"Error: The package {package} is not installed. Next: {words}.\n"
    require_packages("json", "pytest")
    with pytest.raises(ConfigError, match="The package no_such_package is not installed"):
        require_packages("json", "no_such_package")
    with pytest.raises(SystemExit) as stop:
        cli.run_guarded(lambda: importlib.import_module("sentifactory.gone"))
    assert stop.value.code == 70


def test_ctrl_c_ends_with_130(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stop:
        cli.run_guarded(interrupt)
    assert stop.value.code == 130
    assert "nothing was written" in capsys.readouterr().err


def test_a_process_of_a_run_leaves_the_last_word_to_its_launcher(capsys: pytest.CaptureFixture[str]) -> None:
    def stop_as_rank() -> None:
        raise ReportedExit(130)

    with pytest.raises(SystemExit) as stop:
        cli.run_guarded(stop_as_rank)
    assert (stop.value.code, capsys.readouterr().err) == (130, "")


def test_scripts_are_thin(repo_root: Path) -> None:
    scripts = sorted((repo_root / "scripts").glob("*.py"))
    assert len(scripts) >= 3
    for script in scripts:
        assert len(script.read_text(encoding="utf-8").splitlines()) <= 40, script.name


def test_a_link_that_leads_back_to_itself_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    with pytest.raises(SystemExit) as stop:
        cli.run_guarded(lambda: cli.build_app()(["serve", "loop.csv", "--engine", "tfidf", "--port", "0"]))
    assert stop.value.code == EXIT_BAD_INPUT
    assert "loop.csv" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("char", ["a", "字"])
def test_a_name_without_end_is_shown_in_part(char: str) -> None:
    error = ConfigError("There is no such model", where=char * 10_000 + "\n", next_step="check it")
    assert len(error.describe()) < 400
    assert "\n" not in ConfigError("It is gone", where="a\nb").describe()
    assert ConfigError("It is gone", where="a/" * 400).describe().startswith("a/" * 400 + ": ")


def test_names_and_words_of_libraries_command_no_terminal() -> None:
    error = SentiFactoryError("Bad \x1b[31m (problem\n   in line 2)", where="a\n\x9b2Jb", next_step="see\nlog\x07")
    assert error.describe() == "a\\n\\x9b2Jb: Bad \\x1b[31m (problem in line 2). Next: see\nlog\\x07."
