"""The commands `sentifactory serve` and `sentifactory label`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from sentifactory.task.task_choice import TASK_HELP

ENGINE_HELP = (
    "vllm, transformers, encoder, onnx, tfidf (MODEL is then a file of labelled reviews), or the address of a vLLM, "
    "llama.cpp or Ollama.  [by the model]"
)
THRESHOLD_HELP = "Below this probability no label is given: a number, or `calibrated` for the calibration's.  [none]"
DTYPE_HELP = (
    "Data type of vLLM's computation: bfloat16 is faster on CPUs with AVX512-BF16 or AMX.  "
    "[float32 on a CPU, else the model's own]"
)
LOG_HELP = "File for vLLM's output.  [a temporary one]"


def serve(
    model: Annotated[str, typer.Argument(help="Folder of a model, hub id, or its name at an address.")],
    engine: Annotated[str | None, typer.Option("--engine", help=ENGINE_HELP)] = None,
    vllm_url: Annotated[
        str | None, typer.Option("--vllm_url", help="Address of a vLLM that serves the model, such as http://a:8000.")
    ] = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="TCP port; 0 takes a free one.")] = 8000,
    task: Annotated[str | None, typer.Option("--task", help=TASK_HELP)] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the model in answers.  [its folder's]")] = None,
    threshold: Annotated[str | None, typer.Option("--threshold", help=THRESHOLD_HELP)] = None,
    max_text_chars: Annotated[int, typer.Option("--max_text_chars", help="Longest text, in characters.")] = 2000,
    max_list_items: Annotated[int, typer.Option("--max_list_items", help="Largest number of texts in a list.")] = 256,
    max_body_bytes: Annotated[int, typer.Option("--max_body_bytes", help="Largest body.")] = 4 << 20,
    max_queue: Annotated[
        int, typer.Option("--max_queue", help="Largest number of texts being answered or waiting.")
    ] = 512,
    timeout_s: Annotated[float, typer.Option("--timeout_s", help="Seconds that a request may take.")] = 30.0,
    batch_size: Annotated[int, typer.Option("--batch_size", help="Largest batch (not vllm).")] = 32,
    batch_wait_ms: Annotated[
        float, typer.Option("--batch_wait_ms", help="Milliseconds that a text waits for others (not vllm).")
    ] = 5.0,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option("--cors_origin", help="Origin whose web pages may call the service; may be repeated.  [none]"),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option("--allowed_host", help="Host name under which it answers without a key; may be repeated."),
    ] = None,
    vllm_log: Annotated[str | None, typer.Option("--vllm_log", help=LOG_HELP)] = None,
    vllm_dtype: Annotated[str | None, typer.Option("--vllm_dtype", help=DTYPE_HELP)] = None,
) -> None:
    """Serve a model over REST: POST /predict, /v1/systemone and /v1/decisions, GET /health, /metrics and /docs.

    If the environment variable SENTIFACTORY_SERVE_KEY is set, every request but /health and /docs must carry that key
    (Authorization: Bearer KEY). On SIGTERM or Ctrl-C the service answers open requests and exits.
    """
    from sentifactory.serving.backends.model_loading import ModelChoice
    from sentifactory.serving.http.run_service import ServeOptions, run_service
    from sentifactory.serving.service_settings import Access, Limits, read_key

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
    out: Annotated[str, typer.Argument(metavar="OUT", help="File for the labelled rows, of the same kind.")],
    model: Annotated[str, typer.Option("--model", help="Folder of a model, hub id, or its name at an address.")],
    engine: Annotated[
        str | None, typer.Option("--engine", help="ray for replicas of an engine, or " + ENGINE_HELP)
    ] = None,
    vllm_url: Annotated[
        list[str] | None,
        typer.Option("--vllm_url", help="Address of a vLLM that serves the model; with ray it may be repeated."),
    ] = None,
    replicas: Annotated[
        int | None, typer.Option("--replicas", help="Number of engines that ray runs.  [one, or one per address]")
    ] = None,
    replica_engine: Annotated[
        str | None, typer.Option("--replica_engine", help="The engine of each replica.  [by the model]")
    ] = None,
    task: Annotated[str | None, typer.Option("--task", help=TASK_HELP)] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the model in OUT.  [its folder's]")] = None,
    threshold: Annotated[str | None, typer.Option("--threshold", help=THRESHOLD_HELP)] = None,
    text_column: Annotated[
        str | None, typer.Option("--text_column", help="Column of the reviews.  [detected]")
    ] = None,
    encoding: Annotated[str | None, typer.Option("--encoding", help="Encoding of a text file.  [detected]")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace OUT, and discard an unfinished labelling.")
    ] = False,
    excel_safe: Annotated[
        bool, typer.Option("--excel_safe", help="Prefix cells with ' that Excel would take for formulas (CSV, TSV).")
    ] = False,
    adapt_prior: Annotated[
        bool,
        typer.Option(
            "--adapt_prior",
            help="Estimate the labels' shares among the rows and adapt the answers to them; two more columns hold the "
            "answers before that.",
        ),
    ] = False,
    vllm_log: Annotated[str | None, typer.Option("--vllm_log", help=LOG_HELP)] = None,
    vllm_dtype: Annotated[str | None, typer.Option("--vllm_dtype", help=DTYPE_HELP)] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the counts as JSON on stdout, and nothing else.")
    ] = False,
) -> None:
    """Label a file of any length: every row is written out, in order, with label, probability and model.

    Rows that cannot be labelled (broken, without text) go to OUT.bad.jsonl with line and reason. After a kill the same
    command resumes; no row is lost or written twice.
    """
    from sentifactory.serving.labelling.label_options import LabelRequest, run_labelling
    from sentifactory.serving.labelling.next_look import suggest_after_labelling
    from sentifactory.serving.labelling.prior_adaptation import describe_shift
    from sentifactory.system.command_line import describe_next

    request = LabelRequest(
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
        adapt_prior=adapt_prior,
        vllm_log=vllm_log,
        vllm_dtype=vllm_dtype,
    )
    summary = run_labelling(request)
    if as_json:
        typer.echo(json.dumps(summary, ensure_ascii=False, indent=2))
    else:
        counted = ", ".join(f"{number} {what}" for what, number in sorted(summary["counts"].items()))
        typer.echo(f"{summary['output']}: {summary['labelled']} of {summary['rows']} rows ({counted})")
        for line in describe_shift(summary["prior_shift"]):
            typer.echo(line)
        if summary["bad_rows_file"]:
            typer.echo(f"Rows that could not be labelled: {summary['bad_rows_file']}")
        if following := suggest_after_labelling(request, summary):
            typer.echo(describe_next(following))
