"""Asks a service with clients that are not ours, in the environment of vLLM; see `test_typed_decisions`.

Arguments: address, key. The questions come as JSON on the standard input; the last line of the standard output holds
the answers. vLLM's own models build the requests to `/v1/systemone` and check the answers; OpenAI's client asks
`/v1/decisions`.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import httpx
import openai


def ask_system_one(address: str, key: str, body: dict[str, Any]) -> dict[str, Any]:
    from vllm.entrypoints.generate.structured_decisions.protocol import (
        StructuredDecisionRequest,
        StructuredDecisionResponse,
    )

    request = StructuredDecisionRequest.model_validate(body).model_dump()
    headers = {"Authorization": f"Bearer {key}"}
    response = httpx.post(f"{address}/v1/systemone", json=request, headers=headers, trust_env=False)
    if response.status_code != httpx.codes.OK:
        return {"status": response.status_code, **response.json()}
    answer = StructuredDecisionResponse.model_validate(response.json())
    return {"status": response.status_code, "extra": answer.model_extra, **answer.model_dump()}


def ask_decisions(address: str, key: str, body: dict[str, Any]) -> dict[str, Any]:
    client = openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0)
    try:
        decision = client.decisions.create(**body)
    except openai.APIStatusError as error:
        return {"status": error.status_code, "error": error.body}
    checked = type(decision).model_validate(decision.model_dump(), strict=True)
    return {"status": 200, "types": [type(one).__name__ for one in checked.answers], **checked.model_dump()}


def main() -> None:
    address, key = sys.argv[1:]
    asks = {"systemone": ask_system_one, "decisions": ask_decisions}
    print(json.dumps([asks[route](address, key, body) for route, body in json.load(sys.stdin)]))


if __name__ == "__main__":
    main()
