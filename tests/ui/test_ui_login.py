"""A page that others can reach asks for its password, shows nothing without it, and has no Train tab."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from sentifactory.ui.page_settings import PASSWORD_VARIABLE, USER_NAME

PASSWORD = "correct-horse-battery"


@pytest.mark.slow
def test_nothing_is_told_before_the_password(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sentifactory.cli", "ui", "--port", "0", "--tunnel", "--workspace", "space"]
    environment = {**os.environ, PASSWORD_VARIABLE: PASSWORD}
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environment)
    try:
        assert server.stdout is not None
        found = re.search(r"http://\S+", server.stdout.readline())
        assert found, "the page did not start"
        with httpx.Client(base_url=found[0], trust_env=False, timeout=60) as client:
            for place in ("/gradio_api/info", "/config", "/gradio_api/upload_progress?upload_id=x"):
                assert client.get(place).status_code == 401, place
            refused = client.post("/gradio_api/queue/join", json={"data": ["好", "", ""], "fn_index": 0})
            assert refused.status_code == 401
            front = client.get("/").text
            assert "Models" not in front
            for user, password in ((USER_NAME, PASSWORD[:-1]), ("admin", PASSWORD), (USER_NAME, "")):
                answer = client.post("/login", data={"username": user, "password": password})
                assert answer.status_code in (400, 422), (user, password)
                assert client.get("/config").status_code == 401
            assert client.post("/login", data={"username": USER_NAME, "password": PASSWORD}).status_code == 200
            config = client.get("/config")
            assert config.status_code == 200
            assert "Predict" in config.text
            assert client.get("/gradio_api/info").json() == {"named_endpoints": {}, "unnamed_endpoints": {}}
    finally:
        server.terminate()
        said = server.communicate(timeout=60)[0]
    assert PASSWORD not in said
