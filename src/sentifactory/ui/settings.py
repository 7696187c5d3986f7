"""From where and by whom the page may be used, and what it then offers."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from sentifactory.errors import ConfigError
from sentifactory.serving.settings import LOOPBACK

PASSWORD_VARIABLE = "SENTIFACTORY_UI_PASSWORD"  # noqa: S105 - the name of a variable
USER_NAME = "sentifactory"
LEAST_PASSWORD_CHARS = 12


@dataclass(frozen=True, slots=True)
class PageAccess:
    """How the page is reached.

    Attributes:
        host: address to listen on; only this machine reaches a loopback one.
        port: TCP port; 0 takes a free one.
        is_shared: gradio makes a public address for it.
        is_tunnelled: a tunnel or a proxy of the user's leads to it.
        allow_remote_training: whoever comes from elsewhere may upload and train.
        password: asked for before anything is shown, or None.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    is_shared: bool = False
    is_tunnelled: bool = False
    allow_remote_training: bool = False
    password: str | None = field(default=None, repr=False)

    @property
    def is_remote(self) -> bool:
        """Whether others than the users of this machine may reach it."""
        return self.is_shared or self.is_tunnelled or self.host not in LOOPBACK

    @property
    def has_training(self) -> bool:
        """Whether the page offers training."""
        return self.allow_remote_training or not self.is_remote

    def check(self) -> None:
        """Refuse to be reached from elsewhere without a password.

        Raises:
            ConfigError: saying which variable to set.
        """
        if self.is_remote and self.password is None:
            raise ConfigError(
                "The page would be open to everybody who finds its address",
                where="--share, --tunnel or --host",
                expected=f"a password in the environment variable {PASSWORD_VARIABLE}",
                next_step=f"export {PASSWORD_VARIABLE}=$(openssl rand -hex 16), and run the same command",
            )


def read_password() -> str | None:
    """Return the password that the environment names, or None where the variable is not set.

    Raises:
        ConfigError: when it is too short to withstand guessing. The message does not repeat it.
    """
    password = os.environ.get(PASSWORD_VARIABLE)
    if password is not None and len(password) < LEAST_PASSWORD_CHARS:
        raise ConfigError(
            f"The password in {PASSWORD_VARIABLE} is too short",
            expected=f"{LEAST_PASSWORD_CHARS} characters or more",
            next_step=f"export {PASSWORD_VARIABLE}=$(openssl rand -hex 16), or unset it",
        )
    return password
