"""What stands before the page: its own origin, listed routes, a login, bounded bodies and uploads, no tracebacks."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from page_calls import ask_action, call_action, find_action
from page_server import RIGHT, name_log, serve_page

from sentifactory.errors import ConfigError
from sentifactory.ui import uploads, workspace
from sentifactory.ui.logins import FREE_FAILURES, FREE_FAILURES_OF_ALL, MAX_DELAY_S, LoginThrottle
from sentifactory.ui.origins import is_foreign
from sentifactory.ui.page_settings import MAX_BODY_BYTES
from sentifactory.ui.security_middleware import MAX_LOGIN_BYTES, needs_login
from sentifactory.ui.uploads import MAX_FILE_BYTES, MAX_FILES, Uploads
from sentifactory.ui.workspace import open_workspace

HOST = "page.example"
# Names of this machine's folders and of Python's files; a traceback has both.
LEAK = re.compile(r"Traceback|site-packages|\.py\b|/usr/|/tmp/|" + re.escape(str(Path.cwd())))
PATHS = (
    "/", "/config", "/gradio_api/info", "/gradio_api/openapi.json", "/gradio_api/queue/join", "/gradio_api/queue/data",
    "/gradio_api/queue/data?session_hash=x", "/gradio_api/queue/status", "/gradio_api/upload", "/gradio_api/upload/",
    "/gradio_api/upload_progress?upload_id=x", "/gradio_api/file=/etc/passwd", "/gradio_api/file=https://evil.example/",
    "/gradio_api/file=//evil.example/", "/gradio_api/file=..%2f..%2fetc%2fpasswd", "/gradio_api/file=%00",
    "/gradio_api/file/etc/passwd", "/gradio_api/proxy=https://evil.example/", "/theme.css?v=1", "/static/%2e%2e/x",
    "/assets/" + "a" * 5000, "/assets/%00", "/svelte/%ff", "/login", "/logout", "/gradio_api/app_id", "/monitoring",
    "/monitoring/summary", "/gradio_api/component_server", "/gradio_api/reset", "/gradio_api/cancel",
    "/gradio_api/token", "/gradio_api/user", "/gradio_api/deep_link?session_hash=x", "/?deep_link=../../x",
    "/config?deep%5flink=/etc", "/gradio_api/startup-events", "/manifest.json", "/pwa_icon/10",
    "/gradio_api/process_recording", "/gradio_api/vibe-edit", "/gradio_api/vibe-code", "/gradio_api/dev/reload",
    "/gradio_api/stream/x", "/gradio_api/stream/a/1/2/playlist.m3u8", "/gradio_api/custom_component/x/client/y/z",
    "/gradio_api/run/predict", "/gradio_api/api/predict", "/gradio_api/call/nothing", "/gradio_api/call/predict/x",
    "/docs", "/openapi.json", "/gradio_api/mcp/sse", "//", "/%ff",
)  # fmt: skip
BODIES = (
    b"", b"{", b"[" * 50_000, b'{"a":' * 3000 + b"1" + b"}" * 3000, b"\xff\xfe", b"null", b'{"data":[]}',
    b'{"data":["a"],"fn_index":9999,"session_hash":"s"}', b'{"data":["a"],"fn_index":-1,"session_hash":"s"}',
    b'{"data":"x","session_hash":null}', b'{"data":["x"],"session_hash":["a"],"fn_index":"a"}',
    b'{"data":[{"path":"/etc/passwd","meta":{"_type":"gradio.FileData"}},"en"]}',
    b'{"data":[{"path":"https://evil.example/x","meta":{"_type":"gradio.FileData"}},"en"]}',
    b'{"data":[NaN,1e999,"\\ud800"],"session_hash":"\\ud800","fn_index":0}',
    b'{"component_id":1,"session_hash":"s","fn_name":"ls","data":[]}',
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with serve_page(folder, "--tunnel", "--allow_remote_training") as found:
        yield found
    assert [path.name for path in (folder / "space" / "temporary").iterdir() if len(path.name) == 32] == []


@pytest.fixture
def outsider(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, trust_env=False, timeout=60) as client:
        yield client


@pytest.fixture
def user(outsider: httpx.Client) -> httpx.Client:
    assert outsider.post("/login", data=RIGHT).status_code == 200
    return outsider


def check_answer(answer: httpx.Response, name: Any) -> None:
    assert not LEAK.search(answer.text), (name, answer.text[:300])
    assert not [key for key in answer.headers if key.startswith("access-control-")], name
    if answer.status_code >= 400:
        assert len(answer.text) < 1000 or answer.status_code == 422, name
    assert answer.headers["x-content-type-options"] == "nosniff", name
    place = answer.headers.get("location", "/")
    assert re.match(r"/(?!/)", place), name


def knock(client: httpx.Client, statuses: set[int]) -> None:
    """Ask for every route in every way; what an answer says is short, and nothing of this machine."""
    for path in PATHS:
        for method in ("GET", "HEAD", "OPTIONS", "PUT", "TRACE"):
            if path != "/logout":
                answer = client.request(method, path)
                check_answer(answer, (method, path))
                assert answer.status_code in statuses, (method, path)
                assert answer.status_code == 404 or method in ("GET", "HEAD"), (method, path)
    for path in ("/gradio_api/queue/join", "/gradio_api/call/predict", "/gradio_api/cancel", "/gradio_api/upload",
                 "/gradio_api/run/predict", "/gradio_api/component_server", "/gradio_api/stream/x"):  # fmt: skip
        for body in BODIES:
            for kind in ("application/json", "multipart/form-data; boundary=x", "multipart/form-data"):
                answer = client.post(path, content=body, headers={"content-type": kind})
                check_answer(answer, (path, body[:40]))
                assert answer.status_code in {*statuses, 500}, (path, body[:40], answer.status_code)


@pytest.mark.slow
def test_an_outsider_learns_nothing_and_gets_nowhere(outsider: httpx.Client, folder: Path) -> None:
    knock(outsider, {200, 401, 403, 404, 405})
    front = outsider.get("/").text
    assert "/predict" not in front
    assert "base_model" not in front
    assert outsider.get("/gradio_api/startup-events").json() is False
    assert outsider.post("/login", content=b"x" * (MAX_LOGIN_BYTES + 1)).status_code == 413
    endless = (b"x" * 1000 for _ in range(MAX_LOGIN_BYTES // 1000 + 1))
    assert outsider.post("/login", content=endless).status_code == 413
    assert outsider.post("/gradio_api/queue/join", content=b"x" * (MAX_BODY_BYTES + 1)).status_code == 401
    assert "Traceback" not in name_log(folder).read_text(), "nor does anybody fill the log"


@pytest.mark.slow
def test_who_is_logged_in_meets_no_traceback(user: httpx.Client) -> None:
    knock(user, {200, 400, 403, 404, 405, 422})
    progress = user.get("/gradio_api/upload_progress?upload_id=x")  # the same for everybody
    assert progress.text == 'data: {"msg": "done"}\n\n'
    failed = user.post("/gradio_api/queue/join", json={"data": [], "fn_index": 9999, "session_hash": "s"})
    assert failed.status_code == 500
    assert "terminal" in failed.json()["detail"]
    assert "终端" in failed.json()["detail"]
    large = user.post("/gradio_api/queue/join", content=b" " * (MAX_BODY_BYTES + 1))
    assert large.status_code == 413
    action = find_action(user.get("/config").json(), "ask")
    for route in ("run", "api", "call"):  # they would go round the queue
        question = {"data": ["好", None, None], "fn_index": action["id"]}
        answer = user.post(f"/gradio_api/{route}/predict", json=question)
        assert answer.status_code == 404, route


@pytest.mark.slow
def test_the_cookie_is_for_this_site_alone(outsider: httpx.Client) -> None:
    for headers, n_secure in (({}, 1), ({"X-Forwarded-Proto": "https"}, 2)):
        answer = outsider.post("/login", data=RIGHT, headers=headers)
        cookies = answer.headers.get_list("set-cookie")
        assert len(cookies) == 2
        assert [cookie.lower().count("samesite=lax") for cookie in cookies] == [1, 1]
        assert [cookie.lower().count("samesite") for cookie in cookies] == [1, 1]
        assert sum("secure;" in cookie.lower() for cookie in cookies) == n_secure
        assert all("httponly" in cookie.lower() for cookie in cookies)


@pytest.mark.slow
def test_other_origins_are_answered_nothing(user: httpx.Client, address: str, folder: Path) -> None:
    port = httpx.URL(address).port
    foreign: tuple[dict[str, str], ...] = (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:9"},
        {"Origin": f"http://localhost:{port}"},
        {"Origin": f"http://127.0.0.1:{port}.evil.example"},
        {"Origin": "https://127.0.0.1"},
        {"Origin": address, "Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
        {"Origin": "https://evil.example", "X-Forwarded-Host": f"127.0.0.1:{port}"},
    )
    for headers in foreign:
        for method, path in (("GET", "/config"), ("GET", "/"), ("GET", "/logout"), ("POST", "/gradio_api/queue/join"),
                             ("OPTIONS", "/gradio_api/queue/join"), ("GET", "/gradio_api/queue/data?session_hash=s"),
                             ("POST", "/login")):  # fmt: skip
            answer = user.request(method, path, headers={"Access-Control-Request-Method": "POST", **headers})
            assert answer.status_code == 403, (headers, path)
            check_answer(answer, (headers, path))
        answer = user.post("/gradio_api/upload", files={"files": ("evil.csv", b"label,text\n")}, headers=headers)
        assert answer.status_code == 403, headers
    twice = [("Origin", address), ("Origin", "https://evil.example")]
    assert user.post("/gradio_api/cancel", json={}, headers=twice).status_code == 403
    referred = user.post("/gradio_api/cancel", json={}, headers={"Referer": "https://evil.example/page"})
    assert referred.status_code == 403
    assert not list((folder / "space").rglob("evil*"))
    assert user.get("/config").status_code == 200, "nobody logged the user out"
    own: tuple[dict[str, str], ...] = (
        {"Origin": address, "Sec-Fetch-Site": "same-origin"},
        {"Referer": f"{address}/"},
        {"Origin": "https://a.ngrok.app", "Host": "a.ngrok.app"},
        {"Origin": "https://a.ngrok.app", "X-Forwarded-Host": "a.ngrok.app", "X-Forwarded-Proto": "https"},
    )
    for headers in own:
        answer = user.post("/gradio_api/reset", json={"event_id": "x"}, headers=headers)
        assert answer.status_code == 200, headers
        check_answer(answer, headers)
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert user.get("/", headers=link).status_code == 200
    assert user.get("/logout", headers=link).status_code == 403


@pytest.mark.slow
def test_nobody_is_led_to_the_host_that_a_request_names(user: httpx.Client) -> None:
    for headers in ({"Host": "evil.example"}, {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}):
        answer = user.get("/logout", headers=headers)
        assert (answer.status_code, answer.headers["location"]) == (302, "/"), headers


@pytest.mark.slow
def test_uploads_have_names_and_limits(user: httpx.Client, folder: Path) -> None:
    rows = [f"{at % 2},第{at}间房{'很好很满意' if at % 2 else '太差很失望'}{at * at}\n" for at in range(80)]
    content = ("label,text\n" + "".join(rows)).encode()
    answer = user.post("/gradio_api/upload", files={"files": ("../../评论 #1?.csv", content)})
    assert answer.status_code == 200
    (name,) = answer.json()
    assert re.fullmatch(r"[0-9a-f]{32}/评论_1\.csv", name)
    kept = user.get(f"/gradio_api/file={name}")
    assert kept.content == content
    assert kept.headers["content-disposition"].startswith("attachment")
    for other in ("/etc/passwd", "https://evil.example/", f"{name}/..", f"../temporary/{name}", f"{'0' * 32}/a.csv"):
        answer = user.get(f"/gradio_api/file={other}", follow_redirects=False)
        assert answer.status_code == 400, other
        data = [{"path": other, "meta": {"_type": "gradio.FileData"}}, "en", *[None] * 5]
        assert ask_action(user, "check_data", data).status_code == 400, other
    data = [{"path": name, "meta": {"_type": "gradio.FileData"}}, "en", *[None] * 5]  # nothing chosen
    told = call_action(user, "check_data", data)
    assert '"success":true' in told.replace(" ", "")
    assert not LEAK.search(told)
    sizes = {"two files": [("files", ("a.csv", b"a")), ("files", ("b.csv", b"b"))], "none": [("other", ("a", b"a"))]}
    for kind, files in sizes.items():
        assert user.post("/gradio_api/upload", files=files).status_code == 400, kind
    large = user.post("/gradio_api/upload", files={"files": ("a.csv", b"0" * (MAX_FILE_BYTES + 30_000))})
    assert large.status_code == 413
    endless = (b"--x\r\n" if at == 0 else b"0" * 1_000_000 for at in range(MAX_FILE_BYTES // 1_000_000 + 3))
    kinds = {"content-type": "multipart/form-data; boundary=x"}
    assert user.post("/gradio_api/upload", content=endless, headers=kinds).status_code in (400, 413)
    temporary = folder / "space" / "temporary"
    for _ in range(MAX_FILES):
        last = user.post("/gradio_api/upload", files={"files": ("a.csv", b"a")})
    assert last.status_code == 429
    assert len(list(temporary.glob("*/*"))) <= MAX_FILES
    for path in temporary.iterdir():
        os.utime(path, (time.time() - uploads.KEEP_S - 1,) * 2)
    assert user.post("/gradio_api/upload", files={"files": ("a.csv", b"a")}).status_code == 200
    assert len(list(temporary.glob("*/*"))) == 1


def test_only_what_was_put_down_here_is_swept(tmp_path: Path) -> None:
    space = open_workspace(tmp_path / "space")
    names = ("0" * 32, "1" * 64, "mine", "tmp_notes_of_mine")
    for name in names:
        (space.temporary / name).mkdir()
        (space.temporary / name / "a.csv").write_text("a")
    (space.temporary / ("2" * 32)).symlink_to(tmp_path)
    (space.temporary / "tmpabcdefgh").write_text("")
    (space.temporary / "tmp12345678").write_text("not gradio's: it leaves them empty")
    Uploads(space).sweep()
    assert len(list(space.temporary.iterdir())) == 7, "all of it is young"
    Uploads(space).sweep(older_than_s=-60)
    assert {path.name for path in space.temporary.iterdir()} == {"mine", "tmp_notes_of_mine", "2" * 32, "tmp12345678"}
    assert tmp_path.is_dir()


def test_what_is_kept_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = open_workspace(tmp_path / "space")
    (tmp_path / "a.csv").write_text("12345")
    monkeypatch.setattr(workspace, "MAX_KEPT_FILES", 2)
    for _ in range(2):
        space.keep_upload(tmp_path / "a.csv", "a")
    with pytest.raises(ConfigError) as caught:
        space.keep_upload(tmp_path / "a.csv", "a")
    assert caught.value.code == "uploads-full"
    monkeypatch.setattr(workspace, "MAX_KEPT_FILES", 9)
    monkeypatch.setattr(workspace, "MAX_KEPT_BYTES", 14)
    with pytest.raises(ConfigError):
        space.keep_upload(tmp_path / "a.csv", "a")
    assert len(list(space.uploads.iterdir())) == 2


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], False),
        ([("origin", "http://page.example")], False),
        ([("origin", "https://page.example")], False),  # a tunnel ends the TLS
        ([("origin", "http://PAGE.example:80")], False),
        ([("origin", "https://page.example:443")], False),
        ([("origin", "http://page.example:8080")], True),
        ([("origin", "https://page.example:80")], True),
        ([("origin", "https://page.example.evil.example")], True),
        ([("origin", "https://evil.page.example")], True),
        ([("origin", "https://page.example@evil.example")], True),
        ([("origin", "https://evil.example#page.example")], True),
        ([("origin", "https://evil.example, http://page.example")], True),
        ([("origin", "http://page.example, https://evil.example")], True),
        ([("origin", "file://")], True),
        ([("origin", "null")], True),
        ([("origin", "")], True),
        ([("origin", "http://[broken")], True),
        ([("origin", "http://page.example:99999")], True),
        ([("origin", "http://page.example"), ("origin", "http://page.example")], True),
        ([("referer", "http://page.example/x")], False),
        ([("referer", "https://evil.example/http://page.example")], True),
        ([("sec-fetch-site", "same-origin")], False),
        ([("sec-fetch-site", "none")], False),
        ([("sec-fetch-site", "same-site")], True),
        ([("sec-fetch-site", "cross-site"), ("origin", "http://page.example")], True),
        ([("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")], True),
    ],
)
def test_origins(headers: list[tuple[str, str]], expected: bool) -> None:
    pairs = [(name.encode(), value.encode()) for name, value in [("host", HOST), *headers]]
    scope = {"method": "POST", "path": "/gradio_api/queue/join", "scheme": "http", "headers": pairs}
    assert is_foreign(scope, is_remote=True) is expected
    assert is_foreign(scope, is_remote=False) is expected
    over_tls = {**scope, "scheme": "https"}
    if dict(headers).get("origin", "").startswith("http:"):
        assert is_foreign(over_tls, is_remote=True)


def test_a_proxy_may_name_the_page_where_one_was_announced() -> None:
    pairs = [(b"host", b"127.0.0.1:7860"), (b"x-forwarded-host", b"a.example"), (b"origin", b"https://a.example")]
    scope = {"method": "POST", "path": "/", "scheme": "http", "headers": pairs}
    assert not is_foreign(scope, is_remote=True)
    assert is_foreign(scope, is_remote=False)
    pairs[1] = (b"x-forwarded-host", b"a.example, inner.example")
    assert not is_foreign(scope, is_remote=True)
    pairs.append((b"x-forwarded-host", b"a.example"))
    assert is_foreign(scope, is_remote=True)


def test_routes_that_the_page_does_not_use_are_not_there() -> None:
    assert needs_login("GET", "/") is False
    assert needs_login("POST", "/login") is False
    assert needs_login("GET", "/config") is True
    unused = (
        ("POST", "/"), ("GET", "/gradio_api/token"), ("GET", "/login"), ("POST", "/gradio_api/stream/x"),
        ("PUT", "/gradio_api/upload"), ("GET", "/monitoring"), ("GET", "/gradio_api/queue/join\n"),
        ("GET", "/gradio_api/proxy=http://x"),
    )  # fmt: skip
    for method, path in unused:
        assert needs_login(method, path) is None, path


def test_failures_slow_their_address_and_many_slow_all_and_none_is_shut_out() -> None:
    now = [0.0]
    throttle = LoginThrottle(clock=lambda: now[0])

    def fail(address: str) -> float | None:
        hold_s = throttle.start(address)
        if hold_s is not None:
            throttle.end(address, is_right=False)
        return hold_s

    holds = [fail("192.0.2.1") for _ in range(FREE_FAILURES + 6)]
    assert holds[:FREE_FAILURES] == [0.0] * FREE_FAILURES
    assert holds[FREE_FAILURES:] == [0.5, 1.0, 2.0, 4.0, MAX_DELAY_S, MAX_DELAY_S]
    assert throttle.start("192.0.2.2") == 0.0
    throttle.end("192.0.2.2", is_right=True)
    # One of an address at a time; of this machine's, behind which a tunnel may hide everybody, any number.
    assert throttle.start("192.0.2.1") == MAX_DELAY_S
    assert throttle.start("192.0.2.1") is None
    throttle.end("192.0.2.1", is_right=True)
    assert throttle.start("192.0.2.1") == 0.0, "the right password wipes the slate"
    assert [throttle.start("127.0.0.1") for _ in range(FREE_FAILURES + 3)][-1] == 2.0
    # From ever new addresses: all are slowed, also at once, and nobody is refused.
    now[0] = 100.0
    many = [fail(f"2001:db8:0:{at:x}::1") for at in range(FREE_FAILURES_OF_ALL + 200)]
    assert many[: FREE_FAILURES_OF_ALL + 1] == [0.0] * (FREE_FAILURES_OF_ALL + 1)
    assert many[FREE_FAILURES_OF_ALL + 40] == pytest.approx(4.0)
    assert many[-1] == throttle.start("198.51.100.7") == MAX_DELAY_S
    same_network = [fail(f"2001:db8:ffff::{at:x}") for at in range(FREE_FAILURES + 1)]
    now[0] = 170.0
    assert fail("2001:db8:ffff::abcd") == 1.0
    assert len(same_network) == FREE_FAILURES + 1
    assert fail("203.0.113.1") == 0.0, "a minute later all is as before"


@pytest.mark.slow
def test_guessing_is_slow_and_the_right_password_still_works(address: str) -> None:
    with httpx.Client(base_url=address, trust_env=False, timeout=60) as client:
        start, wrong = time.monotonic(), {**RIGHT, "password": "wrong"}
        headers = {"X-Forwarded-For": "203.0.113.9"}
        for _ in range(FREE_FAILURES + 2):
            assert client.post("/login", data=wrong, headers=headers).status_code == 400
        assert time.monotonic() - start >= 1.5
        start = time.monotonic()
        assert client.post("/login", data=RIGHT, headers={"X-Forwarded-For": "203.0.113.10"}).status_code == 200
        assert time.monotonic() - start < MAX_DELAY_S
        assert client.post("/login", data=RIGHT, headers=headers).status_code == 200


def test_a_file_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    space = open_workspace(tmp_path / "space")
    parts = iter([b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.csv"\r\n\r\nabc', None])

    async def receive() -> dict[str, Any]:
        part = next(parts)
        return (
            {"type": "http.disconnect"} if part is None else {"type": "http.request", "body": part, "more_body": True}
        )

    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", b"multipart/form-data; boundary=x")]}
    with pytest.raises(uploads.RefusedError) as caught:
        asyncio.run(Uploads(space).receive(scope, receive))
    assert (caught.value.status, caught.value.key) == (400, "broken_upload")
    assert list(space.temporary.iterdir()) == []


@pytest.mark.slow
def test_sentences_are_json_for_scripts_and_text_for_people(address: str) -> None:
    foreign = {"Origin": "https://evil.example"}
    with httpx.Client(base_url=address, trust_env=False, timeout=60) as client:
        assert json.loads(client.get("/config", headers=foreign).text)["detail"].count("\n") == 1
        answer = client.get("/", headers=foreign)
        assert answer.headers["content-type"].startswith("text/plain")
        assert len(answer.text.splitlines()) == 2
