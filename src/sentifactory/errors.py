"""The errors that a user meets: each says what is wrong, where, what was expected and what to do next.

`cli.run_guarded` prints a `SentiFactoryError` on stderr and exits with 2 (`EXIT_BAD_INPUT`), or with 3 (`EXIT_LEAK`)
when test reviews are among the training reviews. Every other exception is a defect of SentiFactory: one sentence that
names a log file with the traceback, and exit code 70 (`EXIT_DEFECT`). Ctrl-C exits with 130, SIGTERM with 143
and a closed output pipe with 141, as the shell reports them for any program.
"""

from __future__ import annotations

import re

from sentifactory.redaction import mask_text

EXIT_BAD_INPUT = 2
EXIT_LEAK = 3
EXIT_DEFECT = 70
EXIT_INTERRUPTED = 130
EXIT_READER_GONE = 141
# Names of thousands of characters are given to programs by accident, and are shown in part.
_SHOWN_CHARS = 200
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_ENDLESS_WORD = re.compile(rf"\S{{{5 * _SHOWN_CHARS},}}")


def show_controls(text: str, keeps: str = "") -> str:
    r"""Return a text with escapes for what breaks a line, turns the direction of writing, or commands a terminal.

    Example:
        >>> print(show_controls("a" + chr(10) + chr(27) + "[31mb"))
        a\n\x1b[31mb
    """
    return _CONTROL.sub(lambda found: found[0] if found[0] in keeps else repr(found[0])[1:-1], text)


class SentiFactoryError(Exception):
    """Base class of the errors that a user can fix.

    Args:
        what: what is wrong, as a sentence without the final full stop, including the bad value.
        where: the file and line, the YAML key or the address of the problem.
        expected: what would have been right.
        next_step: the command or change that fixes it.
        code: names this one error; without it the error has the code of its class.

    Attributes:
        code: stable across changes of wording. Programs and tests compare it; it is not shown to users.
    """

    exit_code = EXIT_BAD_INPUT
    code = "error"

    def __init__(
        self, what: str, *, where: str = "", expected: str = "", next_step: str = "", code: str | None = None
    ) -> None:
        # Addresses and settings may hold a password, and whoever catches this may write it down. Names of files, words
        # of their rows and words of libraries may hold control characters; a next step may end with lines of a log.
        what, where, expected, next_step = map(mask_text, (what, where, expected, next_step))
        self.what, self.expected = (show_controls(re.sub(r"\s*\n\s*", " ", words)) for words in (what, expected))
        self.where = show_controls(where)
        self.next_step = show_controls(next_step, keeps="\n")
        if code is not None:
            self.code = code
        super().__init__(self.describe())

    def describe(self) -> str:
        """Return the sentences that are shown to the user, each word of a length that can be read."""
        parts = [f"{self.where}: {self.what}." if self.where else f"{self.what}."]
        if self.expected:
            parts.append(f"Expected: {self.expected}.")
        if self.next_step:
            parts.append(f"Next: {self.next_step}.")
        return _ENDLESS_WORD.sub(lambda word: f"{word[0][:_SHOWN_CHARS]}…", " ".join(parts))


class DataError(SentiFactoryError):
    """A file of reviews, or a row in it, cannot be used."""

    code = "data"


class LeakError(DataError):
    """Test reviews are among the training reviews."""

    exit_code = EXIT_LEAK
    code = "leak"


class ConfigError(SentiFactoryError):
    """A YAML file, an option or the set-up of the machine cannot be used."""

    code = "config"


class EngineError(SentiFactoryError):
    """A model cannot be loaded, or the process that runs it does not start or does not answer."""

    code = "engine"
