"""`eval compare` with models behind addresses: a model is a name that the server has, not a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sentifactory.errors import ConfigError
from sentifactory.evaluation.compare_options import CompareOptions, check_options

ADDRESS = "http://127.0.0.1:9/v1"


def test_a_name_is_taken_where_the_model_has_an_address(model_folder: Path, tmp_path: Path) -> None:
    options = CompareOptions(
        csv_path=str(tmp_path / "test.csv"),
        base_model="gemma3:270m",
        finetuned_model=str(model_folder),
        output_file=str(tmp_path / "report.json"),
        engine="transformers",
    )
    check_options(replace(options, base_url=ADDRESS))
    with pytest.raises(ConfigError) as refused:
        check_options(options)
    assert refused.value.code == "model-missing"
