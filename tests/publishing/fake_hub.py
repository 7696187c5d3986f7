"""A model hub on this machine that speaks what huggingface_hub calls: sign in, create, upload (LFS), commit, download.

It keeps what arrives in memory, writes down every request, and says no where a test tells it to. Not spoken: xet.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_" + "fakefakefakefakefakefakefakefake42"
LARGE_BYTES = 10_000
DROP = "drop"


def hash_blob(content: bytes) -> str:
    """What git calls a file's content."""
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest()


@dataclass
class Request:
    step: str
    path: str
    authorization: str
    body: bytes


@dataclass
class Repo:
    is_private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)
    n_commits: int = 0

    @property
    def sha(self) -> str:
        return hash_blob(str(self.n_commits).encode())


@dataclass
class FakeHub:
    """The state of the hub, shared by the threads that answer.

    Attributes:
        faults: by step, what the next requests of that step get: a status, or `DROP` (the connection ends half-way).
    """

    repos: dict[str, Repo] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    faults: dict[str, deque[int | str]] = field(default_factory=dict)
    address: str = ""

    def fail(self, step: str, *answers: int | str) -> None:
        self.faults[step] = deque(answers)

    def take_fault(self, step: str) -> int | str | None:
        waiting = self.faults.get(step)
        return waiting.popleft() if waiting else None

    def steps(self) -> list[str]:
        return [request.step for request in self.requests]

    def describe(self, repo: Repo, path: str) -> dict[str, Any]:
        content = repo.files[path]
        entry = {"type": "file", "path": path, "size": len(content), "oid": hash_blob(content)}
        if path in repo.large:
            sha = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": sha, "size": len(content), "pointerSize": 134}
        return entry


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.answer()

    def do_HEAD(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def do_PUT(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        step = name_step(self.command, path)
        fault = self.hub.take_fault(step)
        if fault == DROP:
            length = int(self.headers.get("Content-Length", "2"))
            got = self.rfile.read(length // 2) if self.headers.get("Content-Length") else self.rfile.read(100)
            self.hub.requests.append(Request(step, self.path, self.headers.get("Authorization", ""), got))
            self.close_connection = True
            self.connection.close()
            return
        body = self.read_body()
        self.hub.requests.append(Request(step, self.path, self.headers.get("Authorization", ""), body))
        if isinstance(fault, int):
            self.reply({"error": "no"}, fault)
        elif step not in ("put", "resolve") and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.reply({"error": "Invalid credentials"}, 401)
        else:
            getattr(self, f"answer_{step}")(path, body)

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", "0")))

    def reply(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def find_repo(self, path: str, after: str) -> Repo | None:
        repo_id = "/".join(path.removeprefix(after).split("/")[:2]).removesuffix(".git")
        repo = self.hub.repos.get(repo_id)
        if repo is None:
            self.reply({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        return repo

    def answer_whoami(self, path: str, body: bytes) -> None:
        self.reply({"name": "me", "type": "user", "orgs": []})

    def answer_create(self, path: str, body: bytes) -> None:
        wish = json.loads(body)
        repo_id = f"{wish.get('organization') or 'me'}/{wish['name']}"
        url = f"{self.hub.address}/{repo_id}"
        if repo_id in self.hub.repos:
            self.reply({"error": "You already created this model repo", "url": url}, 409)
            return
        is_private = wish.get("visibility", "public") == "private" or bool(wish.get("private"))
        self.hub.repos[repo_id] = Repo(is_private)
        self.reply({"url": url, "name": repo_id})

    def answer_info(self, path: str, body: bytes) -> None:
        if (repo := self.find_repo(path, "/api/models/")) is not None:
            siblings = [{"rfilename": name} for name in repo.files]
            repo_id = "/".join(path.split("/")[3:5])
            self.reply({"id": repo_id, "private": repo.is_private, "sha": repo.sha, "siblings": siblings, "tags": []})

    def answer_tree(self, path: str, body: bytes) -> None:
        if (repo := self.find_repo(path, "/api/models/")) is not None:
            self.reply([self.hub.describe(repo, name) for name in sorted(repo.files)])

    def answer_paths(self, path: str, body: bytes) -> None:
        if (repo := self.find_repo(path, "/api/models/")) is not None:
            wanted = parse_qs(body.decode())["paths"]
            self.reply([self.hub.describe(repo, name) for name in wanted if name in repo.files])

    def answer_validate(self, path: str, body: bytes) -> None:
        text = json.loads(body)["content"]
        if not text.startswith("---\n"):
            self.reply({"errors": [{"message": "no metadata"}], "warnings": []}, 400)
            return
        self.reply({"errors": [], "warnings": []})

    def answer_preupload(self, path: str, body: bytes) -> None:
        if (repo := self.find_repo(path, "/api/models/")) is None:
            return
        files = []
        for file in json.loads(body)["files"]:
            name = file["path"]
            mode = "lfs" if file["size"] > LARGE_BYTES or name.endswith(".safetensors") else "regular"
            oid = self.hub.describe(repo, name)["oid"] if name in repo.files else None
            files.append({"path": name, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.reply({"files": files})

    def answer_batch(self, path: str, body: bytes) -> None:
        found = []
        for item in json.loads(body)["objects"]:
            entry = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.hub.objects:
                entry["actions"] = {
                    "upload": {"href": f"{self.hub.address}/storage/{item['oid']}?signature=signed-secret"},
                    "verify": {"href": f"{self.hub.address}/verify/{item['oid']}"},
                }
            found.append(entry)
        self.reply({"transfer": "basic", "objects": found})

    def answer_put(self, path: str, body: bytes) -> None:
        oid = path.rsplit("/", 1)[1]
        if hashlib.sha256(body).hexdigest() != oid:
            self.reply({"error": "damaged"}, 400)
            return
        self.hub.objects[oid] = body
        self.reply({})

    def answer_verify(self, path: str, body: bytes) -> None:
        self.reply({}, 200 if json.loads(body)["oid"] in self.hub.objects else 404)

    def answer_commit(self, path: str, body: bytes) -> None:
        if (repo := self.find_repo(path, "/api/models/")) is None:
            return
        for line in body.splitlines():
            row = json.loads(line)
            value = row["value"]
            if row["key"] == "file":
                repo.files[value["path"]] = base64.b64decode(value["content"])
                repo.large.discard(value["path"])
            elif row["key"] == "lfsFile":
                repo.files[value["path"]] = self.hub.objects[value["oid"]]
                repo.large.add(value["path"])
            elif row["key"] == "deletedFile":
                repo.files.pop(value["path"])
        repo.n_commits += 1
        url = f"{self.hub.address}/{'/'.join(path.split('/')[3:5])}/commit/{repo.sha}"
        self.reply({"commitUrl": url, "commitOid": repo.sha, "success": True})

    def answer_resolve(self, path: str, body: bytes) -> None:
        if (repo := self.find_repo(path, "/")) is None:
            return
        name = path.split("/resolve/", 1)[1].split("/", 1)[1]
        if name not in repo.files:
            self.reply({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
            return
        entry = self.hub.describe(repo, name)
        etag = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
        self.reply(repo.files[name], headers={"X-Repo-Commit": repo.sha, "ETag": f'"{etag}"'})


def name_step(method: str, path: str) -> str:
    if path == "/api/whoami-v2":
        return "whoami"
    if path == "/api/repos/create":
        return "create"
    if path == "/api/validate-yaml":
        return "validate"
    for part, step in (
        ("/preupload/", "preupload"), ("/commit/", "commit"), ("/tree/", "tree"), ("/paths-info/", "paths"),
        ("/info/lfs/objects/batch", "batch"), ("/storage/", "put"), ("/verify/", "verify"), ("/resolve/", "resolve"),
    ):  # fmt: skip
        if part in path:
            return step
    return "info"


@contextmanager
def serve_hub() -> Iterator[FakeHub]:
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
