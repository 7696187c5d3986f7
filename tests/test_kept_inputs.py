"""No command writes over what it reads: each is called with an output that is one of its inputs, by whatever name."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sentifactory.cli import build_app, main
from sentifactory.errors import ConfigError
from sentifactory.evaluation.report.report import check_report_place
from sentifactory.publishing.export.parity import refuse_foreign_folder
from sentifactory.training.recipe.recipe import Recipe
from sentifactory.training.recipe.recipe_checks import check_output
from sentifactory.training.sweep.sweep_plan import write_or_check_plan

ROWS = "text,label\n" + "".join(
    f"{word}{number},{label}\n" for number in range(30) for word, label in (("房间很好", 1), ("再也不来", 0))
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_folder: Path) -> Path:
    """A folder with reviews, a model, a second name for each, and something in the way."""
    for name in ("train.csv", "test.csv", "other.csv"):
        (tmp_path / name).write_text(ROWS, encoding="utf-8")
    (tmp_path / "fresh.csv").write_text("text,label\n菜很香味道不错,1\n", encoding="utf-8")
    (tmp_path / "test.json").write_text('[{"text": "好", "label": 1}]', encoding="utf-8")
    (tmp_path / "pool.jsonl").write_text('{"text": "好"}\n', encoding="utf-8")
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "model_link").symlink_to(model_folder)
    (tmp_path / "link.csv").symlink_to(tmp_path / "train.csv")
    (tmp_path / "report_mistakes").mkdir()
    (tmp_path / "report_mistakes" / "thesis.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def hash_all(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize(
    "words",
    [
        "data check --train train.csv --test test.csv --unseen ./train.csv",
        "data check --train train.csv --test test.csv --unseen link.csv",
        "distill --teacher model --engine encoder --input_file pool.jsonl --output_file ./pool.jsonl",
        "distill --teacher model --engine encoder --input_file pool.jsonl --output_file manifest.jsonl",
        "eval compare --csv_path test.json --base_model model --finetuned_model model --output_file ./test.json",
        "eval compare --csv_path test.csv --base_model model --finetuned_model model --output_file model/config.json",
        "eval compare --csv_path test.csv --base_model model --finetuned_model model --output_file report.json",
        "eval ladder --csv_path test.csv --train_csv train.csv --output_file model/config.json",
        "label test.csv ./test.csv --model train.csv --engine tfidf --overwrite",
        "label test.csv train.csv --model train.csv --engine tfidf --overwrite",
        "label test.csv link.csv --model train.csv --engine tfidf --overwrite",
        "export dtype model --output_dir model_link --dtype float16 --val_path test.csv",
        "export dtype model --output_dir . --dtype float16 --val_path test.csv",
        "export onnx model --output_dir model_link --val_path test.csv",
        "export gguf model --output_dir model_link --val_path test.csv",
    ],
)
def test_an_output_that_is_an_input_ends_the_command_before_anything_is_written(place: Path, words: str) -> None:
    before = hash_all(place)
    result = CliRunner().invoke(build_app(), words.split())
    assert isinstance(result.exception, ConfigError), result.output
    assert result.exception.exit_code == 2
    assert hash_all(place) == before


def test_data_are_not_prepared_over_their_own_source(place: Path) -> None:
    first = CliRunner().invoke(build_app(), ["data", "prepare", "train.csv", "--name", "own", "--output_dir", "data"])
    assert first.exit_code == 0, first.output
    (place / "data_link").symlink_to(place / "data")
    before = hash_all(place)
    for source in ("data/own/train.csv", "data_link/own/test.csv"):
        result = CliRunner().invoke(build_app(), ["data", "prepare", source, "--name", "own", "--output_dir", "data"])
        assert isinstance(result.exception, ConfigError), result.output
        assert result.exception.where == "--name"
    assert hash_all(place) == before


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("data doubt train.csv --output_file mine.csv", "mine.csv"),
        ("data check --train train.csv --test fresh.csv --unseen mine.csv", "mine.csv"),
        ("data show train.csv --skip_doubt --output_file mine.html", "mine.html"),
        ("distill --teacher model --engine encoder --input_file pool.jsonl --output_file mine.jsonl", "mine.jsonl"),
        (
            "distill --teacher model --engine encoder --input_file pool.jsonl --output_file mine.jsonl",
            "mine.answers.jsonl",
        ),
        (
            "eval compare --csv_path test.csv --base_model model --finetuned_model model --output_file mine.json",
            "mine.md",
        ),
        ("eval ladder --csv_path test.csv --train_csv train.csv --output_file mine.json", "mine.html"),
        ("eval ladder --csv_path test.csv --train_csv train.csv --output_file mine.json --allow_leaks", "mine.rungs"),
    ],
)
@pytest.mark.parametrize("is_link", [False, True])
def test_an_output_that_no_command_of_ours_has_made_stays(place: Path, words: str, name: str, is_link: bool) -> None:
    (place / "thesis").write_text("mine")
    if is_link:
        (place / name).symlink_to(place / "thesis")
    else:
        (place / name).write_text("mine")
    before = hash_all(place)
    result = CliRunner().invoke(build_app(), words.split())
    assert isinstance(result.exception, ConfigError), result.output
    assert result.exception.where.endswith(name)
    assert hash_all(place) == before


@pytest.mark.parametrize(
    ("files", "stranger"),
    [
        ({"export.json": "{}", "model.onnx": ""}, ""),  # many programs write an export.json
        ({"export.json": '{"parity": {}}', "thesis.txt": "mine"}, "thesis.txt"),
        ({"export.json": '{"parity": {}}', "README.md": "mine"}, "README.md"),
        ({"export.json": '{"parity": {}}', "notes/thesis.txt": "mine"}, "notes"),
    ],
)
def test_a_folder_is_an_earlier_export_by_its_proof_and_by_all_that_is_in_it(
    tmp_path: Path, files: dict[str, str], stranger: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError) as refused:
        refuse_foreign_folder(tmp_path, "export.json")
    assert refused.value.where == str(tmp_path / stranger)
    if stranger:
        (tmp_path / stranger).rename(tmp_path.with_name(f"away-{stranger}"))
        refuse_foreign_folder(tmp_path, "export.json")


def test_an_export_of_another_kind_is_kept(tmp_path: Path) -> None:
    (tmp_path / "export.json").write_text('{"parity": {}, "kind": "merge"}')
    (tmp_path / "model.safetensors").write_text("weights")
    for kind in ("dtype", "gguf", None):
        with pytest.raises(ConfigError) as refused:
            refuse_foreign_folder(tmp_path, "export.json", kind)
        assert refused.value.where == str(tmp_path)
    refuse_foreign_folder(tmp_path, "export.json", "merge")


def test_a_sweep_is_not_begun_among_other_files(tmp_path: Path) -> None:
    (tmp_path / "best.yaml").write_text("mine")
    with pytest.raises(ConfigError) as refused:
        write_or_check_plan(tmp_path, {"seed": 1}, "")
    assert refused.value.where == str(tmp_path / "best.yaml")
    (tmp_path / "best.yaml").rename(tmp_path / ".train.lock")
    write_or_check_plan(tmp_path, {"seed": 1}, "")
    (tmp_path / "trials").mkdir()
    write_or_check_plan(tmp_path, {"seed": 1}, "")
    for broken in ("[]", "{", '{"seed": 2}'):
        (tmp_path / "plan.json").write_text(broken)
        with pytest.raises(ConfigError):
            write_or_check_plan(tmp_path, {"seed": 1}, "")


def test_a_model_that_no_training_of_ours_made_is_not_trained_over(place: Path) -> None:
    (place / "mine").mkdir()
    (place / "mine" / "model.safetensors").write_text("mine")
    (place / "recipe.yaml").write_text("output_dir: mine")
    recipe = Recipe(place / "recipe.yaml", (), {"output_dir": "mine"})
    assert len([*check_output(recipe)]) == 1
    (place / "mine" / "run.json").write_text('{"name": "mine"}')
    assert len([*check_output(recipe)]) == 1
    (place / "mine" / "run.json").write_text('{"fingerprint": "x"}')
    assert [*check_output(recipe)] == []


@pytest.mark.parametrize(
    ("files", "stranger"),
    [
        ({"r.json": '{"warnings": []}'}, "r.json"),  # that of a linter
        ({"r.json": '{"warnings": [], "ladder_version": 1}'}, "r.json"),
        ({"r.json": '{"warnings": [], "schema_version": 3}', "r.md": "# Mine"}, "r.md"),
        ({"r.json": '{"warnings": [], "schema_version": 3}', "r.html": "<title>Mine</title>"}, "r.html"),
        ({"r.json": '{"warnings": [], "schema_version": 3}', "r.md": "# Base against tuned\n"}, None),
    ],
)
def test_a_report_is_known_by_its_version_and_what_is_beside_it_by_its_heading(
    tmp_path: Path, files: dict[str, str], stranger: str | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    if stranger is None:
        check_report_place(tmp_path / "r.json")
        return
    with pytest.raises(ConfigError) as refused:
        check_report_place(tmp_path / "r.json")
    assert refused.value.where == str(tmp_path / stranger)


def test_what_a_command_has_made_it_may_make_again(place: Path) -> None:
    for words in (
        "data doubt train.csv --output_file doubts.csv",
        "data show train.csv --skip_doubt --output_file page.html",
        "data check --train train.csv --test fresh.csv --unseen unseen.csv",
    ):
        for _ in range(2):
            result = CliRunner().invoke(build_app(), words.split())
            assert result.exit_code == 0, result.output


@pytest.mark.parametrize("name", ["x" * 300, "很" * 80, "dataset_info.json", "Dataset_Info.JSON"])
def test_a_name_that_cannot_be_a_folder_of_data_is_refused(place: Path, name: str) -> None:
    before = hash_all(place)
    result = CliRunner().invoke(build_app(), ["data", "prepare", "train.csv", "--name", name, "--output_dir", "data"])
    assert isinstance(result.exception, ConfigError), result.output
    assert result.exception.where == "--name"
    assert hash_all(place) == before
    assert not (place / "data").exists()


@pytest.mark.parametrize("name", ["train.csv/data", "x" * 300, "y/" + "x" * 300, "loop/data", "train.csv"])
def test_a_place_that_cannot_be_made_is_one_sentence(
    place: Path, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "loop").symlink_to("loop")
    before = sorted(place.rglob("*"))
    monkeypatch.setattr("sys.argv", ["sentifactory", "data", "prepare", "train.csv", "--output_dir", name])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2, capsys.readouterr().err
    assert sorted(place.rglob("*")) == before
