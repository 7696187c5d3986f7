"""Which texts stop a publication: one secret of each kind, and two hundred ordinary lines that are none."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import re
import string
from pathlib import Path

import pytest

from sentifactory.publishing.hub.secret_search import find_secrets, search_secrets
from sentifactory.publishing.hub.upload import list_tokens
from sentifactory.publishing.model_files import sort_files
from sentifactory.redaction import MASK, SECRET_FORMS, mask_arguments, mask_settings

LETTERS = string.ascii_letters + string.digits


def draw(length: int, alphabet: str = LETTERS) -> str:
    """Return characters that are nobody's secret: put together here, so that no scanner finds them in this file."""
    return "".join(random.Random(length).choices(alphabet, k=length))


HEX, UPPER = "0123456789abcdef", string.ascii_uppercase + string.digits
LOWER = string.ascii_lowercase + string.digits
SECRETS = {
    "hugging face": "hf_" + draw(34),
    "modelscope": "ms-" + "-".join(draw(n, HEX) for n in (8, 4, 4, 4, 12)),
    "wandb by name": f"WANDB_API_KEY={draw(40, HEX)}",
    "wandb in json": json.dumps({"env": {"wandb_api_key": draw(40, HEX)}}),
    "github classic": "ghp_" + draw(36),
    "github fine-grained": "github_pat_" + draw(22) + "_" + draw(59),
    "aws key": "AKIA" + draw(16, UPPER),
    "aws session key": "ASIA" + draw(16, UPPER),
    "aws session token": f"aws_session_token = {draw(120)}",
    "google api": "AIza" + draw(35),
    "google oauth secret": "GOCSPX-" + draw(28),
    "google access token": "ya29." + draw(60),
    "slack bot": f"xoxb-{draw(12, string.digits)}-{draw(12, string.digits)}-{draw(24)}",
    "slack app": f"xapp-1-{draw(11, UPPER)}-{draw(13, string.digits)}-{draw(64, HEX)}",
    "slack webhook": f"https://hooks.slack.com/services/T{draw(8, UPPER)}/B{draw(8, UPPER)}/{draw(24)}",
    "gitlab": "glpat-" + draw(20),
    "npm": "npm_" + draw(36),
    "pypi": "pypi-AgEIcHlwaS5vcmc" + draw(100),
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJtZSJ9." + draw(43),
    "address with password": f"http://me:{draw(12)}@proxy.example:3128",
    "database address": f"postgresql://me:{draw(12)}@db.example/reviews",
    "rsa key": "-----BEGIN RSA PRIVATE " + "KEY-----",
    "openssh key": "-----BEGIN OPENSSH PRIVATE " + "KEY-----",
    "pgp block": "-----BEGIN PGP PRIVATE KEY " + "BLOCK-----",
    "openai": "sk-" + draw(48),
    "openai project": "sk-proj-" + draw(60),
    "anthropic": "sk-ant-api03-" + draw(60),
    "stripe": "sk_live_" + draw(24),
    "telegram": f"{draw(9, string.digits)}:{draw(35)}",
    "sendgrid": f"SG.{draw(22)}.{draw(43)}",
    "azure storage": f"AccountKey={draw(86)}==",
    "docker": "dckr_pat_" + draw(27),
    "databricks": "dapi" + draw(32, HEX),
    "alibaba cloud": "LTAI" + draw(20),
    "tencent cloud": "AKID" + draw(32),
    "feishu webhook": "https://open.feishu.cn/open-apis/bot/v2/hook/" + draw(36, HEX),
    "dingtalk webhook": "https://oapi.dingtalk.com/robot/send?access_token=" + draw(64, HEX),
    "authorization header": f'{{"headers": {{"Authorization": "Bearer {draw(24)}"}}}}',
    "secret_key": f"secret_key: {draw(20)}",
    "private_key": json.dumps({"private_key": draw(20)}),
    "passphrase": f"passphrase='{draw(12)}'",
    "api-key": json.dumps({"a": {"api-key": draw(20)}}),
    "camel case": json.dumps({"accessKeySecret": draw(30)}),
}


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_every_kind_is_found_and_not_repeated(secret: str) -> None:
    (told, *_) = find_secrets("config.json", f"first line\n{secret}\nlast line")
    assert told.startswith("config.json holds")
    assert secret not in told


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_looking_for_marks_first_finds_what_the_patterns_alone_find(secret: str) -> None:
    """A form is tried where one of its marks is, which must not weaken what is found, wherever a secret stands."""
    for before, after in itertools.product(["", *' x_好-"', "hf_", "sk-sk-", "eyJ"], ["", *"x好.\n"]):
        for text in (before + secret + after, f"{before}{secret[:-5]}{after} {before}{secret}", before + secret[1:]):
            for form in SECRET_FORMS:
                assert form.is_in(text) == bool(re.search(form.pattern, text)), (form.what, text)


def ordinary_lines(root: Path) -> list[str]:
    """Return lines as they stand in a model's folder and in its card."""
    hashes = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(40)]
    lines = [f'"sha256": "{one}"' for one in hashes] + [f"commit {one[:40]}" for one in hashes]
    lines += [f'"{name}_token": "<{name}>"' for name in ("pad", "eos", "bos", "unk", "image", "mask")]
    lines += ['"eos_token": "<|im_end|>"', '"pad_token": "<|endoftext|>"', '"eos_token": "end_of_turn"']
    lines += [
        '"token": 12345678',
        '"password": 48211009',
        '"▁secret": 199203',
        '"max_new_tokens": 16',
        "hub_token: null",
    ]
    lines += [
        '"hub_token": ""',
        "use_auth_token: false",
        f'"hub_token": "{MASK}"',
        "token: $HF_TOKEN",
        "key: ${MY_KEY}",
    ]
    lines += ["pip install 'sentifactory[train]'", "https://huggingface.co/me/model", "git@github.com:me/model.git"]
    lines += ["Authorization: Bearer $SENTIFACTORY_SERVE_KEY", "评论：密码锁很好用，房间号1234567890:非常满意"]
    lines += (
        (root / "examples" / "train_freeze" / "gemma3_270m_freeze_demo.yaml").read_text(encoding="utf-8").splitlines()
    )
    lines += (root / "README.md").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.strip()][:200]


def test_ordinary_lines_are_no_secrets(repo_root: Path) -> None:
    lines = ordinary_lines(repo_root)
    assert len(lines) == 200
    assert [found for line in lines if (found := find_secrets("x", line))] == []


@pytest.mark.slow
def test_the_files_of_real_tokenizers_are_no_secrets(tiny_gemma: Path, tiny_qwen: Path) -> None:
    for folder in (tiny_gemma, tiny_qwen):
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "config.json"):
            assert find_secrets(name, (folder / name).read_text(encoding="utf-8")) == []


def test_our_own_key_is_known_by_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENTIFACTORY_SERVE_KEY", "correct horse battery")
    monkeypatch.setenv("SENTIFACTORY_UI_PASSWORD", "staple of the page")
    for value in ("correct horse battery", "staple of the page"):
        assert find_secrets("a.jinja", f"{{# {value} #}}", list_tokens()) == ["a.jinja holds your own token or key"]


def test_a_link_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    folder, outside = tmp_path / "run", tmp_path / "private.json"
    folder.mkdir()
    outside.write_text("{}")
    (folder / "config.json").symlink_to(outside)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "vocab.json").symlink_to(folder / "tokenizer.json")
    files = sort_files(folder)
    assert [reason.en.split()[0] for reason in files.refused] == ["config.json"]
    assert [path.name for path in files.upload] == ["tokenizer.json", "vocab.json"]


@pytest.mark.parametrize(
    "settings",
    [
        {"secret_key": "s3cr3t"},
        {"private_key": "s3cr3t"},
        {"Authorization": "s3cr3t"},
        {"passphrase": "s3cr3t"},
        {"outer": {"api-key": "s3cr3t"}},
        {"hubToken": "s3cr3t"},
        {"proxy": "http://me:s3cr3t@host:1"},
        {"header": "Authorization: Bearer s3cr3t"},
    ],
)
def test_settings_are_masked(settings: dict[str, object]) -> None:
    assert "s3cr3t" not in str(mask_settings(settings))


def test_words_are_masked() -> None:
    words = ["train", "--hub_token", "s3cr3t", "--name", "mine", "a.api-key=s3cr3t", "--proxy=http://u:s3cr3t@h"]
    masked = mask_arguments(words)
    assert "s3cr3t" not in " ".join(masked)
    assert [masked[at] for at in (0, 1, 3, 4)] == ["train", "--hub_token", "--name", "mine"]


HUB_TOKEN = SECRETS["hugging face"]
HEAD = json.dumps({"__metadata__": {"note": HUB_TOKEN}}).encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("LICENSE", HUB_TOKEN.encode("utf-16")),
        ("chat_template.jinja", HUB_TOKEN.encode("utf-16-le")),
        ("chat_template.jinja", HUB_TOKEN.encode("utf-16-be")),
        ("config.json", json.dumps({"a": HUB_TOKEN}).replace("hf_", "\\u0068f_").encode()),
        ("config.json", json.dumps({"a": f"h\u200b{HUB_TOKEN[1:]}"}, ensure_ascii=False).encode()),
        ("config.json", json.dumps({"a": f"h\u200b{HUB_TOKEN[1:]}"}).encode()),
        ("config.json", json.dumps({"password": "$ix (words) in, one"}).encode()),
        ("config.json", json.dumps({"api_key": ["correct", "horse battery"]}).replace("correct", draw(20)).encode()),
        ("model.safetensors", len(HEAD).to_bytes(8, "little") + HEAD + bytes(100)),
        ("model.onnx", bytes(1 << 24) + b"\x08" + HUB_TOKEN.encode() + bytes(100)),
        ("model.onnx", bytes((1 << 24) - 10) + HUB_TOKEN.encode() + bytes(100)),
        ("tokenizer.model", b"\x08" + HUB_TOKEN.encode() + b"\x08"),
    ],
)
def test_a_secret_is_found_in_whatever_form_it_stands_in_a_file(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert [found for found, _ in search_secrets([path], ())] == [path]


def test_an_npm_registry_token_without_a_prefix_is_found() -> None:
    line = "//registry.npmjs.org/:_authToken=" + "-".join(draw(n, HEX) for n in (8, 4, 4, 4, 12))
    assert len(find_secrets("notes.txt", line)) == 1
