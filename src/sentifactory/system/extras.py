"""Missing packages: error messages that name the optional extra that installs them."""

from __future__ import annotations

import re
from importlib import metadata
from importlib.util import find_spec

from sentifactory.errors import ConfigError

_REQUIREMENT = re.compile(r"([\w.-]+).*?;.*extra == ['\"]([\w-]+)['\"]")


def require_packages(*packages: str) -> None:
    """Check that packages are installed.

    Raises:
        ConfigError: naming the first that is missing.
    """
    for package in packages:
        if find_spec(package) is None:
            raise describe_missing_package(package)


def explain_missing_package(error: ModuleNotFoundError) -> ConfigError | None:
    """Return the error for a third-party package that is not installed; None for a module of our own."""
    package = (error.name or "").partition(".")[0]
    return None if package in ("", "sentifactory") else describe_missing_package(package)


def describe_missing_package(package: str) -> ConfigError:
    """Return the error for a package that is not installed, with the commands that install it."""
    extra = find_extra(package)
    step = "run `make setup`" + (f", or pip install 'sentifactory[{extra}]'" if extra else "")
    return ConfigError(f"The package {package} is not installed", next_step=step, code="package-needed")


def find_extra(package: str) -> str | None:
    """Return the extra that requires a package; None if there is none, or SentiFactory itself is not installed.

    Example:
        >>> find_extra("prometheus_client"), find_extra("no_such_package")
        ('serve', None)
    """
    try:
        requirements = metadata.requires("sentifactory") or []
    except metadata.PackageNotFoundError:
        return None
    found = (match for line in requirements if (match := _REQUIREMENT.match(line)))
    return next((match[2] for match in found if match[1].replace("-", "_").lower() == package.lower()), None)
