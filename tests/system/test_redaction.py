"""What is a secret, and what only sounds like one."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest

from sentifactory.errors import ConfigError
from sentifactory.redaction import MASK, is_secret_key, mask_arguments, mask_settings, mask_text, relate_paths
from sentifactory.system.progress import say


@pytest.mark.parametrize(
    "key",
    ["swanlab_api_key", "swanlab_lark_secret", "swanlab_lark_webhook_url", "hf_hub_token", "ms_hub_token", "hub_token",
     "WANDB_API_KEY", "apikey", "password"],
)  # fmt: skip
def test_secrets(key: str) -> None:
    assert is_secret_key(key)


@pytest.mark.parametrize(
    "key",
    ["max_new_tokens", "add_tokens", "ignore_pad_token_for_loss", "include_num_input_tokens_seen", "tokenized_path",
     "use_fast_tokenizer", "split_special_tokens", "dataset", "seed", "monkey"],
)  # fmt: skip
def test_what_only_sounds_like_one(key: str) -> None:
    assert not is_secret_key(key)
    assert mask_settings({key: "x"}) == {key: "x"}


def test_secrets_lie_deep() -> None:
    settings = {"env": {"vars": [{"WANDB_API_KEY": "s3cr3t"}]}, "hub_token": True, "hf_hub_token": ""}
    assert mask_settings(settings) == {**settings, "env": {"vars": [{"WANDB_API_KEY": MASK}]}}
    assert mask_arguments(["env.api_key=s3cr3t", "--hub_token=s3cr3t", "hub_token=", "prompt=a=b"]) == [
        f"env.api_key={MASK}", f"--hub_token={MASK}", "hub_token=", "prompt=a=b"
    ]  # fmt: skip


# Put together, so that no scanner finds them in this file.
FORMS = [
    "http://me:s3cr3t@host:1",
    "http://me:s3/cr3t@host:1",
    "http://me:a@s3cr3t@host:1",
    "https://s3cr3t@host/simple",
    "https://host/x?access_token=s3cr3t",
    "https://host/?x=1&api_key=s3cr3t&y=2",
    "https://bucket/x?X-Amz-Signature=s3cr3t",
    "[(b'authorization', b'Bearer s3cr3t')]",
    "{'hub_token': 's3cr3t'}",
    "OpenAiEngine(api_key='s3cr3t')",
    "X-Api-Key: s3cr3ts3cr3t",
    "gl" + "pat-s3cr3tabcdefghijklmn",
    "xo" + "xb-123456789012-123456789012-s3cr3tabcdefghijklm",
    "-----BEGIN PRIVATE " + "KEY-----\ns3cr3t\n-----END PRIVATE KEY-----",
]


@pytest.mark.parametrize("text", FORMS)
def test_a_secret_in_a_text_is_masked(text: str) -> None:
    masked = mask_text(f"before {text} after")
    assert "s3cr3t" not in masked
    assert "cr3t" not in masked
    assert masked.startswith("before ")
    assert masked.endswith(" after")
    assert mask_text(masked) == masked


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:8000/v1/models",
        "https://medium.com/@somebody/a-page",
        "http://host:8000/@x",
        "HF_TOKEN: The variable is not set. Next: export SENTIFACTORY_UI_PASSWORD=$(openssl rand -hex 16)",
        "the bearer token of this server",
        "git@github.com:me/model.git",
        "pad_token='<pad>', max_new_tokens=16",
    ],
)
def test_a_text_without_a_secret_stays(text: str) -> None:
    assert mask_text(text) == text


def test_what_the_environment_holds_is_known_by_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENTIFACTORY_SERVE_KEY", "correct horse battery")
    monkeypatch.setenv("PGPASSWORD", "staple of postgres")
    monkeypatch.setenv("https_proxy", "me:proxy%40password@proxy.example:3128")
    text = mask_text("correct horse battery, staple of postgres, proxy%40password, proxy@password")
    assert text == ", ".join([MASK] * 4)


def test_every_error_and_every_line_of_the_log_is_masked(capfd: pytest.CaptureFixture[str]) -> None:
    address = "http://me:s3cr3t@127.0.0.1:9"
    error = ConfigError(f"{address} does not answer", where=address, expected=address, next_step=f"ask {address}")
    assert "s3cr3t" not in str([str(error), vars(error)])
    say(f"No answer: {address}\x1b[2J\x9b1m\x85")
    assert capfd.readouterr().err == f"No answer: http://{MASK}@127.0.0.1:9\\x1b[2J\\x9b1m\\x85\n"


@pytest.mark.parametrize("piece", ["://a:", "eyJaaaaaaaa-", "authorization ", "token=", "a", "x-", "'a':'"])
def test_masking_takes_linear_time(piece: str) -> None:
    start = time.monotonic()
    mask_text(piece * (200_000 // len(piece)))
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:s3cr3t@proxy:3128", f"http://{MASK}@proxy:3128"),
        ("no route to http://me:s3/cr@3t@proxy:3128, give up", f"no route to http://{MASK}@proxy:3128, give up"),
        ("https://s3cr3t@host/path", f"https://{MASK}@host/path"),
        ("redis://:s3cr3t@host", f"redis://{MASK}@host"),
        ("http://127.0.0.1:8000/v1/models/a@b", "http://127.0.0.1:8000/v1/models/a@b"),
        ("https://host/owner/name@main", "https://host/owner/name@main"),
        ("hf:owner/name@test", "hf:owner/name@test"),
        ("write to me@example.com", "write to me@example.com"),
    ],
    ids=itertools.count(),  # pytest keeps the id in the environment, whose passwords are masked
)
def test_credentials_in_an_address_are_not_shown(text: str, shown: str) -> None:
    assert mask_text(text) == shown


@pytest.mark.slow
def test_addresses_without_end_take_no_time() -> None:
    began_s = time.perf_counter()
    mask_text("://a:" * 100_000)
    mask_text("://" + "a" * 500_000)
    assert time.perf_counter() - began_s < 10


def test_paths_for_readers_elsewhere() -> None:
    here = Path.cwd()
    shown = {
        f"{here}/data/a.csv": "data/a.csv",
        f"cmd --in {here}/a.csv --out=/srv/x/b.json": "cmd --in a.csv --out=b.json",
        f"/other{here}/a.csv": "a.csv",
        f"{here}-else/a.csv": "a.csv",
        "data/a.csv": "data/a.csv",
        "https://host/path": "https://host/path",
        "清单 /srv/m.json 证明": "清单 m.json 证明",
    }
    assert relate_paths(list(shown)) == list(shown.values())
    assert relate_paths({"n": 1, "deep": ({"file": f"{here}/x"},)}) == {"n": 1, "deep": [{"file": "x"}]}
