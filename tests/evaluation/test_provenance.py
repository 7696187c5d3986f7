"""What a report writes down about a model's folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from sentifactory.corpus.manifest import hash_file
from sentifactory.evaluation.provenance import describe_command, describe_model
from sentifactory.models.weights import hash_weights


def test_what_the_trainer_leaves_is_no_weight(tmp_path: Path) -> None:
    """A published model does not have that file, and its calibration must fit there as well."""
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    before = hash_weights(tmp_path)
    (tmp_path / "training_args.bin").write_bytes(b"pickle")
    assert hash_weights(tmp_path) == before == {"model.safetensors": hash_file(tmp_path / "model.safetensors")}


def test_weights_that_change_have_another_hash(tmp_path: Path) -> None:
    """Files of gigabytes are not read twice, unless something was written meanwhile."""
    file = tmp_path / "model.safetensors"
    for content in (b"weights", b"Weights"):
        file.write_bytes(content)
        assert hash_weights(tmp_path) == {file.name: hash_file(file)}


def test_the_settings_beside_the_weights_are_written_down(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    facts = describe_model(tmp_path)
    assert facts["settings"] == {"chat_template.jinja": hash_file(tmp_path / "chat_template.jinja")}
    assert "run_card" not in facts
    assert describe_model(tmp_path / "none") == {}


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("/somewhere/.venv/bin/sentifactory", "sentifactory"),
        ("/somewhere/src/sentifactory/cli.py", "sentifactory"),  # python -m sentifactory.cli
        ("scripts/eval_sentiment_compare.py", "scripts/eval_sentiment_compare.py"),
    ],
)
def test_a_command_is_told_as_it_is_typed(monkeypatch: pytest.MonkeyPatch, program: str, expected: str) -> None:
    monkeypatch.setattr("sys.argv", [program, "eval", "ladder", "--csv_path", "my reviews.csv"])
    assert describe_command() == f"{expected} eval ladder --csv_path 'my reviews.csv'"


def test_a_program_below_this_folder_is_told_from_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [str(tmp_path / "scripts" / "compare.py")])
    assert describe_command() == "scripts/compare.py"
