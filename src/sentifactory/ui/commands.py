"""The command `sentifactory ui`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def open_page(
    workspace: Annotated[
        Path, typer.Option("--workspace", help="The only folder that the page writes to.", metavar="FOLDER")
    ] = Path("saves/ui"),
    models: Annotated[
        list[Path] | None,
        typer.Option(
            "--models", help="Folder with models to choose from. May be repeated.  [saves]", metavar="FOLDER"
        ),
    ] = None,
    recipes: Annotated[
        list[Path] | None,
        typer.Option(
            "--recipes",
            help="Folder of recipes and tasks; recipes whose model is on this machine are offered. May be repeated.  "
            "[examples]",
            metavar="FOLDER",
        ),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            "--data", help="Folder with prepared data sets to choose from. May be repeated.  [data]", metavar="FOLDER"
        ),
    ] = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="TCP port; 0 takes a free one.")] = 7860,
    share: Annotated[bool, typer.Option("--share", help="Let gradio create a public address for the page.")] = False,
    tunnel: Annotated[
        bool, typer.Option("--tunnel", help="Allow access through your own tunnel or proxy (ngrok, cloudflared, frp).")
    ] = False,
    allow_remote_training: Annotated[
        bool,
        typer.Option("--allow_remote_training", help="Offer training to remote users as well."),
    ] = False,
    make_password: Annotated[
        bool,
        typer.Option("--make_password", help="Where a password is required and not set, make one and print it."),
    ] = False,
) -> None:
    """Serve a page to predict, train, compare and view run cards in a browser, in English and Chinese.

    Where other machines can reach the page (--share, --tunnel, --host) it requires the user `sentifactory` and the
    password in SENTIFACTORY_UI_PASSWORD, without which it does not start unless it may make one (--make_password), and
    offers no training. A training continues when the page is closed, and the next page shows it.
    """
    from sentifactory.ui.actions import PageActions
    from sentifactory.ui.launch import run_page
    from sentifactory.ui.page_settings import PageAccess, read_password
    from sentifactory.ui.workspace import open_workspace

    access = PageAccess(host, port, share, tunnel, allow_remote_training, read_password())
    if make_password:
        access = access.with_password()
    access.check()  # before anything is written
    actions = PageActions(
        open_workspace(workspace),
        tuple(models or [Path("saves")]),
        tuple(recipes or [Path("examples")]),
        tuple(data or [Path("data")]),
    )
    run_page(actions, access, typer.echo)
