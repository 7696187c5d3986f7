"""The output of a long labelling while it grows: what is written is written for good; a killed run goes on there.

Beside OUT stand the rows so far and the bad rows so far, under names that nobody can guess, and OUT.journal.json: it
says what these are called, how many rows of the input are in them and how long both were then. What a killed process
wrote beyond that is cut off, and the rows are asked again: none is lost and none stands twice. Files that no labelling
made are neither written nor removed, and no link is followed.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Self

from sentifactory.atomic import make_parents, place_new, remove_empty, write_json
from sentifactory.errors import ConfigError
from sentifactory.file_lock import lock_file, refuse_links

_VERSION = 1
_TOKEN = re.compile(r"[0-9a-f]{32}")
_FIELDS = {
    "settings": dict, "rows": int, "counts": dict, "bytes": int, "bad_bytes": int, "complete": bool, "replaces": bool,
}  # fmt: skip
_BAD_ROW = re.compile(rb'\{"line": \d+, "reason": "')  # so begins every file of bad rows
_MOVE_AWAY = "choose another output, or move this file away"


def name_bad_file(out: Path) -> Path:
    """Return where the rows go that cannot be labelled."""
    return out.with_name(out.name + ".bad.jsonl")


def name_journal(out: Path) -> Path:
    """Return where the journal of an unfinished labelling is."""
    return out.with_name(out.name + ".journal.json")


class Spool:
    """Two growing files and their journal; use it in a `with` block, which holds them against other processes.

    Args:
        out: where the output goes in the end.
        settings: what the rows depend on; a run with others cannot go on with these files.
        head: bytes that the output begins with.
        overwrite: replace a finished output, and begin anew where an unfinished one stands.

    Raises:
        ConfigError: when the output cannot be written, a finished one stands there, or an unfinished one of other
            settings, another process works on it, or a file that no labelling made has one of its names.
    """

    def __init__(self, out: Path, settings: dict[str, Any], head: bytes, *, overwrite: bool = False) -> None:
        self.out = out
        self.bad = name_bad_file(out)
        self.journal = name_journal(out)
        self._settings = json.loads(json.dumps(settings))  # as the journal gives them back
        self._replaces = overwrite
        self._is_complete = False
        self._has_bad = False
        self.n_rows = 0
        self.counts: dict[str, int] = {}
        self._made_folders: list[Path] = []
        self._open_files = ExitStack()
        self._name_parts(secrets.token_hex(16))
        with self._explain_os_errors():
            if out.exists() and not out.is_file():
                raise ConfigError("The output is no file", where=str(out), expected="a file that may be replaced")
            self._made_folders = make_parents(out)
            try:
                self._resume_or_begin(head, overwrite)
            except BaseException:
                self._open_files.close()
                remove_empty(self._made_folders)
                raise

    @contextmanager
    def _explain_os_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConfigError(
                f"The output cannot be written ({error.strerror})",
                where=str(self.out),
                next_step="choose another place or give this one room and permissions; then give the same command",
            ) from error

    def _name_parts(self, token: str) -> None:
        self._token = token
        self._part, self._bad_part, self._whole, self._new_journal = (
            self.out.with_name(f".sentifactory-{token}.{kind}.part") for kind in ("rows", "bad", "whole", "journal")
        )

    def _resume_or_begin(self, head: bytes, overwrite: bool) -> None:
        found = self._read_journal()
        if found is None:
            self._begin(head)
            return
        token = found["token"]
        self._name_parts(token)
        has_part = self._open_parts(is_complete=found["complete"])
        found = self._read_journal()  # as it is now that nobody else writes it
        if found is None or found["token"] != token:
            self._open_files.close()  # another process has finished it meanwhile
            self._name_parts(secrets.token_hex(16))
            self._resume_or_begin(head, overwrite)
        elif overwrite:
            self._check_bad_place()
            self.journal.unlink()
            self._remove_parts()
            self._open_files.close()
            self._name_parts(secrets.token_hex(16))
            self._begin(head)
        else:
            self._resume(found, has_part)

    def _read_journal(self) -> dict[str, Any] | None:
        """Return what an unfinished labelling left; None where there is none.

        Raises:
            ConfigError: when no labelling of this version made it.
        """
        try:
            with open(self.journal, encoding="utf-8", opener=_open_known) as stream:
                found = json.loads(stream.read())
            if not isinstance(found, dict) or found.get("labelling") != _VERSION:
                raise ValueError("no labelling of this version has written it")
            is_sound = all(isinstance(found.get(name), kind) for name, kind in _FIELDS.items())
            if not is_sound or not _TOKEN.fullmatch(str(found.get("token"))):
                raise ValueError("it was changed")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(
                f"The journal cannot be read ({getattr(error, 'strerror', None) or error})",
                where=str(self.journal),
                next_step=_MOVE_AWAY,
            ) from error
        return found

    def _begin(self, head: bytes) -> None:
        """Make new files. The journal appears whole and where none is: of two processes one begins."""
        if os.path.lexists(self.out) and not self._replaces:
            raise ConfigError(
                "The output is there already",
                where=str(self.out),
                next_step="choose another name, or add --overwrite to replace it",
            )
        self._check_bad_place()
        try:
            self._open_both(_create)
            self._lock()
            self._file.write(head)
            self._file.flush()
            self._write_journal(self._new_journal, is_complete=False)
            try:
                place_new(self._new_journal, self.journal)
            except FileExistsError:
                raise self._explain_held() from None
        except BaseException:
            self._remove_parts()
            raise

    def _check_bad_place(self) -> None:
        """Raise a ConfigError where the file for bad rows would replace another one, or may not replace its like."""
        if not os.path.lexists(self.bad):
            return
        is_ours = _is_bad_file(self.bad)
        if not is_ours or not self._replaces:
            raise ConfigError(
                "The file for rows that cannot be labelled is there already"
                if is_ours
                else "A file that is none of bad rows has the name of that for rows that cannot be labelled",
                where=str(self.bad),
                next_step=_MOVE_AWAY + (", or add --overwrite to replace it" if is_ours else ""),
            )

    def _open_parts(self, *, is_complete: bool) -> bool:
        """Open and lock what the journal names; return whether the rows are there, which a finished run has moved.

        Raises:
            ConfigError: when they are missing, no plain files, or held by another process.
        """
        try:
            self._open_both(_open_known)
        except FileNotFoundError:
            if is_complete or not self.journal.exists():
                return False
            raise self._explain_lost("is missing") from None
        for file in () if is_complete else (self._file, self._bad_file):
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode) or state.st_nlink != 1:
                raise self._explain_lost("is no file of its own")
        self._lock()
        return True

    def _open_both(self, opener: Callable[[str, int], int]) -> None:
        self._file = self._open_files.enter_context(open(self._part, "ab", opener=opener))  # noqa: SIM115 - the stack closes it
        self._bad_file = self._open_files.enter_context(open(self._bad_part, "ab", opener=opener))  # noqa: SIM115 - the stack closes it

    def _lock(self) -> None:
        try:
            lock_file(self._file, self.out)
        except BlockingIOError:
            raise self._explain_held() from None

    def _explain_held(self) -> ConfigError:
        return ConfigError(
            "Another process is labelling into this file", where=str(self.out), next_step="wait for its end"
        )

    def _explain_lost(self, how: str) -> ConfigError:
        return ConfigError(
            f"The unfinished output {how}", where=str(self._part), next_step="add --overwrite to begin anew"
        )

    def _resume(self, found: dict[str, Any], has_part: bool) -> None:
        if found["settings"] != self._settings:
            names = {*self._settings, *found["settings"]}
            changed = sorted(name for name in names if found["settings"].get(name) != self._settings.get(name))
            raise ConfigError(
                f"An unfinished labelling stands here, and these differ from it: {', '.join(changed)}",
                where=str(self.journal),
                expected="the input, model, task and options that it was begun with",
                next_step="continue it with those, choose another output, or add --overwrite to begin anew",
            )
        self._is_complete, self._has_bad = found["complete"], found["bad_bytes"] > 0
        self._replaces = found["replaces"]  # was asked for when it began
        if not self._is_complete:
            if not has_part:
                raise self._explain_lost("is missing")
            for file, length in ((self._file, found["bytes"]), (self._bad_file, found["bad_bytes"])):
                if file.seek(0, os.SEEK_END) < length:
                    raise self._explain_lost("is shorter than its journal says")
            for file, length in ((self._file, found["bytes"]), (self._bad_file, found["bad_bytes"])):
                file.truncate(length)  # what was appended after the journal was written
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
        with self._explain_os_errors():
            for file, content in ((self._file, rows), (self._bad_file, bad_rows)):
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        self.n_rows += n_rows
        self._has_bad |= bool(bad_rows)
        for name, number in counts.items():
            self.counts[name] = self.counts.get(name, 0) + number
        self._write_journal(self.journal, is_complete=False)

    def _write_journal(self, place: Path, *, is_complete: bool) -> None:
        write_json(
            place,
            {
                "labelling": _VERSION,
                "token": self._token,
                "settings": self._settings,
                "rows": self.n_rows,
                "counts": self.counts,
                "bytes": self._file.seek(0, os.SEEK_END),
                "bad_bytes": self._bad_file.seek(0, os.SEEK_END),
                "complete": is_complete,
                "replaces": self._replaces,
            },
        )

    def complete(self, make_output: Callable[[Path, IO[bytes]], None] | None = None) -> None:
        """Put the output into its place. A process that is killed meanwhile does the rest when it is started again.

        Args:
            make_output: writes the output from the file of what was appended; None: they are the same.

        Raises:
            ConfigError: when it cannot be written, or a file has taken its name meanwhile.
        """
        if not self._is_complete:
            self._write_journal(self.journal, is_complete=True)
            self._is_complete = True
        with self._explain_os_errors():
            if self._part.exists():
                if make_output is None:
                    self._part.replace(self._whole)
                else:
                    self._whole.unlink(missing_ok=True)  # half of it, from a killed process
                    with open(self._whole, "wb", opener=_create) as whole:
                        make_output(self._part, whole)
                        whole.flush()
                        os.fsync(whole.fileno())
                    self._part.unlink()
            if self._whole.exists():
                self._place(self._whole, self.out)
            if self._has_bad and self._bad_part.exists():
                if not self._is_same(self._bad_part, self.bad):
                    self._check_bad_place()
                self._place(self._bad_part, self.bad)
            elif not self._has_bad and self._replaces and _is_bad_file(self.bad):
                self.bad.unlink()
            self.journal.unlink(missing_ok=True)
            self._remove_parts()

    @staticmethod
    def _is_same(one: Path, other: Path) -> bool:
        return other.exists() and one.samefile(other)

    def _place(self, source: Path, target: Path) -> None:
        if self._is_same(source, target):
            source.unlink()  # a process was killed when the file had both names
        elif self._replaces:
            source.replace(target)
        else:
            try:
                place_new(source, target)
            except FileExistsError:
                raise ConfigError(
                    "A file of this name has appeared while rows were labelled",
                    where=str(target),
                    next_step="move it away, and give the same command: it puts the output there",
                ) from None

    def _remove_parts(self) -> None:
        for leftover in (self._part, self._bad_part, self._whole, self._new_journal):
            leftover.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        """Return the spool."""
        return self

    def __exit__(self, kind: type[BaseException] | None = None, *_: object) -> None:
        """Let others in; what failed before the first row, such as an engine that did not start, leaves nothing."""
        if kind is not None and self.n_rows == 0 and not self._is_complete:
            self.journal.unlink(missing_ok=True)
            self._remove_parts()
            remove_empty(self._made_folders)
        with suppress(OSError):  # a full disk has been told already
            self._open_files.close()


def _create(path: str, flags: int) -> int:
    """Open a file that is not there yet."""
    return refuse_links(path, flags | os.O_CREAT | os.O_EXCL)


def _open_known(path: str, flags: int) -> int:
    """Open a file that is there."""
    return refuse_links(path, flags & ~os.O_CREAT | os.O_NONBLOCK)  # a planted pipe would wait for ever


def _is_bad_file(path: Path) -> bool:
    """Return whether a labelling has written this file of bad rows."""
    try:
        with open(path, "rb", opener=_open_known) as stream:
            return _BAD_ROW.match(stream.read(64)) is not None
    except OSError:
        return False
