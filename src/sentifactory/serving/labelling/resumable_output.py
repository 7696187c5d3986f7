"""The growing output of a long labelling, from which a killed run resumes.

Next to OUT are two files with random names, the rows and the bad rows so far, and OUT.journal.json, which holds these
names, the number of input rows done, and the lengths of both files at that time. When a run resumes, whatever a killed
process wrote beyond these lengths is cut off and predicted again: no row is lost or written twice. The rows may be in
another form than the output, which is then written from them at the end; a note in the journal says what was decided.
Files that no labelling made are neither written nor removed, and no link is followed.
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

from sentifactory.errors import ConfigError
from sentifactory.system.atomic import make_parents, place_new, remove_empty, write_json
from sentifactory.system.file_lock import lock_file, refuse_links
from sentifactory.system.json_text import parse_json

_VERSION = 1
_TOKEN = re.compile(r"[0-9a-f]{32}")
_FIELDS = {
    "settings": dict, "rows": int, "counts": dict, "bytes": int, "bad_bytes": int, "complete": bool, "replaces": bool,
}  # fmt: skip
_BAD_ROW = re.compile(rb'\{"line": \d+, "reason": "')  # how every file of bad rows begins
_MOVE_AWAY = "choose another output, or move this file away"


def name_bad_file(out: Path) -> Path:
    """Return the file for rows that cannot be labelled."""
    return out.with_name(out.name + ".bad.jsonl")


def name_journal(out: Path) -> Path:
    """Return the journal of an unfinished labelling."""
    return out.with_name(out.name + ".journal.json")


def read_journal(path: Path) -> dict[str, Any] | None:
    """Return the journal of an unfinished labelling; None where there is none.

    Raises:
        ConfigError: when it was not written by a labelling of this version.
    """
    try:
        with open(path, encoding="utf-8", opener=_open_known) as stream:
            found = parse_json(stream.read())
        if not isinstance(found, dict) or found.get("labelling") != _VERSION:
            raise ValueError("it was not written by a labelling of this version")
        if not _is_valid(found):
            raise ValueError("it was modified")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"The journal cannot be read ({getattr(error, 'strerror', None) or error})",
            where=str(path),
            next_step=_MOVE_AWAY,
        ) from error
    return found


class ResumableOutput:
    """Two growing files and their journal; use it in a `with` block, which locks them against other processes.

    Args:
        out: the finished output.
        settings: what the rows depend on; a run resumes with the same settings only.
        head: first bytes of the output.
        overwrite: replace a finished output, and discard an unfinished one.

    Raises:
        ConfigError: when the output cannot be written, exists, is unfinished with other settings, is locked by another
            process, or has the name of a file that no labelling made.
    """

    def __init__(self, out: Path, settings: dict[str, Any], head: bytes, *, overwrite: bool = False) -> None:
        self.out = out
        self.bad = name_bad_file(out)
        self.journal = name_journal(out)
        self._settings = json.loads(json.dumps(settings))  # as they are read from the journal
        self._replaces = overwrite
        self._is_complete = False
        self._has_bad = False
        self.n_rows = 0
        self.counts: dict[str, int] = {}
        self.note: dict[str, Any] | None = None
        self._made_folders: list[Path] = []
        self._open_files = ExitStack()
        with self._explain_os_errors():
            if out.exists() and not out.is_file():
                raise ConfigError("The output is not a file", where=str(out), expected="a file that may be replaced")
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
                next_step="choose another folder, or free some disk and check permissions; then run the same command",
            ) from error

    def _name_parts(self, token: str) -> None:
        self._token = token
        self._part, self._bad_part, self._whole, self._new_journal = (
            self.out.with_name(f".sentifactory-{token}.{kind}.part") for kind in ("rows", "bad", "whole", "journal")
        )

    def _resume_or_begin(self, head: bytes, overwrite: bool) -> None:
        found = read_journal(self.journal)
        if found is None:
            self._begin(head)
            return
        token = found["token"]
        self._name_parts(token)
        has_part = self._open_parts(is_complete=found["complete"])
        found = read_journal(self.journal)  # again, now that no other process writes it
        if found is None or found["token"] != token:
            self._open_files.close()  # another process finished it in the meantime
            self._resume_or_begin(head, overwrite)
        elif overwrite or (found["rows"] == 0 and found["settings"] != self._settings):
            # A labelling that was killed before its first row is not worth a question.
            self._check_bad_file()
            self.journal.unlink()
            self._remove_parts()
            self._open_files.close()
            self._begin(head)
        else:
            self._resume(found, has_part)

    def _begin(self, head: bytes) -> None:
        """Create the files. The journal appears whole and replaces none, so that one of two processes starts."""
        self._name_parts(secrets.token_hex(16))
        if os.path.lexists(self.out) and not self._replaces:
            raise ConfigError(
                "The output exists already",
                where=str(self.out),
                next_step="choose another name",
            )
        self._check_bad_file()
        try:
            self._open_both(_create)
            self._lock()
            self._file.write(head)
            self._file.flush()
            self._write_journal(self._new_journal, is_complete=False)
            try:
                place_new(self._new_journal, self.journal)
            except FileExistsError:
                raise self._explain_locked() from None
        except BaseException:
            self._remove_parts()
            raise

    def _check_bad_file(self) -> None:
        """Raise a ConfigError where the file for bad rows exists and may not be replaced."""
        if not os.path.lexists(self.bad):
            return
        is_ours = _is_bad_file(self.bad)
        if not is_ours or not self._replaces:
            raise ConfigError(
                "The file for rows that cannot be labelled exists already"
                if is_ours
                else "Another file has the name of the file for rows that cannot be labelled",
                where=str(self.bad),
                next_step=_MOVE_AWAY,
            )

    def _open_parts(self, *, is_complete: bool) -> bool:
        """Open and lock the files of the journal; return False where a finished run has moved them already.

        Raises:
            ConfigError: when they are missing, not plain files, or locked by another process.
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
                raise self._explain_lost("is not a plain file, or has another name as well")
        self._lock()
        return True

    def _open_both(self, opener: Callable[[str, int], int]) -> None:
        self._file = self._open_files.enter_context(open(self._part, "ab", opener=opener))  # noqa: SIM115 - the stack closes it
        self._bad_file = self._open_files.enter_context(open(self._bad_part, "ab", opener=opener))  # noqa: SIM115 - the stack closes it

    def _lock(self) -> None:
        try:
            lock_file(self._file, self.out)
        except BlockingIOError:
            raise self._explain_locked() from None

    def _explain_locked(self) -> ConfigError:
        return ConfigError(
            "Another process is labelling into this file", where=str(self.out), next_step="wait until it has finished"
        )

    def _explain_lost(self, how: str) -> ConfigError:
        return ConfigError(f"The unfinished output {how}", where=str(self._part), next_step=_MOVE_AWAY)

    def _resume(self, found: dict[str, Any], has_part: bool) -> None:
        if found["settings"] != self._settings:
            names = {*self._settings, *found["settings"]}
            changed = sorted(name for name in names if found["settings"].get(name) != self._settings.get(name))
            raise ConfigError(
                f"There is an unfinished labelling, and these settings differ from it: {', '.join(changed)}",
                where=str(self.journal),
                expected="the input, model, task and options that it was started with",
                next_step="resume with those, or choose another output",
            )
        self._is_complete, self._has_bad = found["complete"], found["bad_bytes"] > 0
        self._replaces = found["replaces"]  # as requested when it was started
        if not self._is_complete:
            if not has_part:
                raise self._explain_lost("is missing")
            for file, length in ((self._file, found["bytes"]), (self._bad_file, found["bad_bytes"])):
                if file.seek(0, os.SEEK_END) < length:
                    raise self._explain_lost("is shorter than its journal says")
            for file, length in ((self._file, found["bytes"]), (self._bad_file, found["bad_bytes"])):
                file.truncate(length)  # cuts off what was appended after the journal was written
        self.n_rows, self.counts, self.note = found["rows"], found["counts"], found.get("note")

    def append(self, rows: bytes, bad_rows: bytes, n_rows: int, counts: dict[str, int]) -> None:
        """Append rows durably.

        Args:
            rows: bytes for the output.
            bad_rows: bytes for the file of bad rows.
            n_rows: number of input rows in both.
            counts: of these rows; added to the counts so far.

        Raises:
            ConfigError: when the files cannot be written; the same command resumes.
        """
        with self._explain_os_errors():
            for file, content in ((self._file, rows), (self._bad_file, bad_rows)):
                if not content:
                    continue
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
                **({} if self.note is None else {"note": self.note}),
            },
        )

    @property
    def has_rows(self) -> bool:
        """Whether the appended rows are there: they go once the output has been written from them."""
        return self._part.exists()

    def read_rows(self) -> bytes:
        """Return the appended bytes.

        Raises:
            ConfigError: when they cannot be read.
        """
        with self._explain_os_errors(), open(self._part, "rb", opener=_open_known) as part:
            return part.read()

    def keep_note(self, note: dict[str, Any]) -> None:
        """Write a note (JSON values) into the journal, for a run that resumes.

        Raises:
            ConfigError: when the journal cannot be written.
        """
        self.note = note
        self._write_journal(self.journal, is_complete=self._is_complete)

    def complete(self, make_output: Callable[[IO[bytes], IO[bytes]], None] | None = None) -> None:
        """Move the output to its name. After a kill, the same command completes the rest.

        Args:
            make_output: writes the output from the appended bytes; None: they are the same.

        Raises:
            ConfigError: when it cannot be written, or a file of its name has appeared.
        """
        if not self._is_complete:
            self._write_journal(self.journal, is_complete=True)
            self._is_complete = True
        with self._explain_os_errors():
            if self._part.exists():
                if make_output is None:
                    self._part.replace(self._whole)
                else:
                    self._whole.unlink(missing_ok=True)  # incomplete, from a killed process
                    with (
                        open(self._whole, "wb", opener=_create) as whole,
                        open(self._part, "rb", opener=_open_known) as part,
                    ):
                        make_output(part, whole)
                        whole.flush()
                        os.fsync(whole.fileno())
                    self._part.unlink()
            if self._whole.exists():
                self._place(self._whole, self.out)
            if self._has_bad and self._bad_part.exists():
                if not self._is_same(self._bad_part, self.bad):
                    self._check_bad_file()
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
            source.unlink()  # a process was killed while the file had both names
        elif self._replaces:
            source.replace(target)
        else:
            try:
                place_new(source, target)
            except FileExistsError:
                raise ConfigError(
                    "A file of this name appeared while rows were labelled",
                    where=str(target),
                    next_step="move it away, and run the same command: it puts the output there",
                ) from None

    def _remove_parts(self) -> None:
        for leftover in (self._part, self._bad_part, self._whole, self._new_journal):
            leftover.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        """Return the output."""
        return self

    def __exit__(self, kind: type[BaseException] | None = None, *_: object) -> None:
        """Release the files; a run that fails before its first row, such as at the engine's start, leaves none."""
        if kind is not None and self.n_rows == 0 and not self._is_complete:
            self.journal.unlink(missing_ok=True)
            self._remove_parts()
            remove_empty(self._made_folders)
        with suppress(OSError):  # a full disk has been reported already
            self._open_files.close()


def _is_valid(journal: dict[str, Any]) -> bool:
    """Return whether a journal has the right fields, counts every row once, and has no negative number."""
    if not all(type(journal.get(name)) is kind for name, kind in _FIELDS.items()):
        return False
    counts = [*journal["counts"].values()]
    if not isinstance(journal.get("note"), dict | None):
        return False
    numbers = [journal["rows"], journal["bytes"], journal["bad_bytes"], *counts]
    are_counts = all(type(number) is int and number >= 0 for number in numbers)
    return are_counts and sum(counts) == journal["rows"] and bool(_TOKEN.fullmatch(str(journal.get("token"))))


def _create(path: str, flags: int) -> int:
    """Create a file that does not exist."""
    return refuse_links(path, flags | os.O_CREAT | os.O_EXCL)


def _open_known(path: str, flags: int) -> int:
    """Open a file that exists."""
    return refuse_links(path, flags & ~os.O_CREAT | os.O_NONBLOCK)  # opening a named pipe would block forever


def _is_bad_file(path: Path) -> bool:
    """Return whether this is a file of bad rows from a labelling."""
    try:
        with open(path, "rb", opener=_open_known) as stream:
            return _BAD_ROW.match(stream.read(64)) is not None
    except OSError:
        return False
