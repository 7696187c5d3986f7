"""Takes the files that people bring to the page, in place of gradio: so many, so large, and for an hour.

A file is known to the browser as `<token>/<name>` and to gradio by its path below the workspace; nothing but such a
name is taken for a file, so that no path and no address of the web that a browser sends is ever opened.
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

from sentifactory.ui.workspace import Workspace, choose_name, measure_folder

MOST_BYTES_OF_ONE = 50_000_000
MOST_BYTES = 500_000_000
MOST_FILES = 100
MOST_AT_ONCE = 4
KEEP_S = 3600.0
SWEEP_EVERY_S = 300.0
PATIENCE_S = 600.0  # for one file to come
_FORM_BYTES = 20_000  # what stands around the files in a form
_BLOCK_BYTES = 1 << 20
_TOKEN_CHARS = 32
_NAME = re.compile(r"([0-9a-f]{32})/([^/\\\x00]{1,80})")
# What is put down here: by this module, by gradio before it, and gradio's empty files.
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
    """The files of a page that nobody has worked with yet.

    Args:
        workspace: of the page; the files are in its `temporary`.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._folder = workspace.temporary
        self._taken: set[str] = set()  # tokens of this page
        self._coming = 0

    async def take(self, scope: MutableMapping[str, Any], receive: Receive) -> list[str]:
        """Take the files of a form, and return their names.

        Raises:
            RefusedError: when one is too large, there are too many, or it is no form with files.
        """
        await asyncio.to_thread(self.sweep)
        if self._coming >= MOST_AT_ONCE:
            raise RefusedError(429, "too_many_uploads")
        self._coming += 1
        try:
            _, n_bytes = await asyncio.to_thread(measure_folder, self._folder)
            n_files = sum(len(name) == _TOKEN_CHARS for name in os.listdir(self._folder))
            if n_files + self._coming > MOST_FILES or n_bytes + self._coming * MOST_BYTES_OF_ONE > MOST_BYTES:
                raise RefusedError(429, "too_many_uploads")
            return await asyncio.wait_for(self._take_form(scope, receive), PATIENCE_S)
        except TimeoutError:
            raise RefusedError(408, "broken_upload") from None
        finally:
            self._coming -= 1

    async def _take_form(self, scope: MutableMapping[str, Any], receive: Receive) -> list[str]:
        from python_multipart.exceptions import FormParserError
        from starlette.datastructures import UploadFile
        from starlette.exceptions import HTTPException
        from starlette.formparsers import MultiPartException
        from starlette.requests import ClientDisconnect, Request

        request = Request(scope, limit_body(scope, receive, MOST_BYTES_OF_ONE + _FORM_BYTES))
        try:
            async with request.form(max_files=1, max_fields=4, max_part_size=_FORM_BYTES) as form:
                files = [file for file in form.getlist("files") if isinstance(file, UploadFile)]
                if not files:
                    raise RefusedError(400, "broken_upload")
                return [await asyncio.to_thread(self._put_down, file) for file in files]
        except (MultiPartException, HTTPException, FormParserError, ClientDisconnect):
            raise RefusedError(400, "broken_upload") from None

    def _put_down(self, file: Any) -> str:
        wish = Path(file.filename or "")
        suffix = re.sub(r"[^\w.]", "", wish.suffix)[:12]
        token = secrets.token_hex(_TOKEN_CHARS // 2)
        folder = self._folder / token
        folder.mkdir()
        self._taken.add(token)
        name = f"{choose_name(folder, wish.name)}{suffix}"
        try:
            with (folder / name).open("xb") as target:
                shutil.copyfileobj(file.file, target, _BLOCK_BYTES)
        except OSError:  # no half of a file stays behind
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return f"{token}/{name}"

    def find(self, name: str) -> Path:
        """Return where a file is.

        Raises:
            RefusedError: when there is none of this name, or no longer.
        """
        parts = _NAME.fullmatch(name)
        path = self._folder / parts[1] / parts[2] if parts else None
        if path is None or not path.is_file() or path.is_symlink():
            raise RefusedError(400, "no_such_upload")
        path.parent.touch()  # an hour from now
        return path

    def sweep(self, *, older_than_s: float = KEEP_S) -> None:
        """Remove what was put down here longer ago; nothing that anybody else has put here."""
        before = time.time() - older_than_s
        for path in self._folder.iterdir():
            try:
                if _OURS.fullmatch(path.name) and not path.is_symlink() and path.stat().st_mtime <= before:
                    _remove(path)
            except OSError:
                continue  # another page on this workspace was faster

    async def sweep_regularly(self) -> None:
        """Sweep every few minutes, until this is cancelled."""
        while True:
            await asyncio.to_thread(self.sweep)
            await asyncio.sleep(SWEEP_EVERY_S)

    def clear(self) -> None:
        """Remove every file that came to this page."""
        for token in self._taken:
            shutil.rmtree(self._folder / token, ignore_errors=True)
        self._taken.clear()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    elif path.stat().st_size == 0:
        path.unlink()


def limit_body(scope: MutableMapping[str, Any], receive: Receive, most_bytes: int) -> Receive:
    """Return a `receive` that takes no more than so many bytes.

    Raises:
        RefusedError: at once where the request says that it is larger, else when it has become so.
    """
    said = [value for name, value in scope["headers"] if name.lower() == b"content-length"]
    if any(not value.isdigit() or len(value) > 18 or int(value) > most_bytes for value in said):
        raise RefusedError(413, "too_large")
    taken = 0

    async def receive_limited() -> MutableMapping[str, Any]:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > most_bytes:
            raise RefusedError(413, "too_large")
        return message

    return receive_limited
