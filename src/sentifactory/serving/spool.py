"""The output of a long labelling while it grows: what is written is written for good, and a killed run goes on there.

Beside OUT stand OUT.part (rows so far), OUT.bad.jsonl.part (bad rows so far) and OUT.journal.json, which says how many
rows of the input are in them and how long both files were then. What a killed process wrote beyond that is cut off,
and the rows are asked again: none is lost and none stands twice.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any, Self

from sentifactory.atomic import make_parents, write_json
from sentifactory.errors import ConfigError
from sentifactory.file_lock import lock_file


class Spool:
    """Two growing files and their journal; use it in a `with` block, which holds them against other processes.

    Args:
        out: where the output goes in the end.
        settings: what the rows depend on; a run with others cannot go on with these files.
        head: bytes that the output begins with.
        overwrite: replace a finished output, and begin anew where an unfinished one stands.

    Raises:
        ConfigError: when a finished output stands there, or an unfinished one of other settings, or another process
            works on it.
    """

    def __init__(self, out: Path, settings: dict[str, Any], head: bytes, *, overwrite: bool = False) -> None:
        self.out = out
        self.bad = out.with_name(out.name + ".bad.jsonl")
        self._part = out.with_name(out.name + ".part")
        self._bad_part = out.with_name(self.bad.name + ".part")
        self._journal = out.with_name(out.name + ".journal.json")
        self._settings = json.loads(json.dumps(settings))  # as the journal gives them back
        self._is_complete = False
        self._has_bad = self._had_rows = False
        self.n_rows = 0
        self.counts: dict[str, int] = {}
        self._made_folders = make_parents(out)
        self._open_files = ExitStack()
        try:
            self._file = self._open_files.enter_context(self._part.open("ab"))
        except OSError as error:
            raise ConfigError(f"The output cannot be written ({error.strerror})", where=str(out)) from error
        self._lock()
        try:
            if overwrite:
                self._journal.unlink(missing_ok=True)
            self._resume_or_begin(head, overwrite)
        except BaseException:
            self.__exit__()
            if not self._journal.exists():
                self._remove_parts()
            raise

    def _lock(self) -> None:
        try:
            lock_file(self._file, self.out)
        except BlockingIOError:
            self._open_files.close()
            raise ConfigError(
                "Another process is labelling into this file", where=str(self.out), next_step="wait for its end"
            ) from None

    def _resume_or_begin(self, head: bytes, overwrite: bool) -> None:
        try:
            found = json.loads(self._journal.read_text(encoding="utf-8"))
            if not isinstance(found, dict) or not isinstance(found.get("settings"), dict):
                raise ValueError("it is none of ours")
        except FileNotFoundError:
            if self.out.exists() and not overwrite:
                raise ConfigError(
                    "The output is there already",
                    where=str(self.out),
                    next_step="choose another name, or add --overwrite to replace it",
                ) from None
            self._bad_file = self._open_files.enter_context(self._bad_part.open("wb"))
            self._file.truncate(0)
            self.append(head, b"", 0, {})
            return
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"The journal cannot be read ({error})",
                where=str(self._journal),
                next_step="choose another output, or add --overwrite to begin anew",
            ) from error
        if found["settings"] != self._settings:
            names = {*self._settings, *found["settings"]}
            changed = sorted(name for name in names if found["settings"].get(name) != self._settings.get(name))
            raise ConfigError(
                f"An unfinished labelling stands here, and these differ from it: {', '.join(changed)}",
                where=str(self._journal),
                expected="the input, model, task and options that it was begun with",
                next_step="continue it with those, choose another output, or add --overwrite to begin anew",
            )
        self._bad_file = self._open_files.enter_context(self._bad_part.open("ab"))
        self._is_complete, self._has_bad = found["complete"], found["bad_bytes"] > 0
        self._had_rows = self._is_complete and found["bytes"] > 0
        for file, length in ((self._file, found["bytes"]), (self._bad_file, found["bad_bytes"])):
            if not self._is_complete:
                _cut(file, length)
        self.n_rows, self.counts = found["rows"], found["counts"]

    def append(self, rows: bytes, bad_rows: bytes, n_rows: int, counts: dict[str, int]) -> None:
        """Append rows for good.

        Args:
            rows: for the output.
            bad_rows: for the side file.
            n_rows: rows of the input that both make up.
            counts: what is counted among them; added to the counts so far.

        Raises:
            ConfigError: when the files cannot be written; the same command goes on where they end.
        """
        try:
            for file, content in ((self._file, rows), (self._bad_file, bad_rows)):
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ConfigError(
                f"The output cannot be written ({error.strerror})",
                where=str(self.out),
                next_step="give the disk room, then give the same command to go on",
            ) from error
        self.n_rows += n_rows
        self._has_bad |= bool(bad_rows)
        for name, number in counts.items():
            self.counts[name] = self.counts.get(name, 0) + number
        self._write_journal(is_complete=False)

    def _write_journal(self, *, is_complete: bool) -> None:
        write_json(
            self._journal,
            {
                "settings": self._settings,
                "rows": self.n_rows,
                "counts": self.counts,
                "bytes": self._file.seek(0, os.SEEK_END),
                "bad_bytes": self._bad_file.seek(0, os.SEEK_END),
                "complete": is_complete,
            },
        )

    def complete(self, make_output: Callable[[Path, Path], None]) -> None:
        """Put the output into its place. A process that is killed meanwhile does the rest when it is started again."""
        if not self._is_complete:
            self._write_journal(is_complete=True)
        # Where rows were and now is an empty file, a run that was killed in here has moved them: its work is done. An
        # output without rows is made again: what stands there may be the one that is to be replaced.
        if self._part.stat().st_size or not self._had_rows or not self.out.exists():
            make_output(self._part, self.out)
        if not self._has_bad:
            self.bad.unlink(missing_ok=True)
        elif self._bad_part.stat().st_size:
            self._bad_part.replace(self.bad)
        self._journal.unlink()
        self._remove_parts()

    def _remove_parts(self) -> None:
        for leftover in (self._part, self._bad_part):
            leftover.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        """Return the spool."""
        return self

    def __exit__(self, kind: type[BaseException] | None = None, *_: object) -> None:
        """Let others in; what failed before the first row, such as an engine that did not start, leaves nothing."""
        if kind is not None and self.n_rows == 0 and not self._is_complete:
            self._journal.unlink(missing_ok=True)
            self._remove_parts()
            with suppress(OSError):
                for folder in self._made_folders:
                    folder.rmdir()
        with suppress(OSError):  # a full disk has been told already
            self._open_files.close()


def _cut(file: IO[bytes], length: int) -> None:
    """Cut off what was appended after the journal was written.

    Raises:
        ConfigError: when there is less than the journal says.
    """
    if file.seek(0, os.SEEK_END) < length:
        raise ConfigError(
            "The unfinished output is shorter than its journal says",
            where=str(file.name),
            next_step="add --overwrite to begin anew",
        )
    file.truncate(length)
