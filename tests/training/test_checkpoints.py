"""Complete and incomplete checkpoints, and where a run starts."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import IO

import pytest

from sentifactory.errors import ConfigError
from sentifactory.models.complete_folder import list_checkpoints
from sentifactory.training.run.checkpoints import (
    LOCK_NAME,
    choose_start,
    find_defect,
    hold_output_folder,
    mark_complete,
    read_marker,
    refuse_other_run,
    remove_former,
    remove_incomplete,
    remove_older,
)


def write_checkpoint(output: Path, step: int) -> Path:
    import torch
    from safetensors.torch import save_file

    folder = output / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    save_file({"weight": torch.arange(64.0)}, folder / "model.safetensors", metadata={"format": "pt"})
    torch.save({"state": torch.arange(64.0)}, folder / "optimizer.pt")
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return folder


def write_card(output: Path, status: str) -> None:
    (output / "run.json").write_text(json.dumps({"status": status}))


def test_checkpoints_are_ordered_by_step(tmp_path: Path) -> None:
    for step in (100, 20, 3):
        write_checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-last").mkdir()
    assert [folder.name for folder in list_checkpoints(tmp_path)] == [
        "checkpoint-3",
        "checkpoint-20",
        "checkpoint-100",
    ]
    assert list_checkpoints(tmp_path / "none") == []


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "trainer_state.json"])
def test_every_truncation_of_every_file_is_detected(tmp_path: Path, name: str) -> None:
    folder = write_checkpoint(tmp_path, 1)
    assert find_defect(folder) is None
    whole = (folder / name).read_bytes()
    for length in {0, 1, 7, 9, len(whole) // 2, len(whole) - 1}:
        (folder / name).write_bytes(whole[:length])
        assert name in str(find_defect(folder)), length
    (folder / name).unlink()
    if name != "optimizer.pt":  # `save_only_model` writes none
        assert find_defect(folder) is not None


def test_incomplete_checkpoints_are_removed_with_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, half = write_checkpoint(tmp_path, 10), write_checkpoint(tmp_path, 20)
    (half / "trainer_state.json").unlink()
    remove_incomplete(tmp_path)
    assert list_checkpoints(tmp_path) == [whole]
    assert "checkpoint-20: trainer_state.json is missing" in capsys.readouterr().err


def test_damaged_marked_checkpoints_and_leftovers_are_removed(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, 10)
    mark_complete(folder, "same")
    (folder / "optimizer.pt").write_bytes(b"")
    (tmp_path / ".checkpoint-5.old").mkdir()  # a kill while it was removed
    remove_incomplete(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_kill_while_safetensors_writes_leaves_nothing_that_stops_the_run(tmp_path: Path) -> None:
    whole, half = write_checkpoint(tmp_path, 10), write_checkpoint(tmp_path, 20)
    (half / "model.safetensors").rename(half / ".tmpCFLO08")  # its temporary file, seen after SIGKILL
    choose_start({"output_dir": str(tmp_path)}, "same")
    assert list_checkpoints(tmp_path) == [whole]


def test_a_folder_with_other_files_named_like_a_checkpoint_is_kept(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-7").mkdir()
    (tmp_path / "checkpoint-7" / "thesis.txt").write_text("mine")
    write_checkpoint(tmp_path / "elsewhere", 8)
    (tmp_path / "checkpoint-8").symlink_to(tmp_path / "elsewhere" / "checkpoint-8")
    write_checkpoint(tmp_path, 9)
    with pytest.raises(ConfigError, match="not from a training run"):
        choose_start({"output_dir": str(tmp_path), "overwrite_output_dir": True}, "same")
    remove_incomplete(tmp_path)
    remove_older(tmp_path, 1, None)
    assert (tmp_path / "checkpoint-7" / "thesis.txt").read_text() == "mine"
    assert (tmp_path / "checkpoint-8" / "model.safetensors").exists()


@pytest.mark.parametrize("maker", [None, "other"])
def test_a_new_run_does_not_remove_checkpoints_of_another_run(tmp_path: Path, maker: str | None) -> None:
    folder = write_checkpoint(tmp_path, 10)
    if maker is not None:
        mark_complete(folder, maker)
        write_card(tmp_path, "interrupted")
    with pytest.raises(ConfigError, match="another model, recipe or data"):
        remove_former(tmp_path, "same")
    assert list_checkpoints(tmp_path) == [folder]
    mark_complete(folder, "same")
    remove_former(tmp_path, "same")
    assert list_checkpoints(tmp_path) == []


def test_the_oldest_are_removed_and_the_newest_and_the_best_kept(tmp_path: Path) -> None:
    import os

    # In the order of age; the highest step is of a former run.
    for age, step in enumerate((90, 2, 4, 6)):
        folder = write_checkpoint(tmp_path, step)
        os.utime(folder, ns=(age * 10**9, age * 10**9))
    remove_older(tmp_path, None, None)
    remove_older(tmp_path, 4, None)
    assert len(list_checkpoints(tmp_path)) == 4
    remove_older(tmp_path, 3, "elsewhere/checkpoint-2")
    assert [folder.name for folder in list_checkpoints(tmp_path)] == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]
    remove_older(tmp_path, 1, "elsewhere/checkpoint-2")
    assert [folder.name for folder in list_checkpoints(tmp_path)] == ["checkpoint-2", "checkpoint-6"]
    remove_older(tmp_path, 1, None)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-6"]


def test_checkpoints_of_a_finished_run_do_not_count_for_the_next_one(tmp_path: Path) -> None:
    """Else the next run, killed before its first save, would continue from the end of the one before."""
    folder = write_checkpoint(tmp_path, 10)
    mark_complete(folder, "same", order_generator="00")
    assert read_marker(folder) == {"fingerprint": "same", "order_generator": "00"}
    write_card(tmp_path, "finished")
    settings = {"output_dir": str(tmp_path), "overwrite_output_dir": True}
    assert choose_start(settings, "same") == settings
    write_card(tmp_path, "running")
    assert choose_start(settings, "same") == settings


def test_unfinished_run_of_the_same_recipe_is_continued(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"output_dir": str(tmp_path), "overwrite_output_dir": True}
    ours, others = write_checkpoint(tmp_path, 10), write_checkpoint(tmp_path, 20)
    write_checkpoint(tmp_path, 30)  # by stock LLaMA-Factory: no marker
    mark_complete(ours, "same")
    mark_complete(others, "other")
    for status in ("running", "interrupted", "failed"):
        write_card(tmp_path, status)
        chosen = choose_start(settings, "same")
        assert chosen["resume_from_checkpoint"] == str(ours)
        assert chosen["overwrite_output_dir"] is False
        assert chosen["restore_callback_states_from_checkpoint"] is True
    assert "Continuing" in capsys.readouterr().err


def test_an_unfinished_run_is_not_continued_in_another_number_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its steps would be taken for steps of another size: epochs would be left out or trained again."""
    folder = write_checkpoint(tmp_path, 10)
    mark_complete(folder, "same", processes=2)
    write_card(tmp_path, "interrupted")
    settings = {"output_dir": str(tmp_path)}
    with pytest.raises(ConfigError) as refused:
        choose_start(settings, "same")
    assert (refused.value.code, refused.value.where) == ("checkpoint-other-processes", str(folder))
    for name, value in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    assert choose_start(settings, "same")["resume_from_checkpoint"] == str(folder)
    mark_complete(folder, "same")  # of an earlier version, whose run card knows it
    (tmp_path / "run.json").write_text(json.dumps({"status": "running", "world_size": 1}))
    with pytest.raises(ConfigError) as refused:
        choose_start(settings, "same")
    assert refused.value.code == "checkpoint-other-processes"


def test_other_runs_start_by_the_rules_of_llamafactory(tmp_path: Path) -> None:
    settings = {"output_dir": str(tmp_path), "overwrite_output_dir": True}
    assert choose_start(settings, "same") == settings
    mark_complete(write_checkpoint(tmp_path, 10), "same")
    assert choose_start(settings, "same") == settings  # no run card
    write_card(tmp_path, "finished")
    assert choose_start(settings, "same") == settings
    write_card(tmp_path, "running")
    assert choose_start(settings, "changed") == settings
    wish = {**settings, "resume_from_checkpoint": False}
    assert choose_start(wish, "same") == wish


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    with (
        hold_output_folder(tmp_path / "out"),
        pytest.raises(ConfigError, match="Another training run"),
        hold_output_folder(tmp_path / "out"),
    ):
        pass
    with hold_output_folder(tmp_path / "out"):
        pass


def test_a_lock_removed_by_its_last_holder_is_taken_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, n_tries = fcntl.flock, 0

    def remove_and_lock(stream: IO[str], kind: int) -> None:
        nonlocal n_tries
        n_tries += 1
        if n_tries == 1:
            (tmp_path / LOCK_NAME).unlink()
        lock(stream, kind)

    monkeypatch.setattr(fcntl, "flock", remove_and_lock)
    with (
        hold_output_folder(tmp_path),
        pytest.raises(ConfigError, match="Another training run"),
        hold_output_folder(tmp_path),
    ):
        pass
    assert n_tries == 3


def test_a_checkpoint_of_another_run_is_not_continued(tmp_path: Path) -> None:
    """LLaMA-Factory takes the last checkpoint of the folder, whoever made it."""
    settings = {"output_dir": str(tmp_path)}
    refuse_other_run(settings, "ours")
    mark_complete(write_checkpoint(tmp_path, 10), "another")
    with pytest.raises(ConfigError) as refused:
        refuse_other_run(settings, "ours")
    assert refused.value.where == str(tmp_path)
    refuse_other_run(settings, "another")
    refuse_other_run({**settings, "overwrite_output_dir": True}, "ours")
    refuse_other_run({**settings, "resume_from_checkpoint": str(tmp_path / "checkpoint-10")}, "ours")
    write_checkpoint(tmp_path, 20)  # by stock LLaMA-Factory: whose it is, nobody knows
    refuse_other_run(settings, "ours")


@pytest.mark.parametrize("header", [b"[]", b"1", b'{"a": 1}', b'{"a": {"data_offsets": []}}', b"[" * 5000, b"\xff"])
def test_a_malformed_header_is_a_defect(tmp_path: Path, header: bytes) -> None:
    folder = write_checkpoint(tmp_path, 1)
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert find_defect(folder) == "model.safetensors is truncated"


def test_an_unparsable_trainer_state_is_a_defect(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, 1)
    (folder / "trainer_state.json").write_text('{"a":' * 5000)
    assert find_defect(folder) == "trainer_state.json is truncated"
