"""Calls the actions of the page as its scripts in the browser do: by gradio's queue."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import httpx


def find_action(config: dict[str, Any], elem_id: str, event: str = "click") -> dict[str, Any]:
    """Return the action of a control by its event, as gradio's configuration of the page describes it.

    Args:
        config: from `/config`.
        elem_id: of the control.
        event: its name.
    """
    (control,) = (one["id"] for one in config["components"] if one["props"].get("elem_id") == elem_id)
    return next(
        one for one in config["dependencies"] if [control, event] in map(list, one["targets"]) and one["backend_fn"]
    )


def ask_action(client: httpx.Client, elem_id: str, data: Sequence[Any]) -> httpx.Response:
    """Ask for the action of a button, and return the answer of the queue, whose request names the session."""
    action = find_action(client.get("/config").json(), elem_id)
    question = {"data": list(data), "fn_index": action["id"], "session_hash": secrets.token_hex(8)}
    return client.post("/gradio_api/queue/join", json=question)


def call_action(client: httpx.Client, elem_id: str, data: Sequence[Any]) -> str:
    """Call the action of a button, and return all that the queue tells until it has ended."""
    action, session = find_action(client.get("/config").json(), elem_id), secrets.token_hex(8)
    question = {"data": list(data), "fn_index": action["id"], "session_hash": session}
    client.post("/gradio_api/queue/join", json=question).raise_for_status()
    return client.get(f"/gradio_api/queue/data?session_hash={session}").text
