"""The command `sentifactory export gguf`, and its summary for the terminal."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from sentifactory.task.task_choice import TASK_HELP


def export_gguf(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="Folder of a tuned Gemma 3 (text), Llama, Qwen2 or Qwen3.")
    ],
    output_dir: Annotated[Path, typer.Option("--output_dir", help="Folder to write; an earlier export is replaced.")],
    val_path: Annotated[
        str, typer.Option("--val_path", help="Validation reviews for comparing llama.cpp with the checkpoint.")
    ],
    quantise: Annotated[
        str,
        typer.Option(
            "--quantise", help="Precision: f16, q8_0, or q4_k_m, which llama.cpp's program llama-quantize makes."
        ),
    ] = "q8_0",
    max_flips: Annotated[
        float | None,
        typer.Option("--max_flips", help="Largest share of labels that may flip.  [0.01; q4_k_m: 0.02]"),
    ] = None,
    max_difference: Annotated[
        float | None,
        typer.Option(
            "--max_difference",
            help="Largest mean difference of the probabilities.  [f16: 0.005; q8_0: 0.02; q4_k_m: 0.05]",
        ),
    ] = None,
    max_samples: Annotated[
        int, typer.Option("--max_samples", min=1, help="Maximum number of validation reviews to compare.")
    ] = 300,
    llama_cpp: Annotated[
        Path | None,
        typer.Option(
            "--llama_cpp",
            help="Folder with llama-server and llama-quantize.  [the package xllamacpp; llama-quantize in the PATH]",
        ),
    ] = None,
    task: Annotated[str | None, typer.Option("--task", help=TASK_HELP)] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed for sampling --max_samples reviews.")] = 42,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the result, as JSON, on stdout.")] = False,
) -> None:
    """Export a language model as GGUF for llama.cpp and Ollama, and verify that llama.cpp answers the same.

    Serves the file by a real llama.cpp and compares the tokens of the prompts, the labels and the probabilities with
    the checkpoint's on validation reviews. If the tokens differ, or the answers by more than is allowed, nothing is
    written and the command ends with exit code 2. The folder includes a Modelfile for Ollama with the taught turns,
    the grammar of the answers, the comparison, the run card, the task, the calibration and the terms of the model.
    """
    from sentifactory.publishing.gguf import gguf_export

    options = gguf_export.ExportOptions(
        model=model,
        output_dir=output_dir,
        val_path=val_path,
        quantise=quantise,
        max_flips=max_flips,
        max_difference=max_difference,
        max_samples=max_samples,
        llama_cpp=llama_cpp,
        task=task,
        seed=seed,
    )
    proof = gguf_export.export_gguf(options)
    if as_json:
        typer.echo(json.dumps(proof, ensure_ascii=False, indent=2))
        return
    typer.echo(describe_export(output_dir, proof))
    (file,) = proof["weights"]
    typer.echo(describe_servers(output_dir, file))


def describe_servers(folder: Path, file: str) -> str:
    """Return the commands that serve an export by the programs in the PATH; without any, where to get one."""
    from sentifactory.system.command_line import describe_next, quote_word

    place = quote_word(str(folder))
    commands = {
        "llama-server": f"llama-server -m {place}/{file}",
        "ollama": f"ollama create sentiment -f {place}/Modelfile",
    }
    found = [command for program, command in commands.items() if shutil.which(program)]
    if found:
        return describe_next(*found)
    return (
        "Next: install llama.cpp (Homebrew, or a release from its project page) or Ollama, then serve the model by "
        f"one of\n  {commands['llama-server']}\n  {commands['ollama']}"
    )


def describe_export(folder: Path, proof: Mapping[str, Any]) -> str:
    """Return a summary of an export: path and size, comparison of tokens and answers with the checkpoint."""
    parity, limits, tokens = proof["parity"], proof["parity"]["limits"], proof["tokens"]
    interval = parity["flip_interval"]
    lines = [
        f"Exported ({proof['dtype']}): {folder}, {proof['size_bytes'] / 2**20:.1f} MiB",
        f"Tokens: the same in all {tokens['reviews']} prompts ({tokens['tokens']} tokens); "
        f"llama.cpp: {proof['llama_cpp']['name']}",
        f"Parity: {parity['flips']} of {parity['reviews']} labels flip ({parity['flip_share']:.2%}, 95% interval "
        f"{interval['low']:.2%} to {interval['high']:.2%}; allowed {limits['flips']:.2%}); probabilities differ by "
        f"{parity['difference_mean']:.5f} on average (allowed {limits['difference']:g}) and "
        f"{parity['difference_max']:.5f} at most",
        f"Accuracy on these reviews: {parity['accuracy']:.2%}, checkpoint {parity['accuracy_checkpoint']:.2%}; "
        f"{proof['reviews_per_s']:.1f} reviews/s by llama.cpp on this machine, one after the other",
    ]
    return "\n".join(lines)
