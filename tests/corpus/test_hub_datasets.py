"""The errors of a hub: the network, the name, the configuration or the data set is at fault."""

from __future__ import annotations

import pytest

from sentifactory.corpus.reading.hub_datasets import HubAddress, _describe_failure

HF, MS = HubAddress("hf", "org/reviews", "zh"), HubAddress("ms", "org/reviews")
DOWNLOAD = "or download the files and give the local file or folder"
CHECK_HF = f"check the connection, set HF_ENDPOINT to a mirror, {DOWNLOAD}"
CHECK_MS = f"check the connection, unset USE_MODELSCOPE_HUB, {DOWNLOAD}"


@pytest.mark.parametrize(
    ("address", "error", "expected"),
    [
        (HF, ConnectionError("Gone. More"), ("The Hugging Face hub cannot be reached (Gone)", CHECK_HF)),
        (MS, TimeoutError("slow"), ("ModelScope cannot be reached (slow)", CHECK_MS)),
        *(
            (HF, OSError(f"It {sign}\n now"), (f"The Hugging Face hub cannot be reached (It {sign} now)", CHECK_HF))
            for sign in ("can't REACH", "lost Connection", "did not resolve", "is offline", "has no network",
                         "Timed out", "Max retries")
        ),
        (
            HF,
            ValueError("Config name is missing. Pick one of zh, en"),
            ("The configuration is missing or unknown (Config name is missing. Pick one of zh, en)",
             "name one, as in hf:owner/name:config"),
        ),
        (
            HF,
            ValueError(f"BuilderConfig {'x' * 400}"),
            (f"The configuration is missing or unknown (BuilderConfig {'x' * 286})",
             "name one, as in hf:owner/name:config"),
        ),
        (HF, ValueError("Unknown split 'dev'. Ours: a"), ("There is no such split (Unknown split 'dev')",
                                                           "name one that exists")),
        (HF, ValueError("y" * 300), (f"The data set cannot be loaded ({'y' * 200})",
                                     "check the name, or give a local file")),
    ],
)  # fmt: skip
def test_a_failure_names_its_cause(address: HubAddress, error: Exception, expected: tuple[str, str]) -> None:
    found = _describe_failure(address, error)
    assert (found.what, found.next_step) == expected
    assert found.where == str(address)
    if "cannot be loaded" in found.what:
        assert found.expected == "owner/name of a data set that does not need to run code of its own"


def test_addresses_as_text() -> None:
    assert (str(HF), str(MS)) == ("hf:org/reviews:zh", "ms:org/reviews")
    assert str(HubAddress("hf", "a/b", None, "test")) == "hf:a/b@test"
