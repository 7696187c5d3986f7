"""Requests made from the OpenAPI description, right ones and wrong ones: none may break the service."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from live_service import build_service, serve_live

from sentifactory.serving.service_settings import Access, Limits
from sentifactory.task.task import BINARY_SENTIMENT
from tools.service_bench.openapi_check import check_schema
from tools.service_bench.scripted_engine import ScriptedEngine

CASES = 500


@pytest.fixture
def address() -> Iterator[str]:
    service = build_service(ScriptedEngine(BINARY_SENTIMENT), Limits())
    with serve_live(service, Access()) as address:
        yield address


@pytest.mark.slow
def test_no_request_from_the_description_breaks_the_service(address: str) -> None:
    found = check_schema(address, CASES)
    assert found["cases"] >= CASES
    assert found["failures"] == []
    assert not [status for status in found["statuses"] if int(status) >= 500]
    assert {"200", "400", "422"} <= set(found["statuses"]), "right and wrong requests were made"
