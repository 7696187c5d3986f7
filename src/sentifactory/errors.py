"""The errors a user meets: each says what is wrong, where, what was expected and what to do next.

Every entry point (`cli.run_guarded`) turns a `SentiFactoryError` into those sentences on stderr and exit code 2
(`EXIT_BAD_INPUT`), or 3 (`EXIT_LEAK`) where test reviews stand among the training reviews.
Anything else that escapes is a defect of ours: one sentence with the place of a log file, which holds the traceback,
and exit code 70 (`EXIT_DEFECT`). Ctrl-C ends with 130, and a reader of the output that goes away, as `head` does, with
141 and no words: as the shell has it for any program.
"""

from __future__ import annotations

EXIT_BAD_INPUT = 2
EXIT_LEAK = 3
EXIT_DEFECT = 70
EXIT_INTERRUPTED = 130
EXIT_READER_GONE = 141


class SentiFactoryError(Exception):
    """Base of the errors that a user can mend.

    Args:
        what: what is wrong, as a sentence without a final stop, with the bad value in it.
        where: the file and line, the YAML key or the address at fault.
        expected: what would have been right.
        next_step: the command or change that mends it.
    """

    exit_code = EXIT_BAD_INPUT

    def __init__(self, what: str, *, where: str = "", expected: str = "", next_step: str = "") -> None:
        self.what = what
        self.where = where
        self.expected = expected
        self.next_step = next_step
        super().__init__(self.describe())

    def describe(self) -> str:
        """Return the sentences that are shown to the user."""
        parts = [f"{self.where}: {self.what}." if self.where else f"{self.what}."]
        if self.expected:
            parts.append(f"Expected: {self.expected}.")
        if self.next_step:
            parts.append(f"Next: {self.next_step}.")
        return " ".join(parts)


class DataError(SentiFactoryError):
    """A file of reviews, or a row in it, cannot be used."""


class LeakError(DataError):
    """Reviews to test on stand among those to train on."""

    exit_code = EXIT_LEAK


class ConfigError(SentiFactoryError):
    """A YAML file, an option or the machine's set-up cannot be used."""


class EngineError(SentiFactoryError):
    """A model cannot be loaded, or the process that runs it does not start or does not answer."""
