"""Settings of the page: address, password, limits, and whether training is available."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, field, replace

from sentifactory.errors import ConfigError
from sentifactory.serving.service_settings import Limits
from sentifactory.system.network_settings import LOOPBACK

PASSWORD_VARIABLE = "SENTIFACTORY_UI_PASSWORD"  # noqa: S105 - the name of a variable
USER_NAME = "sentifactory"
MIN_PASSWORD_CHARS = 12
MAX_BODY_BYTES = 4_000_000  # 200 reviews of 2,000 characters, each of them escaped, are 2.4 million
BODY_LIMITS = Limits(body_bytes=MAX_BODY_BYTES, body_s=60.0)  # of all bodies but uploads
UPLOAD_S = 600.0  # for one file
# Fewer than for a service, since gradio polls twenty times a second for every waiting browser.
CONNECTION_LIMITS = Limits(body_s=UPLOAD_S, connections=1024)


@dataclass(frozen=True, slots=True)
class PageAccess:
    """Address of the page, and who may use it.

    Attributes:
        host: address to listen on; a loopback one is reached from this machine only.
        port: TCP port; 0 takes a free one.
        is_shared: gradio creates a public address.
        is_tunnelled: the page is behind a tunnel or a proxy of the user.
        allow_remote_training: remote users may upload and train.
        password: required before anything is shown, or None.
        is_password_made: nobody knows the password unless it is shown.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    is_shared: bool = False
    is_tunnelled: bool = False
    allow_remote_training: bool = False
    password: str | None = field(default=None, repr=False)
    is_password_made: bool = False

    def with_password(self) -> PageAccess:
        """Return the same with a password of its own where one is required and missing."""
        if not self.is_remote or self.password is not None:
            return self
        return replace(self, password=secrets.token_urlsafe(MIN_PASSWORD_CHARS), is_password_made=True)

    @property
    def is_remote(self) -> bool:
        """Whether users of other machines may reach it."""
        return self.is_shared or self.is_tunnelled or self.host not in LOOPBACK

    @property
    def has_training(self) -> bool:
        """Whether the page offers training."""
        return self.allow_remote_training or not self.is_remote

    def check(self) -> None:
        """Raise a ConfigError where other machines reach the page and there is no password."""
        if self.is_remote and self.password is None:
            raise ConfigError(
                "The page would be open to everybody who finds its address",
                where="--share, --tunnel or --host",
                expected=f"a password in the environment variable {PASSWORD_VARIABLE}",
                next_step=f"export {PASSWORD_VARIABLE}=$(openssl rand -hex 16), and run the same command",
            )


def read_password() -> str | None:
    """Return the password from the environment, or None where the variable is not set.

    Raises:
        ConfigError: when it is too short. The message does not repeat it.
    """
    password = os.environ.get(PASSWORD_VARIABLE)
    if password is not None and len(password) < MIN_PASSWORD_CHARS:
        raise ConfigError(
            f"The password in {PASSWORD_VARIABLE} is too short",
            expected=f"{MIN_PASSWORD_CHARS} characters or more",
            next_step=f"export {PASSWORD_VARIABLE}=$(openssl rand -hex 16), or unset it",
        )
    return password
