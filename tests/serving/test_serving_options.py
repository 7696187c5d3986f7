"""What `sentifactory serve` refuses before anything is started; what it says about model, key and probabilities."""

from __future__ import annotations

import asyncio
import signal
import socket
from pathlib import Path

import pytest
from live_service import KEY, build_service
from typer.testing import CliRunner

from sentifactory.cli import build_app
from sentifactory.engines.local.onnx_engine import EXPORT_NAME
from sentifactory.engines.model_identity import is_known_by_name
from sentifactory.errors import ConfigError, SentiFactoryError
from sentifactory.metrics.calibration import Calibration, hash_prompt, save_calibration
from sentifactory.models.weights import hash_weights
from sentifactory.records import Prediction
from sentifactory.serving.answer_format import build_formatter, name_model
from sentifactory.serving.backends.batching import BatchingBackend
from sentifactory.serving.backends.model_loading import ModelChoice, choose_kind
from sentifactory.serving.http import run_service
from sentifactory.serving.http.api import build_app as build_api
from sentifactory.serving.http.server import bind_socket, describe_calls, run_server
from sentifactory.serving.service_settings import KEY_VARIABLE, Access, Limits, read_key
from sentifactory.task.model_folder import TASK_NAME
from sentifactory.task.task import BINARY_SENTIMENT
from tools.service_bench.scripted_engine import ScriptedEngine


def calibrate(folder: Path, threshold: float | None) -> None:
    save_calibration(
        Calibration(
            method="temperature",
            temperature=2.0,
            bias=(0.0, 0.0),
            task=BINARY_SENTIMENT.name,
            prompt_sha256=hash_prompt(BINARY_SENTIMENT),
            threshold=threshold,
            target_accuracy=0.95,
            fitted_on={},
            weights=hash_weights(folder),
        ),
        folder,
    )


def test_a_calibration_beside_the_model_corrects_the_probabilities(model_folder: Path) -> None:
    sure = Prediction(1, (0.1, 0.9))
    plain = build_formatter(str(model_folder), BINARY_SENTIMENT, None).decide(sure)
    calibrate(model_folder, 0.8)
    formatter = build_formatter(str(model_folder), BINARY_SENTIMENT, "calibrated")
    corrected = formatter.decide(sure)
    assert plain is not None
    assert corrected is not None
    assert plain.score == 0.9
    assert corrected.score == pytest.approx(0.75)
    assert (plain.is_unsure, corrected.is_unsure) == (False, True)
    told = formatter.to_dict("好", corrected, 0.001)
    assert (told["label"], told["emoji"], told["unsure"], told["score"]) == (None, None, True, 0.75)
    (model_folder / "model.safetensors").write_bytes(b"other weights")
    assert build_formatter(str(model_folder), BINARY_SENTIMENT, None).calibration is None
    assert formatter.decide(Prediction(None)) is None


@pytest.mark.parametrize("threshold", ["calibrated", "0", "1.5", "high"])
def test_what_is_no_threshold_is_refused(model_folder: Path, threshold: str) -> None:
    calibrate(model_folder, None)
    with pytest.raises(ConfigError):
        build_formatter(str(model_folder), BINARY_SENTIMENT, threshold)


def test_a_model_is_called_by_its_folder_and_no_path_is_told(model_folder: Path) -> None:
    assert name_model(str(model_folder)) == "model"
    assert name_model("Qwen/Qwen2.5-Coder-1.5B-Instruct") == "Qwen/Qwen2.5-Coder-1.5B-Instruct"


@pytest.mark.usefixtures("fake_vllm")
def test_the_engine_follows_from_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["BertForSequenceClassification"]}')
    assert choose_kind(str(tmp_path)) == "encoder"
    (tmp_path / "config.json").write_text('{"architectures": ["Gemma3ForCausalLM"]}')
    assert (choose_kind(str(tmp_path)), choose_kind("org/model")) == ("vllm", "vllm")
    with monkeypatch.context() as without:
        without.setenv("SENTIFACTORY_VLLM", "none")
        assert (choose_kind(str(tmp_path)), choose_kind("org/model")) == ("transformers", "transformers")
    (tmp_path / EXPORT_NAME).write_text("{}")
    assert choose_kind(str(tmp_path)) == "onnx"
    # A labelling that was begun in other numbers is not continued; where a server stands says nothing.
    own, other = (
        ModelChoice("m", "vllm", vllm_dtype=dtype).identify(BINARY_SENTIMENT) for dtype in (None, "bfloat16")
    )
    assert own != other
    near, far = (ModelChoice("m", None, f"http://{host}:8000").identify(BINARY_SENTIMENT) for host in ("a", "b"))
    assert near == far
    assert is_known_by_name(near)


@pytest.mark.parametrize("record", ["run.json", TASK_NAME, "adapter_config.json", "trainer_state.json"])
def test_a_language_model_without_a_record_of_training_is_not_tuned(model_folder: Path, record: str) -> None:
    (model_folder / "config.json").write_text('{"architectures": ["Gemma3ForCausalLM"]}')
    choice = ModelChoice(str(model_folder), "transformers")
    assert choice.is_tuned is False
    (model_folder / record).write_text("{}")
    assert choice.is_tuned is True


def test_what_is_known_of_the_training_of_other_models(model_folder: Path) -> None:
    assert ModelChoice("train.csv").is_tuned is True  # TF-IDF
    assert ModelChoice("demo", None, "http://127.0.0.1:1").is_tuned is None
    (model_folder / "config.json").write_text('{"architectures": ["BertForSequenceClassification"]}')
    assert ModelChoice(str(model_folder)).is_tuned is True


def test_an_untuned_model_is_reported_while_it_serves(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    healths: list[bool | None] = []
    engine = ScriptedEngine(BINARY_SENTIMENT)
    backend = BatchingBackend(engine, 1, 0.0)
    monkeypatch.setattr(run_service, "open_backend", lambda *_, **__: (backend, None))
    monkeypatch.setattr(run_service, "run_server", lambda app, service, *_: healths.append(service.is_tuned))
    options = ["serve", str(model_folder), "--engine", "transformers", "--port", "0"]
    untuned = CliRunner().invoke(build_app(), options)
    (model_folder / "run.json").write_text("{}")
    tuned = CliRunner().invoke(build_app(), options)
    assert healths == [False, True]
    assert ["WARNING" in result.stderr for result in (untuned, tuned)] == [True, False]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["saves/none"], "model folder does not exist"),
        (["MODEL", "--engine", "magic"], "Unknown engine 'magic'"),
        (["MODEL", "--engine", "transformers", "--vllm_url", "http://127.0.0.1:1"], "leave out --engine"),
        (["MODEL", "--engine", "transformers", "--vllm_dtype", "bfloat16"], "transformers cannot compute in bfloat16"),
        (["MODEL", "--engine", "vllm", "--vllm_dtype", "int4"], "one of auto, bfloat16, float16, float32"),
        (["MODEL", "--vllm_url", "http://127.0.0.1:1", "--vllm_dtype", "auto"], "without an address"),
        (["MODEL", "--engine", "transformers", "--vllm_log", "vllm.log"], "starts no vLLM"),
        (["MODEL", "--max_queue", "0"], "queue_items is 0"),
        (["MODEL", "--max_queue", "10", "--max_list_items", "20"], "does not fit"),
        (["MODEL", "--batch_wait_ms", "-1"], "batch_wait_s"),
        (["MODEL", "--threshold", "2"], "'2' is not a threshold"),
        (["MODEL", "--task", "none"], "no task 'none'"),
        (["MODEL", "--port", "PORT"], "cannot be used"),
        (["MODEL", "--port", "70000"], "cannot be used"),
    ],
)
def test_mistakes_are_told_before_anything_starts(model_folder: Path, words: list[str], part: str) -> None:
    (model_folder.parent / "saves").mkdir(exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        words = [{"MODEL": str(model_folder), "PORT": port}.get(word, word) for word in words]
        if words[0] == "saves/none":
            words[0] = str(model_folder.parent / "saves" / "none")
        result = CliRunner().invoke(build_app(), ["serve", *words])
    assert isinstance(result.exception, SentiFactoryError), result.output
    assert part in result.exception.describe()


def test_the_key_comes_from_the_environment_and_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    assert read_key() is None
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    access = Access(host="0.0.0.0", key=read_key())
    assert KEY not in repr(access)
    assert not access.is_open
    assert Access(host="0.0.0.0").is_open
    assert not Access().is_open
    assert KEY not in " ".join(describe_calls(access, 8000))
    assert all(
        KEY_VARIABLE in line and "http://127.0.0.1:8000/predict" in line for line in describe_calls(access, 8000)
    )
    for bad in ("", "two words", "钥匙"):
        monkeypatch.setenv(KEY_VARIABLE, bad)
        with pytest.raises(ConfigError):
            read_key()


def test_the_socket_is_known_for_tcp_so_that_answers_do_not_wait() -> None:
    """Asyncio switches Nagle's algorithm off for sockets that name their protocol alone."""

    async def accept() -> int:
        accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def note(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        bound = bind_socket(Access(port=0))
        async with await asyncio.start_server(note, sock=bound):
            _, writer = await asyncio.open_connection(*bound.getsockname())
            writer.close()
            return await accepted

    assert asyncio.run(accept()) == 1


def test_of_two_services_on_one_port_the_second_to_listen_is_refused() -> None:
    """Both are bound while their models load; uvloop alone would let both say that they are ready."""
    with bind_socket(Access(port=0)) as first:
        port = first.getsockname()[1]
        with bind_socket(Access(port=port)) as second:
            first.listen()
            service = build_service(ScriptedEngine(BINARY_SENTIMENT), Limits())
            with pytest.raises(ConfigError) as refused:
                run_server(build_api(service, Access()), service, second, lambda: signal.raise_signal(signal.SIGTERM))
    assert (refused.value.code, refused.value.exit_code) == ("address-unusable", 2)
    assert str(port) in refused.value.where


def test_limits_as_they_stand_are_sound() -> None:
    Limits().check()


def test_label_refuses_replicas_without_ray(model_folder: Path, tmp_path: Path) -> None:
    for more in (
        ["--replicas", "2"],
        ["--replica_engine", "tfidf"],
        ["--vllm_url", "http://a", "--vllm_url", "http://b"],
    ):
        words = ["label", "in.csv", str(tmp_path / "out.csv"), "--model", str(model_folder), *more]
        result = CliRunner().invoke(build_app(), words)
        assert isinstance(result.exception, ConfigError)
        assert "--engine ray" in result.exception.describe()
