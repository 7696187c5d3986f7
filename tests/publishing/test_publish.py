"""Publishing to a hub: what arrives, what the hub says no with, and what never leaves."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fake_hub import DROP, TOKEN, FakeHub, Repo
from publishing_workshop import Workshop

from sentifactory.engines.registry import split_by_prompt
from sentifactory.errors import ConfigError
from sentifactory.metrics.calibration import load_calibration
from sentifactory.models.hub import fetch_from_hub
from sentifactory.publishing.hub.publish import publish_model
from sentifactory.serving.backends.model_loading import ModelChoice
from sentifactory.task.model_folder import read_model_task, write_model_task
from sentifactory.task.task import BINARY_SENTIMENT
from sentifactory.task.task_choice import choose_task


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_what_arrives_is_what_was_sent(workshop: Workshop, hub: FakeHub) -> None:
    (workshop.run / "checkpoint-100").mkdir()
    (workshop.run / "checkpoint-100" / "optimizer.pt").write_bytes(b"state")
    before = sorted(path.name for path in workshop.run.parent.iterdir())
    result = publish_model(workshop.options())
    repo = hub.repos["me/reviews"]
    assert repo.is_private
    assert result["url"] == f"{hub.address}/me/reviews"
    assert set(repo.files) == set(result["files"]) == {
        "NOTICE", "README.md", "calibration.json", "config.json", "confusion_matrix.png", "evaluation.json",
        "model.safetensors", "run.json", "sentifactory_task.json", "tokenizer.json",
    }  # fmt: skip
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert sha256(repo.files[name]) == sha256((workshop.run / name).read_bytes())
    assert {"training_args.bin", "checkpoint-100"} <= set(result["stay_behind"])
    assert sorted(path.name for path in workshop.run.parent.iterdir()) == before  # nothing of ours stays


def test_no_secret_and_no_place_of_this_machine_leaves(
    workshop: Workshop, hub: FakeHub, capfd: pytest.CaptureFixture[str]
) -> None:
    publish_model(workshop.options())
    for request in hub.requests:
        assert TOKEN.encode() not in request.body
        assert TOKEN not in request.path
        # The storage behind the hub is another party: it gets signed addresses and no token.
        assert request.authorization == ("" if request.step == "put" else f"Bearer {TOKEN}")
    for name, content in hub.repos["me/reviews"].files.items():
        assert str(workshop.root).encode() not in content, name
        assert str(workshop.made_at).encode() not in content, name
    written = "".join(capfd.readouterr())
    assert TOKEN not in written
    assert "signed-secret" not in written


def test_a_second_time_sends_no_weights_again_and_changes_nothing(workshop: Workshop, hub: FakeHub) -> None:
    publish_model(workshop.options())
    files, n_puts = dict(hub.repos["me/reviews"].files), hub.steps().count("put")
    publish_model(workshop.options())
    assert hub.repos["me/reviews"].files == files
    assert hub.steps().count("put") == n_puts


def test_weights_of_an_earlier_upload_are_taken_away(workshop: Workshop, hub: FakeHub) -> None:
    own = {"notes.md": b"mine", "onnx/model.onnx": b"mine as well"}
    former = ("model-00001-of-00002.safetensors", "export.json", "added_tokens.json", "chat_template.jinja")
    hub.repos["me/reviews"] = Repo(True, own | dict.fromkeys(former, b"old"))
    publish_model(workshop.options())
    there = hub.repos["me/reviews"].files
    assert own.items() <= there.items()
    assert [name for name in former if there.get(name) == b"old"] == []
    assert "model-00001-of-00002.safetensors" not in there


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "status", "words"),
    [
        ("whoami", 401, "does not accept the token (401)"),
        ("create", 403, "has no permission for this on me/reviews (403)"),
        ("preupload", 404, "has no such repository, or this token cannot see it (404)"),
        ("commit", 409, "changed by somebody else at the same time (409)"),
        ("commit", 412, "changed by somebody else at the same time (412)"),
        ("create", 429, "limits the rate of requests (429)"),
        ("batch", 429, "limits the rate of requests (429)"),
        ("create", 500, "has an internal error (500)"),
        ("put", 500, "has an internal error (500)"),
        ("commit", 503, "has an internal error (503)"),
        ("commit", 418, "refused the request (418"),
    ],
)
def test_a_hub_that_says_no_is_one_sentence_and_a_rerun_completes(
    workshop: Workshop, hub: FakeHub, step: str, status: int, words: str
) -> None:
    hub.fail(step, *[status] * 1000)  # the client tries several times more, for each file
    with pytest.raises(ConfigError) as caught:
        publish_model(workshop.options())
    assert words in caught.value.what
    assert caught.value.next_step
    assert "\n" not in caught.value.describe()
    assert TOKEN not in caught.value.describe()
    assert not hub.repos.get("me/reviews", Repo(True)).files  # nothing half-published
    hub.faults.clear()
    publish_model(workshop.options())
    sent = hub.repos["me/reviews"].files["model.safetensors"]
    assert sha256(sent) == sha256((workshop.run / "model.safetensors").read_bytes())


def test_a_connection_that_breaks_once_is_mended_by_the_client(workshop: Workshop, hub: FakeHub) -> None:
    hub.fail("put", DROP)
    publish_model(workshop.options())
    sent = hub.repos["me/reviews"].files["model.safetensors"]
    assert sha256(sent) == sha256((workshop.run / "model.safetensors").read_bytes())


def test_a_connection_that_stays_broken_is_a_sentence_and_the_rerun_continues(
    workshop: Workshop, hub: FakeHub
) -> None:
    hub.fail("commit", DROP)
    with pytest.raises(ConfigError, match="failed or was interrupted") as caught:
        publish_model(workshop.options())
    assert "continues" in caught.value.next_step
    n_puts = hub.steps().count("put")
    publish_model(workshop.options())
    assert hub.steps().count("put") == n_puts  # the weights had arrived
    assert "model.safetensors" in hub.repos["me/reviews"].files


def test_what_arrived_damaged_is_told(workshop: Workshop, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    describe = FakeHub.describe

    def lie(self: FakeHub, repo: Repo, path: str) -> dict[str, object]:
        entry = describe(self, repo, path)
        return entry | ({"oid": "0" * 40} if path == "config.json" else {})

    monkeypatch.setattr(FakeHub, "describe", lie)
    with pytest.raises(ConfigError, match=r"differ from the local ones: config\.json"):
        publish_model(workshop.options())


def test_a_public_repository_of_that_name_gets_nothing_private(workshop: Workshop, hub: FakeHub) -> None:
    hub.repos["me/reviews"] = Repo(is_private=False)
    with pytest.raises(ConfigError, match="already exists and is public"):
        publish_model(workshop.options())
    assert not hub.repos["me/reviews"].files
    publish_model(workshop.options(is_public=True))
    assert hub.repos["me/reviews"].files


def test_without_a_token_nothing_is_asked(workshop: Workshop, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ConfigError, match="requires a token") as caught:
        publish_model(workshop.options())
    assert "hf auth login" in caught.value.next_step
    assert hub.requests == []


def test_a_dry_run_asks_nobody_and_shows_files_sizes_and_card(workshop: Workshop, hub: FakeHub) -> None:
    result = publish_model(workshop.options(is_dry_run=True))
    assert hub.requests == []
    assert result["files"]["model.safetensors"] == (workshop.run / "model.safetensors").stat().st_size
    assert result["card"].startswith("---\n")


def test_the_name_alone_brings_back_weights_task_and_calibration(workshop: Workshop, hub: FakeHub) -> None:
    publish_model(workshop.options())
    folder = fetch_from_hub("me/reviews")
    assert sha256((folder / "model.safetensors").read_bytes()) == sha256(
        (workshop.run / "model.safetensors").read_bytes()
    )
    task = read_model_task(folder)
    assert task == BINARY_SENTIMENT
    calibration = load_calibration(folder, task)
    assert calibration is not None
    assert (calibration.temperature, calibration.threshold) == (1.5, 0.8)
    assert fetch_from_hub(str(folder)) == folder


def test_whoever_loads_a_model_by_its_name_finds_its_task(workshop: Workshop, hub: FakeHub) -> None:
    write_model_task(replace(BINARY_SENTIMENT, name="mine"), workshop.run)
    publish_model(workshop.options())
    asking, heads = split_by_prompt([("vllm", "me/reviews"), ("vllm", "me/nobody"), ("onnx", "plain-name")])
    assert choose_task(models=asking, classifiers=heads).task == replace(BINARY_SENTIMENT, name="mine")
    assert ModelChoice("me/reviews", kind="vllm").find_task(None).task.name == "mine"
    assert (asking[1:], heads) == (["me/nobody"], ["plain-name"])


def test_a_model_that_no_hub_has(hub: FakeHub) -> None:
    with pytest.raises(ConfigError, match=r"\(404\)"):
        fetch_from_hub("me/nothing")
    with pytest.raises(ConfigError, match="This model does not exist"):
        fetch_from_hub("saves/runs/nothing")


@pytest.mark.parametrize("name", ["reviews", "me/", "me/a/b", "me/-bad-", "../x", "me/a b"])
def test_a_repository_name_that_cannot_be(workshop: Workshop, name: str) -> None:
    with pytest.raises(ConfigError, match="not a valid repository name"):
        publish_model(workshop.options(repo_id=name))


@pytest.mark.slow
def test_the_script_ends_with_2_and_one_sentence_and_takes_no_token(tmp_path: Path, repo_root: Path) -> None:
    command = [sys.executable, str(repo_root / "scripts" / "upload_to_hub.py")]
    finished = subprocess.run(
        [*command, str(tmp_path / "none"), "--repo_id", "me/x"], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 2
    assert finished.stderr.count("\n") == 1
    assert "This folder does not exist" in finished.stderr
    shown = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout
    assert "--token" not in shown


@pytest.mark.slow
def test_the_script_against_the_hub_behind_its_environment(workshop: Workshop, hub: FakeHub, repo_root: Path) -> None:
    """A process of its own, as a user starts it: nothing of the client is set but by the environment."""
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(workshop.root / "hf"),
    }
    command = [sys.executable, str(repo_root / "scripts" / "upload_to_hub.py"), str(workshop.run)]
    command += ["--repo_id", "me/reviews", "--data_license", "cc-by-4.0"]
    hub.fail("whoami", 401)
    refused = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert refused.returncode == 2
    assert (
        refused.stderr.strip().splitlines()[-1].startswith("Error: me/reviews: The Hugging Face hub does not accept")
    )
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip().endswith(f"{hub.address}/me/reviews")
    sent = hub.repos["me/reviews"].files["model.safetensors"]
    assert sha256(sent) == sha256((workshop.run / "model.safetensors").read_bytes())
    for text in (refused.stdout, refused.stderr, done.stdout, done.stderr):
        assert TOKEN not in text


def test_what_is_published_of_the_report_quotes_no_review(workshop: Workshop, hub: FakeHub) -> None:
    publish_model(workshop.options())
    content = hub.repos["me/reviews"].files["evaluation.json"].decode()
    assert "predictions" not in json.loads(content)
    assert "光顾" not in content
