"""Opens the page: checks who may reach it, keeps what gradio writes inside the workspace, and waits for Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

from sentifactory.errors import ConfigError
from sentifactory.network_settings import leave_out_proxies, refuse_unusable_proxies
from sentifactory.serving.server import bind_socket, format_address
from sentifactory.serving.settings import Access
from sentifactory.ui.actions import PageActions
from sentifactory.ui.guard import PageGuard
from sentifactory.ui.logins import LoginThrottle
from sentifactory.ui.origins import read_header
from sentifactory.ui.settings import USER_NAME, PageAccess
from sentifactory.ui.uploads import Uploads
from sentifactory.ui.wording import WORDS


def run_page(actions: PageActions, access: PageAccess, tell: Callable[[str], None]) -> None:
    """Show the page until Ctrl-C; a training that runs goes on.

    Args:
        actions: what the page does.
        access: who may reach it.
        tell: prints a line for the user.

    Raises:
        ConfigError: when the page would be open to everybody, the address cannot be used, or gradio is missing.
    """
    access.check()
    with bind_socket(Access(host=access.host, port=access.port)) as bound:
        port = bound.getsockname()[1]
    page = launch_page(actions, access, port)
    try:
        tell(f"Open {format_address(access.host, port)}")
        if access.is_shared:
            tell(f"Public address: {page.share_url or 'none: gradio could not make one'}")
        if access.password is not None:
            tell(f"User {USER_NAME}, password as in the environment.")
        if not access.has_training:
            tell("Training is not offered to those who come from elsewhere (--allow_remote_training does).")
        threading.Event().wait()
    finally:
        page.close(verbose=False)


def launch_page(actions: PageActions, access: PageAccess, port: int) -> Any:
    """Start the server of the page in a thread of its own and return the page.

    Raises:
        ConfigError: when gradio is missing, or a public address is wanted and a proxy cannot be used.
    """
    # Read by gradio when it is imported, and at every upload.
    os.environ["GRADIO_TEMP_DIR"] = str(actions.workspace.temporary)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    # It asks whether its own page is up. Only the public address is made by asking another machine.
    if access.is_shared:
        refuse_unusable_proxies()
    with contextlib.nullcontext() if access.is_shared else leave_out_proxies():
        return _launch_here(actions, access, port)


def _launch_here(actions: PageActions, access: PageAccess, port: int) -> Any:
    try:
        import gradio  # noqa: F401 - whether it is there

        from sentifactory.ui.page import build_page
    except ModuleNotFoundError as error:
        raise ConfigError("The package gradio is not installed", next_step="run `make setup`") from error
    page = build_page(actions, has_training=access.has_training)
    # With api_open its other routes would go round the queues.
    page.queue(default_concurrency_limit=4, max_size=64, api_open=False).launch(
        server_name=access.host,
        server_port=port,
        share=access.is_shared,
        auth=(USER_NAME, access.password) if access.password is not None else None,
        auth_message="<br>".join(WORDS["login_hint"]),
        prevent_thread_lock=True,
        inbrowser=False,
        quiet=True,
        show_error=False,
        enable_monitoring=False,
        ssr_mode=False,
        app_kwargs={"lifespan": _stand_outside(Uploads(actions.workspace), access.is_remote)},
    )
    return page


def _stand_outside(uploads: Uploads, is_remote: bool) -> Callable[[Any], contextlib.AbstractAsyncContextManager[None]]:
    """Return what puts the guard around gradio's whole app, before the first connection is taken.

    As a middleware that gradio is given it would stand within gradio's own, which answer other sites and show
    tracebacks.
    """

    @contextlib.asynccontextmanager
    async def watch(app: Any) -> AsyncIterator[None]:
        def is_logged_in(headers: list[tuple[bytes, bytes]]) -> bool:
            return app.auth is None or find_token(app, headers) in app.tokens

        app.middleware_stack = PageGuard(app.middleware_stack, is_remote, uploads, is_logged_in, LoginThrottle())
        sweeper = asyncio.create_task(uploads.sweep_regularly())
        try:
            yield
        finally:
            sweeper.cancel()
            uploads.clear()

    return watch


def find_token(app: Any, headers: list[tuple[bytes, bytes]]) -> str | None:
    """Return what the cookie of gradio's login holds, "" or None where there is none."""
    from starlette.requests import cookie_parser

    cookies = cookie_parser("; ".join(read_header(headers, b"cookie")))
    return cookies.get(f"access-token-{app.cookie_id}") or cookies.get(f"access-token-unsecure-{app.cookie_id}")
