"""Receives uploads in place of gradio, with limits of number and size, and keeps them for an hour.

The browser knows a file as `<token>/<name>`, gradio by its path in the workspace. Only such names are accepted, so
that no path or URL that a browser sends is ever opened.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from sentifactory.ui.page_settings import UPLOAD_S
from sentifactory.ui.workspace import Workspace, choose_name, measure_folder

MAX_FILE_BYTES = 50_000_000
MAX_TOTAL_BYTES = 500_000_000
MAX_FILES = 100
MAX_CONCURRENT = 4
KEEP_S = 3600.0
SWEEP_EVERY_S = 300.0
_FORM_BYTES = 20_000  # for a form besides its file
_BLOCK_BYTES = 1 << 20
_TOKEN_CHARS = 32
_NAME = re.compile(r"([0-9a-f]{32})/([^/\\\x00]{1,80})")
# Names of our folders, of gradio's folders from earlier versions, and of gradio's empty files.
_OURS = re.compile(r"[0-9a-f]{32}|[0-9a-f]{64}|tmp\w{8}")

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class RefusedError(Exception):
    """A request is refused.

    Attributes:
        status: of HTTP.
        key: of the sentence in WORDS.
    """

    def __init__(self, status: int, key: str) -> None:
        super().__init__(key)
        self.status = status
        self.key = key


class Uploads:
    """The uploaded files of a page.

    Args:
        workspace: of the page; the files are in its `temporary` folder.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._folder = workspace.temporary
        self._tokens: set[str] = set()
        self._n_receiving = 0

    async def receive(self, scope: MutableMapping[str, Any], receive: Receive) -> list[str]:
        """Store the files of a form, and return their names.

        Raises:
            RefusedError: when one is too large, there are too many, or the request is not a form with files.
        """
        await asyncio.to_thread(self.sweep)
        if self._n_receiving >= MAX_CONCURRENT:
            raise RefusedError(429, "too_many_uploads")
        self._n_receiving += 1
        try:
            _, n_bytes = await asyncio.to_thread(measure_folder, self._folder)
            n_files = sum(len(path.name) == _TOKEN_CHARS for path in _list_folder(self._folder))
            n_expected_bytes = n_bytes + self._n_receiving * MAX_FILE_BYTES
            if n_files + self._n_receiving > MAX_FILES or n_expected_bytes > MAX_TOTAL_BYTES:
                raise RefusedError(429, "too_many_uploads")
            return await asyncio.wait_for(self._receive_form(scope, receive), UPLOAD_S)
        except TimeoutError:
            raise RefusedError(408, "broken_upload") from None
        finally:
            self._n_receiving -= 1

    async def _receive_form(self, scope: MutableMapping[str, Any], receive: Receive) -> list[str]:
        from python_multipart.exceptions import FormParserError
        from starlette.datastructures import UploadFile
        from starlette.exceptions import HTTPException
        from starlette.formparsers import MultiPartException
        from starlette.requests import ClientDisconnect, Request

        request = Request(scope, limit_body(scope, receive, MAX_FILE_BYTES + _FORM_BYTES))
        try:
            async with request.form(max_files=1, max_fields=4, max_part_size=_FORM_BYTES) as form:
                files = [file for file in form.getlist("files") if isinstance(file, UploadFile)]
                if not files:
                    raise RefusedError(400, "broken_upload")
                return [await asyncio.to_thread(self._store, file) for file in files]
        except (MultiPartException, HTTPException, FormParserError, ClientDisconnect):
            raise RefusedError(400, "broken_upload") from None

    def _store(self, file: Any) -> str:
        given = Path(file.filename or "")
        suffix = re.sub(r"[^\w.]", "", given.suffix)[:12]
        token = secrets.token_hex(_TOKEN_CHARS // 2)
        folder = self._folder / token
        folder.mkdir(parents=True)
        self._tokens.add(token)
        name = f"{choose_name(folder, given.stem)}{suffix}"
        try:
            with (folder / name).open("xb") as target:
                shutil.copyfileobj(file.file, target, _BLOCK_BYTES)
        except OSError:  # leave no partial file
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return f"{token}/{name}"

    def find(self, name: str) -> Path:
        """Return the path of an uploaded file.

        Raises:
            RefusedError: when there is none of this name, or it has been removed.
        """
        parts = _NAME.fullmatch(name)
        path = self._folder / parts[1] / parts[2] if parts else None
        if path is None or not path.is_file() or path.is_symlink():
            raise RefusedError(400, "no_such_upload")
        try:
            os.utime(path.parent)  # keeps it for another hour
        except OSError:  # swept since
            raise RefusedError(400, "no_such_upload") from None
        return path

    def sweep(self, *, older_than_s: float = KEEP_S) -> None:
        """Remove uploads older than this; files of other programs stay."""
        before = time.time() - older_than_s
        for path in _list_folder(self._folder):
            try:
                if _OURS.fullmatch(path.name) and not path.is_symlink() and path.stat().st_mtime <= before:
                    _remove(path)
            except OSError:
                continue  # another page on this workspace has removed it

    async def sweep_regularly(self) -> None:
        """Sweep every `SWEEP_EVERY_S` until cancelled."""
        while True:
            await asyncio.to_thread(self.sweep)
            await asyncio.sleep(SWEEP_EVERY_S)

    def clear(self) -> None:
        """Remove every upload of this page."""
        for token in self._tokens:
            shutil.rmtree(self._folder / token, ignore_errors=True)
        self._tokens.clear()


def _list_folder(folder: Path) -> list[Path]:
    """Return what is in a folder; nothing where it has been removed: the next upload makes it again."""
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    elif path.stat().st_size == 0:
        path.unlink()


def limit_body(scope: MutableMapping[str, Any], receive: Receive, max_bytes: int) -> Receive:
    """Return a `receive` with a limit of bytes.

    Raises:
        RefusedError: at once where the Content-Length is larger, otherwise when more has been received.
    """
    lengths = [value for name, value in scope["headers"] if name.lower() == b"content-length"]
    if any(not value.isdigit() or len(value) > 18 or int(value) > max_bytes for value in lengths):
        raise RefusedError(413, "too_large")
    n_received = 0

    async def receive_limited() -> MutableMapping[str, Any]:
        nonlocal n_received
        message = await receive()
        n_received += len(message.get("body", b""))
        if n_received > max_bytes:
            raise RefusedError(413, "too_large")
        return message

    return receive_limited
