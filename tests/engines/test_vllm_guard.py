"""Without its key a vLLM of our own says nothing but that it lives, on whatever route."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sentifactory.engines.vllm.vllm_guard import KeyForEveryRoute

KEY = "the key of this server"


async def serve(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def ask(monkeypatch: pytest.MonkeyPatch, path: str, *given: str, method: str = "POST", kind: str = "http") -> Any:
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"authorization", value.encode()) for value in given]
    scope = {"type": kind, "method": method, "path": path, "headers": headers}
    asyncio.run(KeyForEveryRoute(serve)(scope, None, send))
    return sent[0].get("status", sent[0]["type"])


@pytest.mark.parametrize("path", ["/invocations", "/tokenize", "/classify", "/metrics", "/v1/models", "//v1/models"])
def test_every_route_asks_for_the_key(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    assert ask(monkeypatch, path, f"Bearer {KEY}") == 200
    for given in ([], ["Bearer wrong"], [KEY], [f"Bearer {KEY}", "Bearer wrong"]):
        assert ask(monkeypatch, path, *given) == 401
    assert ask(monkeypatch, path, method="OPTIONS") == 401


def test_that_it_lives_is_told_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask(monkeypatch, "/health") == 200
    assert ask(monkeypatch, "/health", kind="websocket") == "websocket.close"
