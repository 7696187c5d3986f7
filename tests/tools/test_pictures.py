"""The pictures of the README are taken from what the demo left."""

from __future__ import annotations

from pathlib import Path

import pytest

from sentifactory.errors import ConfigError
from tools.docs.pictures import take_pictures


def test_without_a_demo_nothing_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "page.png").write_bytes(b"the last one")
    with pytest.raises(ConfigError):
        take_pictures(tmp_path / "report.html", tmp_path, tmp_path)
    assert (tmp_path / "page.png").read_bytes() == b"the last one"
