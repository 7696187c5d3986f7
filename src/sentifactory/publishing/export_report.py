"""An export in a few lines, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

_MIB = 2**20


def describe_export(folder: Path, facts: Mapping[str, Any]) -> str:
    """Return what was written, how it compares with the checkpoint, and how fast it is here."""
    parity, speed, limits = facts["parity"], facts["speed"], facts["parity"]["limits"]
    interval = parity["flip_interval"]
    lines = [
        f"Exported ({facts['precision']}): {folder}, {facts['size_bytes'] / _MIB:.1f} MiB",
        f"Parity: {parity['flips']} of {parity['reviews']} labels flip ({parity['flip_share']:.2%}, 95% interval "
        f"{interval['low']:.2%} to {interval['high']:.2%}; allowed {limits['flips']:.2%}); probabilities differ by "
        f"{parity['difference_mean']:.4f} on the mean (allowed {limits['difference']:g}), "
        f"{parity['difference_p95']:.4f} at the 95th percentile, {parity['difference_max']:.4f} at most",
    ]
    if parity["accuracy"] is not None:
        lines.append(
            f"Accuracy on these reviews: {parity['accuracy']:.2%}, checkpoint {parity['accuracy_checkpoint']:.2%}"
        )
    peak = "memory unknown" if speed["peak_bytes"] is None else f"peak memory {speed['peak_bytes'] / _MIB:.0f} MiB"
    lines.append(
        f"Speed here, {speed['threads']} threads: {speed['reviews_per_s']:.1f} reviews/s; one at a time "
        f"p50 {speed['latency_p50_s'] * 1000:.1f} ms, p95 {speed['latency_p95_s'] * 1000:.1f} ms, "
        f"p99 {speed['latency_p99_s'] * 1000:.1f} ms; {peak}"
    )
    return "\n".join(lines)
