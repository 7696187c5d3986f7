"""Starts the page's server, with gradio's temporary files in the workspace, and waits for Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from sentifactory.serving.http.connections import ConnectionLimiter
from sentifactory.serving.http.http_protocol import limit_connections
from sentifactory.serving.http.server import bind_socket, format_address
from sentifactory.serving.service_settings import Access
from sentifactory.system.extras import require_packages
from sentifactory.system.network_settings import hide_proxy_variables, refuse_unusable_proxies
from sentifactory.ui.actions import PageActions
from sentifactory.ui.logins import LoginThrottle
from sentifactory.ui.origins import read_header
from sentifactory.ui.page_settings import CONNECTION_LIMITS, USER_NAME, PageAccess
from sentifactory.ui.page_words import WORDS
from sentifactory.ui.security_middleware import SecurityMiddleware
from sentifactory.ui.uploads import Uploads

CLOSING_S = 3  # for answers that have begun; gradio waits 5 s for its server


def run_page(actions: PageActions, access: PageAccess, echo: Callable[[str], None]) -> None:
    """Serve the page until Ctrl-C; a running training continues.

    Args:
        actions: of the page's controls.
        access: address and password.
        echo: prints a line for the user.

    Raises:
        ConfigError: when a password is required and missing, the address cannot be used, or gradio is missing.
    """
    access.check()
    with bind_socket(Access(host=access.host, port=access.port)) as bound:
        port = bound.getsockname()[1]
    page = launch_page(actions, access, port)
    try:
        echo(f"Open {format_address(access.host, port)}")
        if access.is_shared:
            echo(f"Public address: {page.share_url or 'none: gradio could not create one'}")
        if access.password is not None:
            shown = access.password if access.is_password_made else "as in the environment"
            echo(f"User {USER_NAME}, password {shown}")
        if not access.has_training:
            echo("Training is disabled for remote users; --allow_remote_training enables it.")
        threading.Event().wait()
    finally:
        page.close(verbose=False)


def launch_page(actions: PageActions, access: PageAccess, port: int) -> Any:
    """Start the page's server in a thread of its own and return the page.

    Raises:
        ConfigError: when gradio is missing, or a public address is requested and the proxy settings cannot be used.
    """
    # gradio reads these at import and at every upload.
    os.environ["GRADIO_TEMP_DIR"] = str(actions.workspace.temporary)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    # gradio requests its own page to check that it is up. Only for a public address does it contact another machine.
    if access.is_shared:
        refuse_unusable_proxies()
    with contextlib.nullcontext() if access.is_shared else hide_proxy_variables():
        return _launch_gradio(actions, access, port)


def _launch_gradio(actions: PageActions, access: PageAccess, port: int) -> Any:
    from sentifactory.ui.page import build_page

    require_packages("gradio", "httptools")
    page = build_page(actions, has_training=access.has_training)
    # With api_open, other routes of gradio would bypass the queues.
    page.queue(default_concurrency_limit=4, max_size=64, api_open=False)
    with _limit_connections():
        page.launch(
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
            app_kwargs={"lifespan": _wrap_app(Uploads(actions.workspace), access.is_remote)},
        )
    return page


@contextlib.contextmanager
def _limit_connections() -> Iterator[None]:
    """Make gradio start a server with limits of connections; it has no setting for uvicorn's configuration."""
    import uvicorn
    from gradio import http_server

    class LimitedServer(http_server.Server):
        def __init__(self, config: uvicorn.Config, reloader: Any = None) -> None:
            limits = limit_connections(ConnectionLimiter(CONNECTION_LIMITS))
            limited = uvicorn.Config(
                config.app, host=config.host, port=config.port, timeout_graceful_shutdown=CLOSING_S, **limits
            )
            super().__init__(limited, reloader)

    original, http_server.Server = http_server.Server, LimitedServer
    try:
        yield
    finally:
        http_server.Server = original


def _wrap_app(uploads: Uploads, is_remote: bool) -> Callable[[Any], contextlib.AbstractAsyncContextManager[None]]:
    """Return a lifespan that puts `SecurityMiddleware` around gradio's whole app, before the first connection.

    Passed to gradio as a middleware it would be inside gradio's own, which answer other sites and show tracebacks.
    """

    @contextlib.asynccontextmanager
    async def run_wrapped(app: Any) -> AsyncIterator[None]:
        def is_logged_in(headers: list[tuple[bytes, bytes]]) -> bool:
            return app.auth is None or find_token(app, headers) in app.tokens

        app.middleware_stack = SecurityMiddleware(
            app.middleware_stack, is_remote, uploads, is_logged_in, LoginThrottle()
        )
        sweeper = asyncio.create_task(uploads.sweep_regularly())
        try:
            yield
        finally:
            sweeper.cancel()
            uploads.clear()

    return run_wrapped


def find_token(app: Any, headers: list[tuple[bytes, bytes]]) -> str | None:
    """Return the token in the cookie of gradio's login, "" or None where there is none."""
    from starlette.requests import cookie_parser

    cookies = cookie_parser("; ".join(read_header(headers, b"cookie")))
    return cookies.get(f"access-token-{app.cookie_id}") or cookies.get(f"access-token-unsecure-{app.cookie_id}")
