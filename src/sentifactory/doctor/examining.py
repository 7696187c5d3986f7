"""All that the doctor looks at, in the order in which a newcomer needs it."""

from __future__ import annotations

from pathlib import Path

from sentifactory.doctor.belongings import check_data, check_models, check_reports, check_runs
from sentifactory.doctor.findings import Finding
from sentifactory.doctor.machine import (
    check_gpu,
    check_hub,
    check_machine,
    check_others,
    check_training,
    check_vllm,
)


def examine(root: Path) -> list[Finding]:
    """Return everything that was found.

    Args:
        root: the folder of the checkout, or any folder that holds `data` and `saves`.
    """
    return [
        check_machine(root),
        check_gpu(),
        check_training(root),
        check_vllm(root),
        check_others(),
        check_hub(),
        check_models(root),
        check_data(root),
        check_runs(root),
        check_reports(root),
    ]
