"""`sentifactory label --engine ray`: a real Ray on this machine, two replicas, rows in order."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from fake_openai_server import Behaviour, serve_fake
from typer.testing import CliRunner

from sentifactory.cli import build_app
from sentifactory.errors import EngineError
from sentifactory.serving.labelling import ray_labelling
from sentifactory.serving.labelling.label_options import LabelRequest, run_labelling

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow


def test_two_replicas_of_two_servers_label_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray_labelling, "BATCH_TEXTS", 20)
    texts = [f"第{number}条" if number % 40 else " " for number in range(1, 121)]
    source = tmp_path / "in.csv"
    source.write_text("text\n" + "".join(f"{text}\n" for text in texts), encoding="utf-8")
    kept = [text for text in texts if text.strip()]
    first, second = Behaviour(), Behaviour()
    with serve_fake(first) as one, serve_fake(second) as two:
        words = ["label", str(source), "--model", "base", "--vllm_url", one]
        single = CliRunner().invoke(build_app(), [*words[:2], str(tmp_path / "single.csv"), *words[2:], "--json"])
        assert single.exit_code == 0, single.output
        n_single = len(first.bodies)
        words += ["--vllm_url", two, "--engine", "ray"]
        done = CliRunner().invoke(build_app(), [*words[:2], str(tmp_path / "ray.csv"), *words[2:], "--json"])
        assert done.exit_code == 0, f"{done.output} {done.exception}"
    assert "\tINFO " not in done.stderr
    assert "enable_progress_bars" not in done.stderr
    summary = json.loads(done.stdout)
    assert (summary["labelled"], summary["counts"]["bad_rows"]) == (len(kept), 120 - len(kept))
    rows = list(csv.DictReader((tmp_path / "ray.csv").open(encoding="utf-8")))
    assert [row["text"] for row in rows] == kept
    assert rows == list(csv.DictReader((tmp_path / "single.csv").open(encoding="utf-8"))), "as one engine labels them"
    assert len(first.bodies) > n_single
    # How the blocks are shared out is Ray's affair, and on a busy machine one replica may take nearly all of them.
    assert second.bodies, "each replica has its own server"
    names = {path.name for path in tmp_path.iterdir() if "cache" not in path.name}
    assert names == {"in.csv", *(f"{name}.csv{end}" for name in ("single", "ray") for end in ("", ".bad.jsonl"))}
    assert not ray.is_initialized()


LOGGED = """
import logging
from sentifactory.serving.labelling.ray_labelling import quiet_ray_data
quiet_ray_data()
for module in ("execution.streaming_executor", "progress"):
    logger = logging.getLogger(f"ray.data._internal.{module}")
    logger.info("a plan")
    logger.error("an error")
logging.getLogger("ray.data._internal.progress").warning("no bars")
logging.getLogger("ray.data._internal.execution").warning("too few CPUs")
"""


def test_only_noise_of_ray_data_is_kept_from_stderr() -> None:
    # A process of its own: the handler of Ray Data writes to the stderr of its first import.
    done = subprocess.run([sys.executable, "-c", LOGGED], capture_output=True, text=True, check=True)
    shown = [line.split(" -- ")[-1] for line in done.stderr.splitlines()]
    assert shown == ["an error", "an error", "too few CPUs"]


def test_the_engine_of_the_replicas_is_chosen_by_the_command(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine of a cluster has environment variables and installations of its own."""
    kinds: list[str | None] = []

    def note(replicas: ray_labelling.Replicas, out: Path) -> None:
        kinds.append(replicas.choice.kind)
        raise EngineError("noted")

    monkeypatch.setattr(ray_labelling, "RayRowPredictor", note)
    monkeypatch.setenv("SENTIFACTORY_VLLM", "none")
    (tmp_path / "in.csv").write_text("text\n很好\n", encoding="utf-8")
    request = LabelRequest(str(tmp_path / "in.csv"), str(tmp_path / "out.csv"), str(model_folder), engine="ray")
    with pytest.raises(EngineError, match="noted"):
        run_labelling(request)
    assert kinds == ["transformers"]
