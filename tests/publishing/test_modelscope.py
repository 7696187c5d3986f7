"""ModelScope through its own client: what it says no with becomes a sentence, before anything is sent."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_hub import FakeHub, serve_hub
from publishing_workshop import Workshop

from sentifactory.errors import ConfigError
from sentifactory.publishing.hub.publish import publish_model
from sentifactory.system.fingerprint import hash_file

MS_TOKEN = "ms-0a1b2c3d-1111-2222-3333-444455556666"


@pytest.fixture
def modelscope(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A server that knows nothing of ModelScope: it answers with the status that a test wants."""
    monkeypatch.setenv("MODELSCOPE_HOME", str(tmp_path / "ms-home"))
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "ms-cache"))
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", MS_TOKEN)
    with serve_hub() as served:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", served.address)
        yield served


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "does not accept the token (401)"), (403, "no permission for this"), (404, "(404)")],
)
def test_the_real_client_says_no_in_one_sentence(
    workshop: Workshop, modelscope: FakeHub, status: int, words: str
) -> None:
    modelscope.fail("info", *[status] * 50)
    with pytest.raises(ConfigError) as caught:
        publish_model(workshop.options(hub="modelscope"))
    assert words in caught.value.what
    assert "\n" not in caught.value.describe()
    assert MS_TOKEN not in caught.value.describe()
    assert all(b"safetensors" not in request.body for request in modelscope.requests)


class ScriptedApi:
    """Stands in for the client where a whole upload is wanted: it keeps what it is given."""

    files: dict[str, str] = {}  # noqa: RUF012 - one for a test, set by it
    created: dict[str, Any] = {}  # noqa: RUF012
    there: SimpleNamespace | None = None

    def __init__(self, config: Any) -> None:
        self.config = config

    def whoami(self) -> SimpleNamespace:
        return SimpleNamespace(username="me")

    def repo_exists(self, repo_id: str, kind: str) -> bool:
        return self.there is not None

    def get_repo(self, repo_id: str, kind: str) -> SimpleNamespace | None:
        return self.there

    def create_repo(self, repo_id: str, kind: str, **settings: Any) -> None:
        self.created.update(settings)

    def upload_folder(self, repo_id: str, kind: str, folder: Path, **settings: Any) -> None:
        self.files.update({path.name: hash_file(path) for path in folder.iterdir()})

    def delete_files(self, repo_id: str, kind: str, names: list[str], **settings: Any) -> None:
        for name in names:
            del self.files[name]

    def list_repo_files(self, repo_id: str, kind: str) -> list[SimpleNamespace]:
        return [SimpleNamespace(path=name, sha256=sha) for name, sha in self.files.items()]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> type[ScriptedApi]:
    kind = type("Api", (ScriptedApi,), {"files": {}, "created": {}, "there": None})
    monkeypatch.setitem(sys.modules, "modelscope_hub.api", SimpleNamespace(HubApi=kind))
    return kind


def test_it_is_private_and_whole(workshop: Workshop, scripted: type[ScriptedApi]) -> None:
    result = publish_model(workshop.options(hub="modelscope"))
    assert result["url"].startswith("https://")
    assert result["url"].endswith("/models/me/reviews")
    assert scripted.created == {"visibility": "private", "license": "gemma"}
    assert scripted.files["model.safetensors"] == hash_file(workshop.run / "model.safetensors")


def test_nothing_of_a_former_version_stays(workshop: Workshop, scripted: type[ScriptedApi]) -> None:
    scripted.there = SimpleNamespace(private=True)
    own = {"examples/model.onnx": "1", "notes.md": "2"}
    names = ["model-00001-of-00002.safetensors", "added_tokens.json", "export.json", "config.json"]
    former = dict.fromkeys(names, "3")
    scripted.files.update(own | former)
    publish_model(workshop.options(hub="modelscope"))
    assert own.items() <= scripted.files.items()
    assert former.keys() & scripted.files.keys() == {"config.json"}
    assert scripted.files["config.json"] == hash_file(workshop.run / "config.json")


def test_a_public_one_and_a_damaged_file_are_told(workshop: Workshop, scripted: type[ScriptedApi]) -> None:
    scripted.there = SimpleNamespace(private=None, visibility=5)
    with pytest.raises(ConfigError, match="already exists and is public"):
        publish_model(workshop.options(hub="modelscope"))
    assert scripted.files == {}
    scripted.there = SimpleNamespace(private=None, visibility=1)
    scripted.upload_folder = lambda self, *words, **settings: None  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match="Files on the hub differ"):
        publish_model(workshop.options(hub="modelscope"))


def test_without_the_package_the_command_is_named(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modelscope_hub.api", None)
    with pytest.raises(ConfigError, match="modelscope is not installed") as caught:
        publish_model(workshop.options(hub="modelscope"))
    assert caught.value.next_step == "pip install modelscope"
