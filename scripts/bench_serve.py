"""Measures the services under load, overload and faults, and labelling that is killed; writes saves/bench/serve.md."""

from __future__ import annotations

from sentifactory.cli import run_script
from sentifactory.serving.commands import bench_serve

if __name__ == "__main__":
    run_script(bench_serve)
