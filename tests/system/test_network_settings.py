"""Proxies and mirrors that cannot be used are named without their passwords, and this machine needs none."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from sentifactory import cli
from sentifactory.corpus.reading.hub_datasets import HubAddress, read_hub
from sentifactory.corpus.reading.read_result import ReadOptions
from sentifactory.engines.openai.connection import RetryPolicy
from sentifactory.engines.openai.openai_engine import OpenAiEngine
from sentifactory.engines.registry import check_engine
from sentifactory.errors import EXIT_BAD_INPUT, ConfigError, EngineError
from sentifactory.models.hub import fetch_from_hub
from sentifactory.serving.http.server import bind_socket
from sentifactory.serving.labelling.label_options import LabelRequest, run_labelling
from sentifactory.serving.service_settings import Access
from sentifactory.system import network_settings
from sentifactory.system.network_settings import (
    bypass_proxy_for_localhost,
    find_network_fault,
    find_proxy_variable,
    hide_proxy_variables,
    is_loopback_host,
    refuse_unusable_proxies,
)
from sentifactory.task.task import BINARY_SENTIMENT
from sentifactory.ui.actions import PageActions
from sentifactory.ui.launch import launch_page
from sentifactory.ui.page_settings import PageAccess
from sentifactory.ui.workspace import open_workspace

ELSEWHERE = "http://192.0.2.1:8000"


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "")
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name in ("no_proxy", "NO_PROXY"):  # `bypass_proxy_for_localhost` sets them, and they are gone after the test
        monkeypatch.setenv(name, "")


@pytest.mark.parametrize("variable", ["ALL_PROXY", "all_proxy", "http_proxy", "HTTPS_PROXY"])
@pytest.mark.parametrize(
    "value",
    ["socks://me:secret@127.0.0.1:1080", "http://me:secret@h:port", "http://h:99999999", "http://:80", "ftp://h:1"],
)
def test_a_proxy_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError) as refused:
        refuse_unusable_proxies()
    assert refused.value.where == variable
    assert variable in refused.value.next_step
    assert "secret" not in refused.value.describe()
    assert value.rpartition("@")[2] in refused.value.what


@pytest.mark.parametrize("is_installed", [True, False])
def test_socks_needs_its_package(monkeypatch: pytest.MonkeyPatch, is_installed: bool) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1080")
    monkeypatch.setattr(network_settings, "find_spec", lambda _: object() if is_installed else None)
    assert (find_network_fault() is None) == is_installed


@pytest.mark.parametrize(
    "value", ["", "http://127.0.0.1:7890", "127.0.0.1:7890", "https://me:a%40b@proxy.example:443/"]
)
def test_a_proxy_that_can_be_used_is_left_alone(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    for variable in ("http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(variable, value)
    refuse_unusable_proxies()
    httpx.Client().close()  # httpx is of the same opinion


@pytest.mark.parametrize(
    "value", ["hf-mirror.com", "https:/hf-mirror.com", "https://", " hf-mirror.com/ ", "ftp://hf-mirror.com"]
)
def test_a_mirror_without_a_scheme_is_named_with_what_to_set(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", value)
    fault = find_network_fault()
    assert fault is not None
    assert fault.where == "HF_ENDPOINT"
    assert value == "https://" or "HF_ENDPOINT=https://hf-mirror.com," in fault.next_step


@pytest.mark.parametrize(("variable", "value"), [("HF_ENDPOINT", "hf-mirror.com"), ("ALL_PROXY", "socks://h:1")])
@pytest.mark.parametrize(
    "ask",
    [
        lambda: fetch_from_hub("someone/some-model"),
        lambda: read_hub(HubAddress("hf", "someone/some-reviews"), BINARY_SENTIMENT, ReadOptions()),
    ],
)
def test_a_hub_that_is_not_reached_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, ask: Callable[[], object]
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError) as refused:
        ask()
    assert refused.value.where == variable


def test_this_machine_is_exempt_here_and_below(monkeypatch: pytest.MonkeyPatch) -> None:
    bypass_proxy_for_localhost()
    assert os.environ["no_proxy"] == "", "where there is no proxy nothing is set"
    monkeypatch.setenv("http_proxy", "http://192.0.2.1:1")
    monkeypatch.setenv("NO_PROXY", "example.com, localhost")
    bypass_proxy_for_localhost()
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == "example.com,localhost,127.0.0.1,::1"
    bypass_proxy_for_localhost()
    assert os.environ["no_proxy"].count("127.0.0.1") == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost", "LOCALHOST", "a.localhost"])
def test_all_names_of_this_machine_are_known(host: str) -> None:
    assert is_loopback_host(host)
    assert not is_loopback_host(f"{host.strip('[]')}.example.com")


@pytest.mark.parametrize("value", ["socks://h:1", "http://192.0.2.1:1"])
def test_a_server_here_is_asked_without_a_proxy_and_one_elsewhere_not_at_all(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", value)
    with pytest.raises(EngineError):  # nobody is there, which only who asks it finds out
        OpenAiEngine("http://127.0.0.2:9", "m", BINARY_SENTIMENT, retry_policy=RetryPolicy(retries=0))
    if value.startswith("socks"):
        with pytest.raises(ConfigError):
            OpenAiEngine(ELSEWHERE, "m", BINARY_SENTIMENT)
        with pytest.raises(ConfigError):
            check_engine(ELSEWHERE, "m")


@pytest.mark.parametrize(("address", "proxy"), [(ELSEWHERE, "socks://h:1"), ("http://127.0.0.1:9", "")])
def test_labelling_that_does_not_begin_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, proxy: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    source = tmp_path / "in.csv"
    source.write_text("text\n好\n", encoding="utf-8")
    with pytest.raises((ConfigError, EngineError)):
        run_labelling(LabelRequest(str(source), str(tmp_path / "new" / "out.csv"), "m", vllm_urls=(address,)))
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_a_librarys_client_that_is_not_made_becomes_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks://h:1")
    with pytest.raises(SystemExit) as ended:
        cli.run_guarded(httpx.Client)
    assert ended.value.code == EXIT_BAD_INPUT
    with hide_proxy_variables():
        httpx.Client().close()
    assert os.environ["ALL_PROXY"] == "socks://h:1"


@pytest.mark.slow
@pytest.mark.parametrize("value", ["socks://h:1", "http://192.0.2.1:1"])
def test_the_page_opens_behind_any_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "")
    monkeypatch.setenv("ALL_PROXY", value)
    actions = PageActions(open_workspace(tmp_path / "space"), (), ())
    with bind_socket(Access(host="127.0.0.1", port=0)) as bound:
        port = bound.getsockname()[1]
    page = launch_page(actions, PageAccess("127.0.0.1", port), port)
    try:
        assert httpx.get(page.local_url, trust_env=False).status_code == 200
    finally:
        page.close(verbose=False)
    assert os.environ["ALL_PROXY"] == value, "a training that the page starts may need it"


def test_a_proxy_that_is_not_there_is_named_and_not_the_server_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    bypass_proxy_for_localhost()
    assert find_proxy_variable(ELSEWHERE) == "http_proxy"
    assert find_proxy_variable("https://192.0.2.1") == "all_proxy"
    assert find_proxy_variable("http://127.0.0.1:8000") is None
    with pytest.raises(EngineError) as failed:
        OpenAiEngine(ELSEWHERE, "base", BINARY_SENTIMENT, retry_policy=RetryPolicy(retries=0))
    assert "http_proxy" in failed.value.describe()
    assert "no_proxy" in failed.value.next_step
    monkeypatch.setenv("no_proxy", "192.0.2.1")
    assert find_proxy_variable(ELSEWHERE) is None


def test_a_user_in_the_address_hides_no_exemption(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert find_proxy_variable("http://me:secret@127.0.0.1:9/v1") is None
    assert find_proxy_variable("http://me:secret@192.0.2.1:9/v1") == "http_proxy"
