"""The command table and the entry point. Each package defines its commands in `commands.py`; docstrings are the help.

This module imports nothing: Ctrl-C and SIGTERM are held back until those modules are imported that answer them, so
that the imports take none of the time in which a signal ends Python without a word. Commands import torch, vllm,
gradio and llamafactory when they run, so that `sentifactory --help` is fast.
"""

from __future__ import annotations

import signal

TYPE_CHECKING = False  # that of `typing`, without importing it
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    import typer


def build_app() -> typer.Typer:
    """Return the application with all commands."""
    import typer

    from sentifactory.corpus import commands as corpus
    from sentifactory.corpus.inspection import commands as inspection
    from sentifactory.doctor import commands as health
    from sentifactory.engines import commands as engines
    from sentifactory.evaluation import commands as evaluation
    from sentifactory.evaluation.ladder import commands as ladder
    from sentifactory.evaluation.stack import commands as stacking
    from sentifactory.models import commands as models
    from sentifactory.publishing import commands as publishing
    from sentifactory.publishing.gguf import commands as converting
    from sentifactory.publishing.onnx import commands as exporting
    from sentifactory.serving import commands as serving
    from sentifactory.training import commands as training
    from sentifactory.training.depth import commands as depth
    from sentifactory.training.distillation import commands as distilling
    from sentifactory.training.sweep import commands as tuning
    from sentifactory.ui import commands as page

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
    model = typer.Typer(help="Models: fetch, probe, cut; stack with TF-IDF.", no_args_is_help=True)
    model.command("fetch")(models.fetch_model)
    model.command("probe")(depth.probe_model)
    model.command("cut")(models.cut_model)
    model.command("stack")(stacking.stack_models)
    app.add_typer(model, name="model")
    app.command("predict")(engines.predict_texts)
    app.command("train", context_settings={"allow_extra_args": True})(training.train)
    app.command("sweep", context_settings={"allow_extra_args": True})(tuning.sweep)
    app.command("distill")(distilling.distill)
    evaluate = typer.Typer(help="Compare models on the same reviews.", no_args_is_help=True)
    evaluate.command("compare")(evaluation.compare_models)
    evaluate.command("ladder")(ladder.compare_on_ladder)
    evaluate.command("power")(evaluation.count_reviews)
    app.add_typer(evaluate, name="eval")
    export = typer.Typer(help="Other forms of a model, proven to say the same.", no_args_is_help=True)
    export.command("merge")(publishing.export_merged)
    export.command("dtype")(publishing.export_dtype)
    export.command("onnx")(exporting.export_onnx)
    export.command("gguf")(converting.export_gguf)
    app.add_typer(export, name="export")
    app.command("publish")(publishing.publish)
    app.command("serve")(serving.serve)
    app.command("label")(serving.label)
    app.command("ui")(page.open_page)
    app.command("demo")(evaluation.run_demo)
    app.command("doctor")(health.doctor)
    return app


def run_guarded(run: Callable[[], Any]) -> None:
    """Run an entry point; turn errors and signals into a message on stderr and an exit code (see `errors`)."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        from sentifactory.guarded_run import run_and_exit

        run_and_exit(run, mask)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def run_script(command: Callable[..., Any]) -> None:
    """Run one command as a stand-alone script, as the files in `scripts/` do."""

    def run() -> None:
        import typer

        app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        app.command()(command)
        app()

    run_guarded(run)


def main() -> None:
    """Run the `sentifactory` command."""
    run_guarded(lambda: build_app()())


if __name__ == "__main__":
    main()
