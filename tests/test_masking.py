"""What is a secret, and what only sounds like one."""

from __future__ import annotations

import pytest

from sentifactory.masking import MASK, is_secret_key, mask_settings, mask_words


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
    assert mask_words(["env.api_key=s3cr3t", "--hub_token=s3cr3t", "hub_token=", "prompt=a=b"]) == [
        f"env.api_key={MASK}", f"--hub_token={MASK}", "hub_token=", "prompt=a=b"
    ]  # fmt: skip
