"""The models of a recipe on test reviews: their figures from scripted answers, and real runs of tiny models."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from scripted_comparison import write_reviews

from sentifactory.corpus.dataset.dataset_files import read_labelled
from sentifactory.engines.ask import PredictionJournal
from sentifactory.engines.base import Engine
from sentifactory.engines.local.baselines import TfidfEngine
from sentifactory.engines.local.transformers_engine import TransformersEngine
from sentifactory.engines.registry import build_engine
from sentifactory.errors import ConfigError, LeakError
from sentifactory.evaluation.stack.fit_stack import StackOptions, make_stack
from sentifactory.metrics.significance import compare_paired, compute_wilson_interval
from sentifactory.records import Prediction
from sentifactory.system.fingerprint import hash_file
from sentifactory.task.task import BINARY_SENTIMENT
from tools.benches.recipe_seeds import SEED, measure_seeds
from tools.benches.recipe_seeds_inputs import SeedOptions, parse_named, read_model
from tools.benches.recipe_seeds_report import RecipeRights, estimate_mean, report_seeds, summarise_recipe
from tools.docs.figures import write_figures

WORDS = ("差劲失望糟糕", "满意喜欢漂亮")


def make_rows(n: int, seed: int) -> list[tuple[int, str]]:
    dice = random.Random(seed)
    return [
        (row % 2, "".join(dice.choices(WORDS[row % 2] + "房间书干净服务", k=9)) + f"{seed}{row}") for row in range(n)
    ]


def draw_rights(n: int, n_right: int, seed: int) -> list[bool]:
    rights = [number < n_right for number in range(n)]
    random.Random(seed).shuffle(rights)
    return rights


def script_rights() -> RecipeRights:
    """Two seeds of a recipe on two files; on the first one tuned beats TF-IDF, on the second only one seed does."""

    def fill(n: int, tuned: tuple[int, int], tfidf: int) -> dict[str, dict[str, list[bool]]]:
        both = {str(seed): draw_rights(n, right, seed) for seed, right in enumerate(tuned)}
        cheap = {seed: draw_rights(n, tfidf, 7) for seed in both}
        return {"tuned": both, "tfidf_same": cheap, "tfidf_all": cheap, "stack": both}

    return {"demo": {"books": fill(400, (360, 368), 300), "hotels": fill(200, (150, 190), 150)}}


def test_figures_of_scripted_answers() -> None:
    rights = script_rights()["demo"]
    books, hotels, means = summarise_recipe("demo", rights)
    assert (books["test"], hotels["test"], means["test"]) == ("books", "hotels", None)
    tuned = books["sides"]["tuned"]
    assert tuned["by_seed"] == {"0": 0.9, "1": 0.92}
    assert tuned["accuracy"] == pytest.approx(0.91)
    assert tuned["interval"]["low"] < 0.91 < tuned["interval"]["high"]
    found = books["differences"]["tuned - tfidf_all"]
    wanted = {seed: compare_paired(rights["books"]["tfidf_all"][seed], right) for seed, right in
              rights["books"]["tuned"].items()}  # fmt: skip
    assert found["difference"] == pytest.approx(0.16)
    assert found["p_values"] == {seed: test.p_value for seed, test in wanted.items()}
    assert found["largest_p_value"] == max(found["p_values"].values())
    assert found["is_shown"]
    assert books["differences"]["stack - tuned"]["largest_p_value"] == 1
    doubtful = hotels["differences"]["tuned - tfidf_same"]
    assert min(doubtful["p_values"].values()) < 0.001
    assert not doubtful["is_shown"]
    assert means["reviews"] == 600
    assert means["sides"]["tuned"]["accuracy"] == pytest.approx((0.91 + 0.85) / 2)
    assert means["sides"]["tuned"]["by_seed"] == pytest.approx({"0": 0.825, "1": 0.935})
    assert means["differences"]["tuned - tfidf_all"]["largest_p_value"] is None


def test_the_interval_is_wilsons_for_one_seed_and_narrower_for_seeds_that_differ() -> None:
    import numpy as np

    one = np.array(draw_rights(1000, 880, 1), dtype=float)
    _, interval = estimate_mean([one])
    wilson = compute_wilson_interval(880, 1000)
    assert (interval.low, interval.high) == pytest.approx((wilson.low, wilson.high), abs=0.003)
    _, of_equal = estimate_mean([np.mean([one, one], axis=0)])
    assert of_equal == interval
    mean, of_both = estimate_mean([np.mean([one, draw_rights(1000, 880, 2)], axis=0)])
    assert mean == pytest.approx(0.88)
    assert of_both.high - of_both.low < 0.8 * (interval.high - interval.low)


def test_the_guides_hold_the_tables(tmp_path: Path) -> None:
    models = {
        f"demo-{seed}": {"training_reviews": 9600 + seed, "has_own_reviews": True, "folder": f"{tmp_path}/demo"}
        for seed in range(2)
    }
    facts = {"models": models, "train": {"reviews": 14596}, "val": {"reviews": 600}}
    table = report_seeds(tmp_path / "out" / "recipe_seeds.json", script_rights(), facts)
    assert table in (tmp_path / "out" / "recipe_seeds.md").read_text(encoding="utf-8")
    assert str(tmp_path) not in (tmp_path / "out" / "recipe_seeds.json").read_text(encoding="utf-8")
    page = "before\n<!-- begin seeds (x) -->\n<!-- end seeds -->\nafter\n"
    for name in ("training.md", "training_zh.md"):
        (tmp_path / name).write_text(page, encoding="utf-8")
    write_figures(seeds=tmp_path / "out" / "recipe_seeds.json", contexts=tmp_path)
    english, chinese = ((tmp_path / name).read_text(encoding="utf-8") for name in ("training.md", "training_zh.md"))
    assert table in english
    assert "| demo: 2 seeds, 9,600–9,601 reviews | books, 400 | 91.0% (" in english
    assert "| 90.0%, 92.0% | 75.0% | 75.0% | +16.0 (" in english
    assert ") | 90.0%, 92.0% | 0.0 (0.0 to 0.0), p = 1.00 |" in english
    assert "14,596" in english
    assert "| demo：2 个种子，9,600–9,601 条评论 | 平均 | 88.0% (" in chinese


@pytest.mark.parametrize("values", [["demo-0"], ["demo-0="], ["a/b-0=x"], ["=x"], ["demo-0=x", "demo-0=y"]])
def test_names_that_cannot_be_used(values: list[str]) -> None:
    with pytest.raises(ConfigError):
        parse_named(values, "--model")


def write_trained(folder: Path, base: Path, rows: Sequence[tuple[int, str]], change: float) -> Path:
    """Write a model with weights of its own, the reviews that it was trained on, and its run card."""
    shutil.copytree(base, folder)
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("layers.3.mlp.down_proj.weight"))
    save_file(weights | {name: weights[name] * change}, folder / "model.safetensors", {"format": "pt"})
    data = folder.with_name(f"{folder.name}_data")
    data.mkdir()
    lines = [{"messages": BINARY_SENTIMENT.render_messages(text, label)} for label, text in rows]
    (data / "own.jsonl").write_text(
        "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8"
    )
    (data / "dataset_info.json").write_text('{"own": {"file_name": "own.jsonl", "formatting": "sharegpt"}}')
    card = {
        "status": "finished",
        "recipe": {"dataset": "own", "dataset_dir": str(data), "max_samples": len(rows) - 20},
        "data": [{"dataset": "own", "file": str(data / "own.jsonl"), "sha256": hash_file(data / "own.jsonl")}],
    }
    (folder / "run.json").write_text(json.dumps(card))
    return folder


@pytest.fixture
def options(tmp_path: Path, short_gemma: Path) -> SeedOptions:
    """Two seeds of a recipe and one of another, two files of test reviews."""
    write_reviews(tmp_path / "train.csv", make_rows(160, 1))
    write_reviews(tmp_path / "val.csv", make_rows(60, 2))
    tests = {name: str(write_reviews(tmp_path / f"{name}.csv", make_rows(40, at))) for at, name in
             enumerate(("books", "hotels"), 3)}  # fmt: skip
    pool = make_rows(160, 1)
    models = {
        name: str(write_trained(tmp_path / name, short_gemma, rows, change))
        for name, rows, change in (
            ("demo-0", pool[:100], 1.0),
            ("demo-1", pool[60:], 3.0),
            ("hour-0", pool, -2.0),
        )
    }
    return SeedOptions(models, tests, str(tmp_path / "train.csv"), str(tmp_path / "val.csv"), tmp_path / "bench")


def read_report(options: SeedOptions) -> dict[str, Any]:
    return dict(json.loads(options.report_file.read_text(encoding="utf-8")))


@pytest.mark.slow
def test_real_models_are_scored_once_and_like_their_parts(
    options: SeedOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[tuple[Path, int]] = []
    keep = PredictionJournal.keep

    def keep_some(journal: PredictionJournal, position: int, prediction: Prediction) -> None:
        if len(kept) == 150:  # in the second model
            raise KeyboardInterrupt
        kept.append((journal.path, position))
        keep(journal, position, prediction)

    monkeypatch.setattr(PredictionJournal, "keep", keep_some)
    with pytest.raises(KeyboardInterrupt):
        measure_seeds(options)
    assert not options.report_file.exists()
    kept.append((Path(), 0))  # so that there are never 150 again
    table = measure_seeds(options)
    assert len(kept) == len(set(kept)) == 3 * (60 + 2 * 40) + 1
    report = read_report(options)
    assert [(row["recipe"], row["test"]) for row in report["rows"]] == [
        (recipe, test) for recipe in ("demo", "hour") for test in ("books", "hotels", None)
    ]
    assert [model["training_reviews"] for model in report["models"].values()] == [80, 80, 140]
    assert all(model["has_own_reviews"] for model in report["models"].values())
    assert {check["status"] for check in report["leak_checks"]} == {"clean"}

    row = report["rows"][1]
    test, _ = read_labelled(options.tests["hotels"], BINARY_SENTIMENT)

    def measure(engine: Engine) -> float:
        with engine:
            answers = engine.predict(test)
        return sum(one.label == review.label for one, review in zip(answers, test, strict=True)) / len(test)

    model = options.models["demo-1"]
    seen, _ = read_labelled(tmp_path / "demo-1_data" / "own.jsonl", BINARY_SENTIMENT, 80)
    make_stack(StackOptions(model, options.train_csv, options.val_csv, tmp_path / "stack"))
    engines = {
        "tuned": build_engine("transformers", model, BINARY_SENTIMENT, mode="score"),
        "tfidf_same": TfidfEngine(BINARY_SENTIMENT, seed=SEED).fit(seen),
        "stack": build_engine("auto", str(tmp_path / "stack"), BINARY_SENTIMENT, mode="score", is_calibrated=False),
    }
    for side, engine in engines.items():
        assert row["sides"][side]["by_seed"]["1"] == measure(engine)

    def refuse_loading(*_: object, **__: object) -> None:
        raise AssertionError("a model is loaded")

    monkeypatch.setattr(TransformersEngine, "__init__", refuse_loading)
    assert measure_seeds(options) == table


def test_training_reviews_that_are_gone_are_replaced_by_as_many(options: SeedOptions, tmp_path: Path) -> None:
    train, _ = read_labelled(options.train_csv, BINARY_SENTIMENT)
    folder = options.models["demo-1"]
    known = read_model("demo-1", folder, train, BINARY_SENTIMENT)
    assert known.has_own_reviews
    assert [review.text for review in known.reviews] == [review.text for review in train[60:140]]
    (tmp_path / "demo-1_data" / "own.jsonl").write_text('{"messages": []}\n')
    found = read_model("demo-1", folder, train, BINARY_SENTIMENT)
    assert not found.has_own_reviews
    assert found.reviews == train[:80]


def test_a_limit_of_a_data_set_of_several_files_leaves_its_own_reviews_unknown(
    options: SeedOptions, tmp_path: Path
) -> None:
    train, _ = read_labelled(options.train_csv, BINARY_SENTIMENT)
    folder, data = Path(options.models["demo-1"]), tmp_path / "demo-1_data"
    lines = (data / "own.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (data / "parts").mkdir()
    parts = [data / "parts" / f"{number}.jsonl" for number in range(2)]
    for number, part in enumerate(parts):
        part.write_text("".join(lines[number::2]), encoding="utf-8")
    (data / "dataset_info.json").write_text('{"own": {"file_name": "parts", "formatting": "sharegpt"}}')
    card = json.loads((folder / "run.json").read_text())
    card["data"] = [{"dataset": "own", "file": str(part), "sha256": hash_file(part)} for part in parts]
    (folder / "run.json").write_text(json.dumps(card))
    found = read_model("demo-1", str(folder), train, BINARY_SENTIMENT)
    assert (found.has_own_reviews, found.reviews) == (False, train[:80])
    del card["recipe"]["max_samples"]
    (folder / "run.json").write_text(json.dumps(card))
    found = read_model("demo-1", str(folder), train, BINARY_SENTIMENT)
    assert (found.has_own_reviews, len(found.reviews)) == (True, 100)


def test_what_cannot_be_measured_is_refused_before_a_model_is_loaded(
    options: SeedOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse_loading(*_: object, **__: object) -> None:
        raise AssertionError("a model is loaded")

    monkeypatch.setattr(TransformersEngine, "__init__", refuse_loading)

    def change(**values: Any) -> SeedOptions:
        own = {"models": options.models, "tests": options.tests, "train_csv": options.train_csv,
               "val_csv": options.val_csv, "output_dir": options.output_dir}  # fmt: skip
        return SeedOptions(**{**own, **values})

    twofold = write_reviews(tmp_path / "twofold.csv", [*make_rows(40, 8), *make_rows(40, 8)])
    few = write_reviews(tmp_path / "few.csv", make_rows(10, 9))
    with pytest.raises(ConfigError):
        measure_seeds(change(tests={"twofold": str(twofold)}, val_csv=str(few)))
    assert "WARNING: 40 of the 80 test reviews repeat" in capsys.readouterr().err
    leaky = write_reviews(tmp_path / "leaky.csv", [*make_rows(40, 8), make_rows(160, 1)[5]])
    for wrong in ({"tests": {"leaky": str(leaky)}}, {"val_csv": options.tests["books"]}, {"val_csv": str(leaky)}):
        with pytest.raises(LeakError):
            measure_seeds(change(**wrong))
    twice = shutil.copytree(options.models["demo-0"], tmp_path / "twice")
    bare = shutil.copytree(options.models["demo-0"], tmp_path / "bare")
    (bare / "run.json").unlink()
    cases: list[tuple[dict[str, Any], str]] = [
        ({"models": options.models | {"demo-2": str(twice)}}, "demo-0 and demo-2 have the same weights"),
        ({"models": {"demo-0": str(bare)}}, "no run card"),
        ({"models": {"demo": options.models["demo-0"]}}, "named 'demo'"),
        ({"models": {"demo-0": str(tmp_path / "none")}}, "does not exist"),
        ({"tests": {"one": options.tests["books"], "other": options.tests["books"]}}, "named twice"),
        ({"val_csv": str(few)}, "too few"),
        ({"output_dir": tmp_path, "tests": {"own": str(tmp_path / "recipe_seeds.md")}}, "would replace the input"),
    ]
    (tmp_path / "recipe_seeds.md").write_text("label,text\n0,差\n", encoding="utf-8")
    for wrong, what in cases:
        with pytest.raises(ConfigError, match=what):
            measure_seeds(change(**wrong))
    assert not options.output_dir.exists()
