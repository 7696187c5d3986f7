"""Tests a service against its OpenAPI description with generated valid and invalid requests.

Schemathesis generates the requests and checks each response: no 5xx, only documented statuses and bodies, valid
requests accepted and invalid ones refused.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

LISTED = 5
REFUSALS = [400, 401, 404, 405, 413, 415, 422]  # Schemathesis does not count 413 as a refusal by default


def check_schema(address: str, n_cases: int) -> dict[str, Any]:
    """Send at least `n_cases` requests and return their number, their statuses and the failures.

    Args:
        address: the address of a running service, without a final slash.
        n_cases: the total number of requests; nearly all go to /predict.
    """
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded
    from schemathesis import GenerationMode

    checks = {"negative_data_rejection": {"expected-statuses": REFUSALS}}
    config = schemathesis.Config.from_dict({"checks": checks})
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json", config=config)
    statuses: Counter[str] = Counter()
    failures: list[str] = []
    operations = {one.path: one for one in (result.ok() for result in schema.get_all_operations())}
    operation = operations["/predict"]

    def send(case: Any) -> None:
        response = case.call(base_url=address)
        statuses[str(response.status_code)] += 1
        try:
            case.validate_response(response)
        except (AssertionError, BaseExceptionGroup) as error:
            causes = error.exceptions if isinstance(error, BaseExceptionGroup) else [error]
            words = "; ".join(str(cause)[:300] for cause in causes)
            failures.append(f"{response.status_code} to {str(case.body)[:200]!r}: {words}")

    for path in operations.keys() - {"/predict"}:
        send(operations[path].Case())
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
        before = sum(statuses.values())
        round_number = 0
        while (missing := n_cases // 2 + 1 - (sum(statuses.values()) - before)) > 0:
            check = settings(
                max_examples=missing,
                deadline=None,
                database=None,
                phases=(Phase.generate,),
                suppress_health_check=list(HealthCheck),
            )
            seeded(round_number)(check(given(case=operation.as_strategy(generation_mode=mode))(send)))()
            round_number += 1
    return {"cases": sum(statuses.values()), "statuses": dict(sorted(statuses.items())), "failures": failures[:LISTED]}
