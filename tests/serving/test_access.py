"""Who may ask: host names without a key, wrong and weak keys, and what is told to those who have none."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from live_service import KEY, build_service, read_metric, serve_live
from real_browser import WHERE_A_BROWSER_IS
from typer.testing import CliRunner

from sentifactory.cli import build_app
from sentifactory.serving.http import middleware, run_service
from sentifactory.serving.http.docs_page import DOCS_ROUTES
from sentifactory.serving.http.hosts import AllowedHosts, read_host
from sentifactory.serving.service_settings import KEY_VARIABLE, Access, Limits, is_weak_key
from sentifactory.task.task import BINARY_SENTIMENT
from tools.docs.chromium import open_browser
from tools.service_bench.scripted_engine import ScriptedEngine

EVIL = "evil.example"
SOUND_KEY = "1f0d3a5c7b9e2846aa0c5e7f1b3d9e42"


def open_client(access: Access) -> Iterator[httpx.Client]:
    service = build_service(ScriptedEngine(BINARY_SENTIMENT), Limits())
    with serve_live(service, access) as address, httpx.Client(base_url=address, trust_env=False) as client:
        yield client


@pytest.fixture
def keyless() -> Iterator[httpx.Client]:
    yield from open_client(Access())


@pytest.fixture
def keyed() -> Iterator[httpx.Client]:
    yield from open_client(Access(key=KEY))


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (b"localhost", "localhost"),
        (b"LocalHost.:8000", "localhost"),
        (b"127.0.0.1:8000", "127.0.0.1"),
        (b"[::1]:8000", "::1"),
        (b"[::1]", "::1"),
        (b"", None),
        (b":80", None),
        (b"a b", None),
        (b"a:b", None),
        (b"localhost@evil.example", None),
        (b"[::1", None),
        (b"[evil]", None),
        (b"a" * 300, None),
    ],
)
def test_the_name_in_a_host_header_is_read(header: bytes, name: str | None) -> None:
    assert read_host(header) == name


@pytest.mark.parametrize(
    ("access", "known", "unknown"),
    [
        (
            Access(),
            ["localhost", "localhost:9", "127.0.0.1", "127.8.9.1:80", "[::1]:80", "app.localhost"],
            [EVIL, "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.7", "box", "box.local", "", "0"],
        ),
        (
            Access(allowed_hosts=("Reviews.Example.com",)),
            ["reviews.example.com:443", "localhost"],
            [EVIL, "example.com"],
        ),
        (
            Access(host="0.0.0.0"),
            [
                "localhost",
                "10.0.0.7:8000",
                "[fe80::1]:8000",
                "sentiment:8000",
                "a.ns.svc.cluster.local",
                "box.internal",
            ],
            [EVIL, "reviews.example.com", "local.evil.example", ""],
        ),
        (Access(host="reviews.example.com"), ["reviews.example.com", "10.0.0.7"], [EVIL]),
    ],
    ids=["loopback", "allowed", "all addresses", "one name"],
)
def test_without_a_key_names_that_somebody_may_own_are_unknown(
    access: Access, known: list[str], unknown: list[str]
) -> None:
    rule = AllowedHosts(access)
    assert [name for name in known if not rule.allows([name.encode()])] == []
    assert [name for name in unknown if rule.allows([name.encode()])] == []
    assert rule.allows([]), "HTTP/1.0; no browser leaves it out"
    assert not rule.allows([b"localhost", b"localhost"])


def test_a_page_whose_name_points_here_reads_nothing(keyless: httpx.Client, capfd: pytest.CaptureFixture[str]) -> None:
    for path, method in [("/predict", "POST"), *((path, "GET") for path in ("/health", "/metrics", "/openapi.json"))]:
        body = {"json": {"text": "好"}} if method == "POST" else {}
        answer = keyless.request(method, path, headers={"Host": f"{EVIL}:8000"}, **body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (421, "wrong_host"), path
        assert "scripted" not in answer.text
        assert keyless.request(method, path, **body).status_code == 200
    told = capfd.readouterr().err
    assert told.count("\n") == 1, "one line, however many requests"
    assert EVIL in told
    assert "--allowed_host" in told


def test_with_a_key_any_name_will_do(keyed: httpx.Client) -> None:
    headers = {"Host": EVIL, "Authorization": f"Bearer {KEY}"}
    assert keyed.post("/predict", json={"text": "好"}, headers=headers).status_code == 200


def test_the_model_is_named_to_who_may_ask_it(keyless: httpx.Client, keyed: httpx.Client) -> None:
    for path in ("/health", "/health/ready"):
        assert keyless.get(path).json()["model"] == "scripted"
        assert keyed.get(path).json() == {"live": True, "ready": True}
        assert keyed.get(path, headers={"Authorization": "Bearer wrong"}).json() == {"live": True, "ready": True}
        assert keyed.get(path, headers={"Authorization": f"Bearer {KEY}"}).json()["model"] == "scripted"


def test_the_page_of_the_description_needs_neither_key_nor_internet(keyed: httpx.Client) -> None:
    page = keyed.get("/docs")
    assert page.status_code == 200
    for route in DOCS_ROUTES:
        answer = keyed.get(route)
        assert answer.status_code == 200
        assert "scripted" not in answer.text
    assert "//" not in page.text.replace("<!doctype", ""), "nothing is loaded from elsewhere"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert keyed.get("/openapi.json").status_code == 401


@pytest.mark.slow
@pytest.mark.browser
@WHERE_A_BROWSER_IS
@pytest.mark.parametrize("key", [None, KEY], ids=["without a key", "with a key"])
def test_in_a_browser_the_page_asks_for_the_key_and_sends_it(key: str | None) -> None:
    service = build_service(ScriptedEngine(BINARY_SENTIMENT), Limits())
    elsewhere: list[str] = []
    complaints: list[str] = []
    with serve_live(service, Access(key=key)) as address, open_browser() as browser:
        page = browser.new_page()
        page.on("request", lambda request: None if request.url.startswith((address, "data:")) else elsewhere.append(1))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{address}/docs")
        if key:
            page.fill("#key", "wrong")
            page.click("#ask button")
            page.wait_for_selector("#told:not(:empty)")
            page.fill("#key", key)
            page.click("#ask button")
        page.click("text=Label a text or a list of texts")
        page.click("text=Try it out")
        page.click("button.execute")
        page.wait_for_selector(".live-responses-table .response-col_status >> text=200")
    assert elsewhere == []
    assert complaints == []


def test_wrong_keys_are_counted_held_back_and_told_in_sum(
    keyed: httpx.Client, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middleware, "WRONG_KEY_DELAY_S", 0.3)

    def ask(key: str) -> tuple[int, float]:
        start = time.monotonic()
        answer = keyed.post("/predict", json={"text": "好"}, headers={"Authorization": f"Bearer {key}"})
        return answer.status_code, time.monotonic() - start

    with ThreadPoolExecutor(20) as pool:
        wrong = [pool.submit(ask, f"wrong {number}") for number in range(20)]
        right = [ask(KEY) for _ in range(5)]
        outcomes = [one.result() for one in wrong]
    assert {status for status, _ in outcomes} == {401}
    assert min(seconds for _, seconds in outcomes) >= 0.3
    assert {status for status, _ in right} == {200}
    assert ask("x")[0] == 401
    start = time.monotonic()
    assert keyed.get("/metrics").status_code == 401
    assert time.monotonic() - start < 0.3, "no key is no guess"
    metrics = keyed.get("/metrics", headers={"Authorization": f"Bearer {KEY}"}).text
    assert read_metric(metrics, "sentifactory_wrong_keys_total") == 21
    told = capfd.readouterr().err
    assert told.count("\n") == 1
    assert "wrong 3" not in told
    assert KEY not in told


def test_wrong_keys_take_only_so_many_places(keyed: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "WRONG_KEY_DELAY_S", 30.0)
    monkeypatch.setattr(middleware, "MAX_DELAYED", 0)
    assert keyed.get("/metrics", headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert keyed.get("/health", headers={"Authorization": f"Bearer {KEY}"}).status_code == 200


def test_keys_that_can_be_guessed_are_known() -> None:
    weak = ["secret", "password123", "a" * 64, "abc" * 30, "12345678901234567890", "changeme-changeme-changeme"]
    assert [key for key in weak if not is_weak_key(key)] == []
    sound = [SOUND_KEY, "Zq7-vP2x_Lw9RkT4mNb8", "f47ac10b-58cc-4372-a567-0e02b2c3d479"]
    assert [key for key in sound if is_weak_key(key)] == []


@pytest.mark.parametrize(
    ("words", "key", "number"),
    [
        ([], "secret", 0),
        (["--host", "0.0.0.0"], "secret", 1),
        (["--host", "0.0.0.0"], SOUND_KEY, 0),
        (["--host", "0.0.0.0"], None, 1),
        (["--host", "127.0.0.2"], None, 0),
    ],
)
def test_a_weak_key_is_warned_of_where_others_reach_the_service(
    model_folder: Any, monkeypatch: pytest.MonkeyPatch, capfd, words: list[str], key: str | None, number: int
) -> None:
    (model_folder / "run.json").write_text("{}")  # without a record of training there is one more warning
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    if key is not None:
        monkeypatch.setenv(KEY_VARIABLE, key)
    seen: list[Access] = []

    def stop(access: Access) -> None:
        seen.append(access)
        raise KeyboardInterrupt

    monkeypatch.setattr(run_service, "bind_socket", stop)
    arguments = ["serve", str(model_folder), "--allowed_host", "a.example", "--allowed_host", "b.example", *words]
    result = CliRunner().invoke(build_app(), arguments)
    assert seen, result.output
    assert seen[0].allowed_hosts == ("a.example", "b.example")
    told = capfd.readouterr().err + result.output
    assert told.count("WARNING") == number
    assert key is None or key not in told


def test_no_header_writes_into_the_log(keyed: httpx.Client, capfd: pytest.CaptureFixture[str]) -> None:
    forged = b"1.2.3.4\x85Listening on 0.0.0.0 without a key\x9b2J"  # a proxy of this machine names its callers
    keyed.get("/metrics", headers={"Authorization": "Bearer wrong", "X-Forwarded-For": forged})
    told = capfd.readouterr().err
    assert len(told.splitlines()) == 1
    assert "1.2.3.4\\x85Listening" in told
    assert "\x9b" not in told
