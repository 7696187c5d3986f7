"""The files that vLLM reads go through vLLM's own parser, and ask for what our own servers ask for."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from sentifactory.engines.vllm.start_vllm import VllmOptions, build_command
from sentifactory.engines.vllm.vllm_install import VllmInstall, find_vllm_python

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "inference"
FILES = sorted(EXAMPLES.glob("*_vllm.yaml"))

PARSE = """
import json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
for file in sys.argv[1:]:
    found = make_arg_parser(FlexibleArgumentParser()).parse_args(["--config", file])
    wanted = ("model", "served_model_name", "host", "port", "dtype", "max_model_len", "seed", "generation_config")
    print("PARSED", json.dumps({name: getattr(found, name) for name in wanted}))
"""


def test_every_llamafactory_file_has_a_vllm_twin() -> None:
    plain = {path.stem for path in EXAMPLES.glob("*.yaml")} - {path.stem for path in FILES}
    assert {path.stem for path in FILES} == {f"{stem}_vllm" for stem in plain} != set()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_asks_for_what_our_own_server_asks_for(path: Path) -> None:
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    install = VllmInstall(Path("python"), is_cpu="gemma" in path.name, version="0")
    words = build_command(install, settings["model"], ["tuned"], 8000, VllmOptions())
    for option in ("dtype", "seed", "generation-config", "max-model-len"):
        assert words[words.index(f"--{option}") + 1] == str(settings[option])
    assert ("--enforce-eager" in words) == settings.get("enforce-eager", False)


@pytest.mark.vllm
@pytest.mark.slow
def test_vllms_own_parser_takes_them() -> None:
    command = [str(find_vllm_python()), "-c", PARSE, *map(str, FILES)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert answer.returncode == 0, answer.stderr[-2000:]
    rows = [json.loads(line.partition(" ")[2]) for line in answer.stdout.splitlines() if line.startswith("PARSED")]
    assert len(rows) == len(FILES)
    for path, row in zip(FILES, rows, strict=True):
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert (row["model"], row["port"], row["dtype"]) == (settings["model"], 8000, settings["dtype"])
        assert (row["served_model_name"], row["generation_config"]) == (["tuned"], "vllm")
