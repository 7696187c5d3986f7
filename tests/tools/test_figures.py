"""Commands write figures into the guides: parts between marks, from dry runs, reports and the code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sentifactory.cli import build_app
from sentifactory.errors import ConfigError
from sentifactory.metrics.power import compute_power
from tools.benches.train_steps import MODES
from tools.benches.tuning_methods_report import METHODS
from tools.docs.evaluation_parts import write_power_part
from tools.docs.figures import read_report, write_figures
from tools.docs.memory_part import RECIPES, find_gpu, write_memory_part
from tools.docs.page_parts import replace_part
from tools.docs.training_parts import METHOD_NAMES, SPEED_NAMES
from tools.docs.writing import build_parts, write_pages

GIB = 1 << 30
PAGE = "before\n<!-- begin {0} (written by: x) -->\nold\n<!-- end {0} -->\nafter\n"


def make_estimate(recipe: str, peak_gib: float) -> dict[str, Any]:
    memory = {
        "weights": 3 * GIB, "gradients": GIB, "optimizer": 2 * GIB, "activations": GIB, "logits": 0,
        "process": GIB, "peak": int((peak_gib + 1) * GIB),
    }  # fmt: skip
    return {
        "recipe_file": f"/somewhere/{recipe}",
        "parameters": {"trainable": 280_000_000, "total": 1_540_000_000},
        "estimate": {"device": "cpu", "memory": memory},
    }


def make_ladder() -> dict[str, Any]:
    figures = {"accuracy": 0.85, "accuracy_interval": {"low": 0.8, "high": 0.9}, "macro_f1": 0.84, "reviews": 300}
    entry = {
        "title": {"en": "TF-IDF", "zh": "词频"}, "metrics": figures, "ece_equal_mass": None, "reviews_per_s": 900.0,
        "peak_bytes": 300_000_000, "note": None,
    }  # fmt: skip
    missing = {"title": {"en": "Freeze", "zh": "冻结"}, "missing": {"en": "none", "zh": "无"}}
    return {
        "rungs": {"tfidf": entry, "freeze": missing}, "data": {"test": {"asked": 300, "file": "data/t.csv"}},
        "machine": {"processor": "P", "cores": 2}, "command": "sentifactory eval ladder",
    }  # fmt: skip


def test_a_part_is_replaced_and_the_rest_stays() -> None:
    assert replace_part(PAGE.format("a"), "a", r"new \1", "p") == PAGE.format("a").replace("old", r"new \1")
    for page in ("no marks", PAGE.format("a") * 2):
        with pytest.raises(ConfigError, match="times in the page"):
            replace_part(page, "a", "new", "p")


def test_the_power_table_holds_what_the_test_needs(repo_root: Path) -> None:
    rows = [line.strip("| ").split(" | ") for line in write_power_part("en").splitlines()]
    needed = int(rows[4][2].replace(",", ""))  # 3 points, 10 % differ
    assert rows[4][0] == "3"
    assert compute_power(needed, 0.03, 0.1) >= 0.8 > compute_power(int(needed * 0.9), 0.03, 0.1)
    assert rows[6][1] == "–"  # 10 points cannot come from 5 % of the reviews
    for name, page in build_parts(repo_root / "contexts").items():
        assert (repo_root / "contexts" / name).read_text(encoding="utf-8") == page, "run make guides"


def test_an_outdated_part_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "evaluation.md").write_text(PAGE.format("power"), encoding="utf-8")
    (tmp_path / "evaluation_zh.md").write_text(PAGE.format("power"), encoding="utf-8")
    assert {"evaluation.md", "evaluation_zh.md"} <= set(write_pages(build_app(), tmp_path))
    assert write_pages(build_app(), tmp_path) == []
    assert "old" not in (tmp_path / "evaluation.md").read_text(encoding="utf-8")


def test_the_memory_table_says_which_gpu_fits(repo_root: Path) -> None:
    table = write_memory_part([make_estimate("examples/a.yaml", 12.0), make_estimate("examples/b.yaml", 60.0)], "en")
    assert "| `a.yaml` | 280 | 3.0 | 3.0 | 1.0 | 12.0 | 16 GB (T4) |" in table
    assert "| 60.0 | 80 GB (A100, H100) |" in table
    assert find_gpu(int(13.0 * GIB)) == "24 GB (L4, A10)"  # a tenth and one GiB are kept free
    assert all((repo_root / recipe).is_file() for recipe in RECIPES)
    for name in ("training.md", "training_zh.md"):  # the table has a row for each recipe
        page = (repo_root / "contexts" / name).read_text(encoding="utf-8")
        assert [recipe for recipe in RECIPES if f"| `{recipe.removeprefix('examples/')}` |" not in page] == []


def test_a_ladder_fills_both_languages(tmp_path: Path) -> None:
    for name in ("which_model.md", "which_model_zh.md"):
        (tmp_path / name).write_text(PAGE.format("ladder"), encoding="utf-8")
    (tmp_path / "ladder.json").write_text(json.dumps(make_ladder()), encoding="utf-8")
    write_figures(ladder=tmp_path / "ladder.json", contexts=tmp_path)
    english, chinese = (
        (tmp_path / name).read_text(encoding="utf-8") for name in ("which_model.md", "which_model_zh.md")
    )
    assert "| TF-IDF | 85.0% (80.0%–90.0%) |" in english
    assert "| 词频 | 85.0% (80.0%–90.0%) |" in chinese
    assert "Freeze" not in english  # an entry that is missing has no figures
    assert "300 reviews of `data/t.csv`" in english


def test_services_under_load_fill_both_languages(tmp_path: Path) -> None:
    for name in ("serving.md", "serving_zh.md"):
        (tmp_path / name).write_text(PAGE.format("load"), encoding="utf-8")
    marks = {"p50": 300.2, "p95": 400.0, "p99": 500.4}
    load = {"clients": 32, "closed": {"per_s": 20.04, "latency_ms": marks}, "open": {"latency_ms": marks}}
    statuses = {"200": 20, "429": 75, "504": 5}
    onnx = {"sent_per_s": 80.2, "requests": 100, "statuses": statuses, "latency_429_ms": marks}
    bench = {
        "machine": {"processor": "P", "cores": 2},
        "load": {"plain encoder": load, "onnx": load},
        "overload": {"onnx": onnx},
    }
    (tmp_path / "serve.json").write_text(json.dumps(bench), encoding="utf-8")
    write_figures(serve=tmp_path / "serve.json", contexts=tmp_path)
    english, chinese = ((tmp_path / name).read_text(encoding="utf-8") for name in ("serving.md", "serving_zh.md"))
    assert "| `onnx` | 20.0 | 300 | 500 | 300 | 500 | 80 | 75% | 500 | 5 |" in english
    assert "| tutorial's FastAPI, encoder | 20.0 | 300 | 500 | 300 | 500 | – | – | – | – |" in english
    assert "32 clients, each waiting for its answer, on P, 2 cores" in english
    assert "| 教程式 FastAPI，编码器 | 20.0 |" in chinese


def test_benches_of_training_fill_both_languages(tmp_path: Path) -> None:
    for name in ("training.md", "training_zh.md"):
        (tmp_path / name).write_text(PAGE.format("methods") + PAGE.format("speed"), encoding="utf-8")
    own = {"recipe": "r.yaml", "overrides": ["a=1"]}
    figures = {"accuracy": 0.805, "interval": {"low": 0.77, "high": 0.83, "confidence": 0.95}, "reviews": 600}
    untuned = figures | {
        "method": "untuned", "title": "untuned", "accuracies": {"42": 0.805},
        "parameters": None, "train_time_s": None, "peak_bytes": None,
    }  # fmt: skip
    freeze = untuned | {
        "method": "freeze_2", "title": "freeze, last 2 layers", "accuracies": {"42": 0.8, "43": 0.81},
        "parameters": 11_147_264, "train_time_s": 195.3, "peak_bytes": 3_040_000_000,
    }  # fmt: skip
    machine = {"processor": "P", "cores": 2}
    methods = own | {"rows": [untuned, freeze], "training_reviews": 800, "machine": machine}
    stock = {"seconds": 0.8, "peak_bytes": 6_000_000_000, "operations": 1e11}
    ours = {"seconds": 0.2, "peak_bytes": 3_000_000_000, "operations": 2e10}
    step = own | {"rows": {"stock": stock, "two epochs": ours}, "task": "t", "machine": {"cpu_cores": 2}}
    files = [tmp_path / "methods.json", tmp_path / "train_step.json"]
    for file, bench in zip(files, (methods, step), strict=True):
        file.write_text(json.dumps(bench), encoding="utf-8")
    write_figures(methods=files[0], train_step=files[1], contexts=tmp_path)
    english, chinese = ((tmp_path / name).read_text(encoding="utf-8") for name in ("training.md", "training_zh.md"))
    assert "| untuned | – | 80.5% (77.0 to 83.0) | 80.5% | – | – |" in english
    assert "| freeze, last 2 layers | 11 | 80.5% (77.0 to 83.0) | 80.0%, 81.0% | 3.3 | 3.0 |" in english
    assert "`r.yaml a=1`, 800 training reviews, one epoch; 600 validation reviews" in english
    assert "| ours, two epochs | 5.00 | 4.00 | 0.50 | 0.20 |" in english
    assert "| 冻结，只训练最后 2 层 | 11 | 80.5% (77.0 至 83.0) |" in chinese
    assert "| 我们的，两轮合计 | 5.00 |" in chinese
    assert set(METHOD_NAMES) == {"untuned", *METHODS}
    assert set(SPEED_NAMES) == {*MODES, "two epochs"}


def test_missing_figures_are_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to write"):
        write_figures()
    (tmp_path / "x.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ConfigError, match="There are no figures to show: it lacks one of machine, rungs") as refusal:
        read_report(tmp_path / "x.json", {"rungs", "machine"}, "make one")
    assert "make one" in str(refusal.value)
    (tmp_path / "ladder.json").write_text(json.dumps(make_ladder()), encoding="utf-8")
    with pytest.raises(ConfigError, match="guide cannot be read"):
        write_figures(ladder=tmp_path / "ladder.json", contexts=tmp_path)
