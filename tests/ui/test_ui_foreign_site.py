"""Another web site in the browser of a logged-in user: it reads nothing and changes nothing, and the page works."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from page_server import PASSWORD, serve_page
from real_browser import IN_A_BROWSER
from ui_workshop import build_workshop

from sentifactory.ui.page_settings import USER_NAME
from tools.docs.chromium import open_browser

pytestmark = IN_A_BROWSER
PATIENCE_MS = 120_000
# What a site tries, with the user's cookies; each ends as "read: ..." only where an answer can be read.
ATTACKS = """async (page) => {
  const evil = new FormData();
  evil.append("files", new File(["label,text\\n1,x\\n"], "evil.csv"));
  const body = JSON.stringify({data: ["好", "pretrained/tiny", null]});
  const plain = {"Content-Type": "text/plain"}, json = {"Content-Type": "application/json"};
  const ways = {
    config: ["/config", {}],
    api: ["/gradio_api/info", {}],
    predict: ["/gradio_api/call/predict", {method: "POST", body, headers: json}],
    "predict without asking": ["/gradio_api/call/predict", {method: "POST", body, headers: plain}],
    upload: ["/gradio_api/upload", {method: "POST", body: evil}],
    "upload unseen": ["/gradio_api/upload", {method: "POST", body: evil, mode: "no-cors"}],
    "predict unseen": ["/gradio_api/call/predict", {method: "POST", body, headers: plain, mode: "no-cors"}],
    logout: ["/logout", {mode: "no-cors"}],
  };
  const found = {};
  for (const [name, [place, how]] of Object.entries(ways)) {
    try {
      const answer = await fetch(page + place, {credentials: "include", ...how});
      found[name] = answer.type === "opaque" ? "unseen" : "read: " + answer.status;
    } catch (error) {
      found[name] = "blocked";
    }
  }
  // Listens before the part begins to load: an event that has passed is never told.
  const load = (part, begin = () => {}) => new Promise((done) => {
    part.onload = part.onmessage = part.onopen = () => done("read");
    part.onerror = () => done("blocked");
    begin(part);
  });
  found.script = await load(document.createElement("script"), (script) => {
    script.src = page + "/theme.css";
    document.body.append(script);
  });
  found.image = await load(new Image(), (image) => { image.src = page + "/static/img/logo.svg"; });
  found.events = await load(new EventSource(page + "/gradio_api/heartbeat/x", {withCredentials: true}));
  found.socket = await load(new WebSocket(page.replace("http", "ws") + "/gradio_api/stream/x"));
  return found;
}"""
FORM = """(page) => {
  const form = document.createElement("form");
  Object.assign(form, {method: "POST", action: page + "/gradio_api/upload", enctype: "multipart/form-data"});
  const input = document.createElement("input"), box = new DataTransfer();
  Object.assign(input, {type: "file", name: "files"});
  box.items.add(new File(["label,text\\n"], "evil_form.csv"));
  input.files = box.files;
  form.append(input);
  document.body.append(form);
  form.submit();
}"""


class _Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>evil</title><body>")

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def site_port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_another_site_reads_nothing_and_changes_nothing(tmp_path: Path, site_port: int) -> None:
    from playwright.sync_api import expect

    build_workshop(tmp_path)
    with serve_page(tmp_path, "--tunnel", "--models", "pretrained") as address, open_browser() as browser:
        context = browser.new_context(locale="en-US")
        context.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        page = context.new_page()
        page.goto(address)
        page.locator("input[type=text], input:not([type])").first.fill(USER_NAME)
        page.locator("input[type=password]").fill(PASSWORD)
        page.keyboard.press("Enter")
        expect(page.get_by_role("tab", name="Compare")).to_be_visible()
        assert {cookie["sameSite"] for cookie in context.cookies(address)} == {"Lax"}

        # The same host at another port is the same site: its requests carry the cookies.
        for host in ("127.0.0.1", "localhost", "evil.localhost"):
            evil = context.new_page()
            evil.goto(f"http://{host}:{site_port}/")
            found = evil.evaluate(ATTACKS, address)
            unseen = {"upload unseen", "predict unseen", "logout"}
            assert {name: end for name, end in found.items() if name in unseen} == dict.fromkeys(unseen, "unseen")
            assert set(found.values()) - {"unseen"} == {"blocked"}, (host, found)
            with evil.expect_navigation():
                evil.evaluate(FORM, address)
            assert "Another web site" in evil.locator("body").inner_text()
            evil.close()
        assert not list((tmp_path / "space").rglob("evil*"))

        # A link from there leads to the page, and the page works as before, uploads as well.
        evil = context.new_page()
        evil.goto(f"http://localhost:{site_port}/")
        evil.evaluate("(page) => { document.body.innerHTML = `<a href='${page}'>there</a>`; }", address)
        evil.get_by_text("there").click()
        expect(evil.get_by_role("tab", name="Compare")).to_be_visible()
        evil.close()
        page.get_by_label("Reviews, one per line").fill("很好 喜欢 满意")
        page.get_by_role("button", name="Ask both models").click()
        expect(page.locator("#answers tbody tr")).to_have_count(1)
        page.get_by_role("tab", name="Compare").click()
        page.locator("#compare-file input[type=file]").set_input_files(str(tmp_path / "my_reviews.csv"))
        expect(page.locator("#compare-rows tbody tr")).to_have_count(5)  # received, and read
        assert [path.name for path in (tmp_path / "space" / "temporary").glob("*/*.csv")] == ["my_reviews.csv"]
        with page.expect_download() as download:
            page.locator("#compare-file a").first.click()
        assert Path(download.value.path()).read_bytes() == (tmp_path / "my_reviews.csv").read_bytes()
