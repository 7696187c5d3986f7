"""What a report writes down about a model's folder."""

from __future__ import annotations

from pathlib import Path

from sentifactory.models.weights import hash_weights
from sentifactory.system.fingerprint import hash_file
from sentifactory.training.run.provenance import describe_model


def test_what_the_trainer_leaves_is_no_weight(tmp_path: Path) -> None:
    """A published model does not have that file, and its calibration must fit there as well."""
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    before = hash_weights(tmp_path)
    (tmp_path / "training_args.bin").write_bytes(b"pickle")
    assert hash_weights(tmp_path) == before == {"model.safetensors": hash_file(tmp_path / "model.safetensors")}


def test_changed_weights_have_another_hash(tmp_path: Path) -> None:
    """Files of gigabytes are not read twice, unless something was written meanwhile."""
    file = tmp_path / "model.safetensors"
    for content in (b"weights", b"Weights"):
        file.write_bytes(content)
        assert hash_weights(tmp_path) == {file.name: hash_file(file)}


def test_the_settings_next_to_the_weights_are_recorded(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    facts = describe_model(tmp_path)
    assert facts["settings"] == {"chat_template.jinja": hash_file(tmp_path / "chat_template.jinja")}
    assert "run_card" not in facts
    assert describe_model(tmp_path / "none") == {}
