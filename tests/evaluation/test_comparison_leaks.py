"""The comparison looks for its test reviews in what the tuned model was trained on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from scripted_comparison import TEST_ROWS, Workplace, write_model, write_reviews

from sentifactory.errors import LeakError
from sentifactory.evaluation.compare import name_reviews
from sentifactory.evaluation.report.report_console import print_report
from sentifactory.evaluation.scoring.review_sets import read_review_sets
from sentifactory.models.layer_cut import cut_model
from sentifactory.system.fingerprint import hash_file
from sentifactory.task.task import BINARY_SENTIMENT
from sentifactory.training.recipe.known_training import describe_earlier_training, read_training

SEEN = "早餐很丰盛，房间也很干净，下次还会再来住"
NEARLY = "早餐很丰盛，房间也很干净，下回还会再来住！"
CLEAN = [("运费太贵了，等了整整一个星期才到", 0), ("屏幕清晰，运行流畅，值得购买", 1)]


def write_training(folder: Path, texts: list[tuple[str, int]], model: str = "tuned_model", **recipe: Any) -> Path:
    """Write training data and the run card of a model that was trained on them."""
    data = folder / "data"
    data.mkdir(exist_ok=True)
    lines = [json.dumps({"messages": BINARY_SENTIMENT.render_messages(*one)}, ensure_ascii=False) for one in texts]
    (data / "mine.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (data / "dataset_info.json").write_text('{"mine": {"file_name": "mine.jsonl", "formatting": "sharegpt"}}')
    card = {
        "status": "finished",
        "recipe": {"dataset": "mine", "dataset_dir": str(data), **recipe},
        "data": [{"dataset": "mine", "file": str(data / "mine.jsonl"), "sha256": hash_file(data / "mine.jsonl")}],
    }
    (folder / model / "run.json").write_text(json.dumps(card))
    return data / "mine.jsonl"


@pytest.fixture
def leaky(workplace: Workplace) -> Workplace:
    """A comparison of which one test review is nearly a training review, the last in its file."""
    rows = [*TEST_ROWS[:-1], (0, NEARLY)]
    lines = ["label,text", *(f'{label},"{text.replace(chr(34), chr(34) * 2)}"' for label, text in rows)]
    (workplace.folder / "test.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_training(workplace.folder, [*CLEAN, (SEEN, 1)])
    return workplace


def test_the_run_card_names_the_training_reviews(leaky: Workplace) -> None:
    with pytest.raises(LeakError, match=r"test\.csv, line 7 duplicates .*mine\.jsonl, line 3 \(near.*--allow_leaks"):
        leaky.run()
    assert leaky.journal == []
    assert not (leaky.folder / "out").exists()


def test_an_allowed_leak_is_the_first_line_everywhere(leaky: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    report = leaky.run(allow_leaks=True)
    assert report["warnings"][0]["en"].startswith("1 of the 6 test reviews are also among the training reviews")
    assert report["data"]["test"]["leak_check"]["status"] == "leaks"
    assert report["data"]["test"]["leak_check"]["compared"]["leaked_test_reviews"] == {"exact": 0, "near": 1}
    page = leaky.page()
    assert page.index('class="warning"') < page.index("<header>")
    assert "6 条测试评论中有 1 条出现在 3 条训练评论中：完全相同 0 条，近似重复 1 条。" in page
    capsys.readouterr()
    print_report(report)
    assert capsys.readouterr().out.startswith("WARNING: 1 of the 6 test reviews")


def test_only_the_rows_that_were_trained_on_count(leaky: Workplace) -> None:
    write_training(leaky.folder, [*CLEAN, (SEEN, 1)], max_samples=2)
    report = leaky.run()
    assert report["data"]["test"]["leak_check"]["status"] == "clean"
    assert report["data"]["test"]["leak_check"]["compared"]["train_reviews"] == 2
    assert [warning for warning in report["warnings"] if "training" in warning["en"]] == []


def test_changed_training_data_are_reported(leaky: Workplace) -> None:
    (leaky.folder / "data" / "mine.jsonl").write_text('{"messages": []}\n')
    found = leaky.run()["data"]["test"]["leak_check"]
    assert found["status"] == "not checked"
    assert "are missing or have changed since" in found["summary"]


def test_a_named_training_file_is_compared_and_nothing_known_is_said(workplace: Workplace) -> None:
    found = workplace.run()["data"]["test"]["leak_check"]
    assert found["status"] == "not checked"
    assert "No training file is known" in found["summary"]
    file = write_training(workplace.folder, [*CLEAN, (TEST_ROWS[1][1], 0)])
    (workplace.folder / "tuned_model" / "run.json").unlink()
    with pytest.raises(
        LeakError, match=r"1 of the 6 test reviews .*test\.csv, line 3 duplicates .*mine\.jsonl, line 3"
    ):
        workplace.run(train_files=(str(file),))


def test_reviews_to_calibrate_on_are_not_tested_on(workplace: Workplace) -> None:
    val = write_reviews(workplace.folder / "val.csv", [(1, "很满意，推荐"), (0, "太失望了"), TEST_ROWS[1]])
    with pytest.raises(LeakError, match=r"test\.csv, line 3 duplicates .*val\.csv, line 4"):
        workplace.run(val_path=str(val))
    assert workplace.journal == []


def test_reviews_to_calibrate_on_were_not_trained_on(workplace: Workplace) -> None:
    rows = [(n % 2, "".join(chr(0x4E00 + 97 * n + 13 * place) for place in range(12))) for n in range(40)]
    val = write_reviews(workplace.folder / "val.csv", rows)
    write_training(workplace.folder, [*CLEAN, (rows[4][1], 1)])
    with pytest.raises(LeakError, match=r"val\.csv, line 6 duplicates .*mine\.jsonl, line 3"):
        workplace.run(val_path=str(val))
    assert workplace.journal == []
    with pytest.raises(LeakError):
        workplace.run(val_path=str(val), train_csv=str(val))
    write_training(workplace.folder, CLEAN)
    read = read_review_sets(name_reviews(workplace.options(val_path=str(val))), BINARY_SENTIMENT)
    assert "validation" not in str(read.warnings)
    allowed = workplace.options(val_path=str(val), train_csv=str(val), allow_leaks=True)
    (warning,) = read_review_sets(name_reviews(allowed), BINARY_SENTIMENT).warnings
    assert warning.en.startswith("40 of the 40 validation reviews are also among the training reviews")


def test_every_test_file_is_looked_at(leaky: Workplace) -> None:
    clean = write_reviews(leaky.folder / "clean.csv", TEST_ROWS)
    second = str(leaky.folder / "test.csv")
    with pytest.raises(LeakError, match=r"test\.csv, line 7 duplicates"):
        leaky.run(csv_path=str(clean), more_csv_paths=(second,))
    assert leaky.journal == []


def test_the_base_model_may_have_been_tuned_as_well(leaky: Workplace) -> None:
    (leaky.folder / "tuned_model" / "run.json").rename(leaky.folder / "base_model" / "run.json")
    with pytest.raises(LeakError, match=r"test\.csv, line 7 duplicates .*mine\.jsonl, line 3"):
        leaky.run()
    found = leaky.run(allow_leaks=True)["data"]["test"]["leak_check"]
    assert "No training file is known" in found["summary"], "of the tuned model nothing is known"


def test_an_old_run_card_leads_to_the_model_that_training_started_from(leaky: Workplace) -> None:
    (leaky.folder / "tuned_model").rename(leaky.folder / "earlier")
    write_model(leaky.folder / "tuned_model")
    further = leaky.folder / "further"
    further.mkdir()
    for name in ("base_model", "earlier"):
        data = write_training(further, CLEAN, "../tuned_model", model_name_or_path=str(leaky.folder / name))
        if name == "base_model":
            assert leaky.run()["data"]["test"]["leak_check"]["train_files"] == [data.name]
    with pytest.raises(LeakError, match=r"test\.csv, line 7 duplicates .*mine\.jsonl, line 3"):
        leaky.run()
    card = json.loads((leaky.folder / "earlier" / "run.json").read_text())
    card["recipe"]["model_name_or_path"] = str(leaky.folder / "tuned_model")  # however often it goes round
    (leaky.folder / "earlier" / "run.json").write_text(json.dumps(card))
    with pytest.raises(LeakError):
        leaky.run()
    (leaky.folder / "earlier").rename(leaky.folder / "moved")
    found = leaky.run()["data"]["test"]["leak_check"]
    assert found["status"] == "not checked"
    assert "earlier is not here any more" in found["summary"]


def test_what_was_learned_before_is_known_of_cuts_checkpoints_and_continued_models(
    leaky: Workplace, short_gemma: Path
) -> None:
    trained = leaky.folder / "trained"
    shutil.copytree(short_gemma, trained)
    (leaky.folder / "tuned_model" / "run.json").rename(trained / "run.json")
    cut = leaky.folder / "cut"
    cut_model(str(trained), 3, cut)
    twice = leaky.folder / "twice"
    cut_model(str(cut), 2, twice)
    checkpoint = trained / "checkpoint-7"
    shutil.copytree(short_gemma, checkpoint)
    train = leaky.folder / "data" / "mine.jsonl"
    for start in (trained, cut, twice, checkpoint):
        assert [one.path.resolve() for one in read_training(str(start)).files] == [train.resolve()]
        recipe = {"model_name_or_path": str(start)}
        continued = {"recipe": recipe, "data": [], "earlier_training": describe_earlier_training(recipe)}
        (leaky.folder / "tuned_model" / "run.json").write_text(json.dumps(continued))
        with pytest.raises(LeakError):
            leaky.run()
    for place in (trained, cut):
        shutil.rmtree(place)
    with pytest.raises(LeakError):  # the card of the continued model knows
        leaky.run()


def test_repeats_and_an_absent_label_are_the_first_that_is_said(workplace: Workplace) -> None:
    rows = [(1, text) for _, text in TEST_ROWS[:5]] + [(1, f"{TEST_ROWS[0][1]}！")]
    write_reviews(workplace.folder / "test.csv", rows)
    first = [warning["en"] for warning in workplace.run()["warnings"]]
    assert [words.partition(" test review")[0] for words in first[:2]] == ["1 of the 6", "No"]
    write_reviews(workplace.folder / "test.csv", TEST_ROWS)
    assert "repeat" not in str(workplace.run()["warnings"])
