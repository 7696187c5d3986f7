"""What the page finds in an uploaded file, and which tasks it offers for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from made_files import write_opinions

from sentifactory.corpus.reading.review_files import read_reviews
from sentifactory.errors import DataError
from sentifactory.task.model_folder import find_task_record
from sentifactory.ui.actions import PageActions
from sentifactory.ui.error_sentences import PageError
from sentifactory.ui.offered_tasks import NEW_TASK, build_new_task, choose_tasks, find_labels, find_tasks, write_task
from sentifactory.ui.prepared_data import convert_test_file, prepare_upload
from sentifactory.ui.uploaded_file import FileChoices, inspect_upload
from sentifactory.ui.workspace import open_workspace

EXAMPLES = Path(__file__).parents[2] / "examples"


def write_rows(path: Path, header: str, rows: Sequence[str], encoding: str = "utf-8") -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", encoding=encoding)
    return path


def test_columns_of_other_names_are_guessed_by_their_cells(tmp_path: Path) -> None:
    file = inspect_upload(write_opinions(tmp_path / "a.csv"))
    assert (file.text_column, file.label_column) == ("顾客说的话", "结论")
    assert dict(file.cells) == {"好评": 100, "中评": 100, "差评": 100}
    assert file.n_rows == 300
    assert len(file.rows) == 5
    assert all(len(row) == len(file.columns) == 6 for row in file.rows)


def test_columns_of_well_known_names_are_preferred_and_the_user_decides(tmp_path: Path) -> None:
    rows = [f"{at % 2},短{at},很长很长很长很长很长的内容{at},{at % 3}" for at in range(30)]
    path = write_rows(tmp_path / "a.csv", "label,review,remark,class", rows)
    file = inspect_upload(path)
    assert (file.text_column, file.label_column) == ("review", "label")
    chosen = inspect_upload(path, FileChoices(text_column="remark", label_column="class"))
    assert (chosen.text_column, chosen.label_column) == ("remark", "class")
    assert set(chosen.cells) == {"0", "1", "2"}
    other = inspect_upload(path, FileChoices(text_column="of another file"))
    assert other.text_column == "review"


def test_an_encoding_can_be_chosen_and_is_shown(tmp_path: Path) -> None:
    path = write_opinions(tmp_path / "a.csv", encoding="gb18030")
    assert inspect_upload(path).encoding == "GB18030"
    assert inspect_upload(path, FileChoices(encoding="gb18030")).text_column == "顾客说的话"
    with pytest.raises(DataError) as caught:
        inspect_upload(write_opinions(tmp_path / "b.csv"), FileChoices(encoding="gb18030"))
    assert caught.value.code == "encoding-wrong"


def test_chats_have_no_columns_and_every_task_is_offered(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "很好"}, {"role": "assistant", "content": "1"}]}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    file = inspect_upload(tmp_path / "a.jsonl")
    assert file.columns == ()
    assert choose_tasks(file, find_tasks([])).chosen == "binary_sentiment"


def test_the_task_of_the_labels_is_chosen_and_others_are_explained(tmp_path: Path) -> None:
    found = choose_tasks(inspect_upload(write_opinions(tmp_path / "a.csv")), find_tasks([EXAMPLES]))
    assert found.chosen == "three_classes"
    assert found.labels == ("差评", "中评", "好评")
    assert "中评 (100)" in found.misfits["binary_sentiment"].en
    without = choose_tasks(inspect_upload(tmp_path / "a.csv"), find_tasks([]))
    assert without.chosen == NEW_TASK
    assert without.fitting == ()


def test_numbers_of_two_classes_are_not_read_as_two_of_three(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.csv", "text,label", [f"内容{at},{at % 2}" for at in range(40)])
    found = choose_tasks(inspect_upload(path), find_tasks([EXAMPLES]))
    assert found.chosen == "binary_sentiment"
    assert "1 = neutral" in found.misfits["three_classes"].en


@pytest.mark.parametrize(("name", "threshold", "n_low"), [("评分", 3.0, 40), ("评分", 4.0, 80)])
def test_stars_have_a_threshold(tmp_path: Path, name: str, threshold: float | None, n_low: int) -> None:
    rows = [f"内容第{at}条真的各不相同{at * 7919},{at % 5 + 1}" for at in range(100)]
    path = write_rows(tmp_path / "a.csv", f"text,{name}", rows)
    found = choose_tasks(inspect_upload(path), find_tasks([]), threshold)
    assert found.has_stars
    assert found.chosen == "binary_sentiment"
    assert found.threshold == (threshold or 3)
    workspace = open_workspace(tmp_path / "space")
    prepare_upload(workspace, path, "a", FileChoices(star_threshold=threshold), find_tasks([]))
    manifest = json.loads((workspace.data / "a" / "manifest.json").read_text())
    low = sum(part["labels"]["negative"] for part in manifest["parts"].values())
    surplus = manifest["rows"]["rejected_by_reason"]["surplus"]
    middle = manifest["rows"]["rejected_by_reason"]["middle stars"]
    assert middle == 20
    assert low + surplus >= n_low - middle


@pytest.mark.parametrize(
    ("cells", "labels"),
    [
        ({"好评": 9, "差评 ": 9, "差评": 1}, ("差评", "好评")),
        ({"3": 9, "1": 9, "2": 9}, ("1", "2", "3")),
        ({"物流": 9, "质量": 30, "物硫": 1}, ("质量", "物流")),
        ({"好评": 9}, ()),
        ({f"{at}号": 9 for at in range(21)}, ()),
    ],
)
def test_labels_are_found_without_typing_errors(cells: dict[str, int], labels: tuple[str, ...]) -> None:
    assert find_labels(cells) == labels


@pytest.mark.parametrize(
    "labels", [("差评", "中评", "好评"), ("1", "2", "3"), ("质量", "物流", "其他"), ("-1", "0", "1")]
)
def test_a_new_task_reads_its_own_labels_and_answers(labels: tuple[str, ...], tmp_path: Path) -> None:
    task = build_new_task(labels, "mine")
    assert all(task.parse_answer(task.render_answer(at)) == at for at in range(3))
    write_task(task, tmp_path)
    assert find_tasks([tmp_path])["mine"].task == task
    rows = [f"内容{at},{label}" for at in range(9) for label in labels]
    reviews = read_reviews(write_rows(tmp_path / "a.csv", "text,label", rows), task)
    assert [review.label for review in reviews] == [0, 1, 2] * 9


def test_a_new_task_is_written_with_the_data_and_not_without(tmp_path: Path) -> None:
    workspace, path = open_workspace(tmp_path / "space"), write_opinions(tmp_path / "a.csv")
    prepare_upload(workspace, path, "mine", FileChoices(task=NEW_TASK), find_tasks([]))
    record = find_task_record(workspace.data / "mine")
    assert record is not None
    assert record[1]["labels"] == ["negative", "neutral", "positive"]
    assert [file.name for file in workspace.tasks.iterdir()] == ["mine.yaml"]
    few = write_rows(tmp_path / "few.csv", "text,label", [f"内容{at},{'甲乙'[at % 2]}" for at in range(6)])
    with pytest.raises(DataError):
        prepare_upload(workspace, few, "few", FileChoices(task=NEW_TASK), find_tasks([]))
    assert [file.name for file in workspace.tasks.iterdir()] == ["mine.yaml"]
    with pytest.raises(PageError) as caught:
        prepare_upload(workspace, path, "b", FileChoices(task="binary_sentiment"), find_tasks([]))
    assert caught.value.code == "task-of-file"


def test_a_test_file_of_other_columns_is_converted_and_one_of_other_labels_refused(tmp_path: Path) -> None:
    workspace, path = open_workspace(tmp_path / "space"), write_opinions(tmp_path / "a.csv")
    task = build_new_task(("差评", "中评", "好评"), "mine")
    written = convert_test_file(workspace, str(path), FileChoices(), task)
    assert [review.label for review in read_reviews(written, task)] == [2, 1, 0] * 100
    with pytest.raises(PageError) as caught:
        convert_test_file(workspace, str(path), FileChoices(), find_tasks([])["binary_sentiment"].task)
    assert caught.value.code == "task-of-file"


def test_an_empty_star_threshold_is_not_replaced_in_secret(tmp_path: Path) -> None:
    rows = [f"内容第{at}条真的各不相同{at * 7919},{at % 5 + 1}" for at in range(100)]
    path, workspace = write_rows(tmp_path / "a.csv", "text,评分", rows), open_workspace(tmp_path / "space")
    assert choose_tasks(inspect_upload(path), find_tasks([])).threshold == 3, "it is suggested"
    task = find_tasks([])["binary_sentiment"].task
    for attempt in (
        lambda: prepare_upload(workspace, path, "a", FileChoices(), find_tasks([])),
        lambda: convert_test_file(workspace, str(path), FileChoices(), task),
    ):
        with pytest.raises(PageError) as caught:
            attempt()
        assert caught.value.code == "stars-threshold-missing"


@pytest.mark.parametrize(
    ("rows", "choices", "code"),
    [
        ([], FileChoices(), "file-empty"),
        (["1,2,3,4,5"] * 300, FileChoices(), "rows-broken"),
        ([f",{at % 2}," for at in range(20)], FileChoices(), "column-empty"),
        ([f"内容{at},{at % 2}," for at in range(20)], FileChoices(text_column="note"), "column-empty"),
        ([f"内容{at},{at % 2}," for at in range(20)], FileChoices("label", "label"), "column-twice"),
    ],
)
def test_a_file_without_a_review_and_a_column_chosen_twice_are_told_at_once(
    tmp_path: Path, rows: list[str], choices: FileChoices, code: str
) -> None:
    path = write_rows(tmp_path / "a.csv", "text,label,note", rows)
    with pytest.raises(PageError) as caught:
        inspect_upload(path, choices)
    assert caught.value.code == code


@pytest.mark.slow
def test_refused_uploads_are_not_kept(tmp_path: Path) -> None:
    actions = PageActions(open_workspace(tmp_path / "space"), (), ())
    good, header = write_opinions(tmp_path / "good.csv"), write_rows(tmp_path / "header.csv", "text,label", [])
    task = find_tasks([])["binary_sentiment"].task
    for attempt in (
        lambda: actions.prepare(str(header), "header.csv"),
        lambda: actions.prepare(str(good), "good.csv", choices=FileChoices(task="binary_sentiment")),
        lambda: convert_test_file(actions.workspace, str(good), FileChoices(), task),
        lambda: actions.prepare(str(tmp_path / "gone.csv"), "gone.csv"),
    ):
        with pytest.raises(PageError):
            attempt()
    assert list(actions.workspace.uploads.iterdir()) == []
    assert actions.prepare(str(good), "good.csv")[0] == "good"
    assert [path.name for path in actions.workspace.uploads.iterdir()] == ["good"]
