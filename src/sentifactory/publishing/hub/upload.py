"""Uploads a staged folder to the Hugging Face hub or ModelScope, and verifies the hashes afterwards.

Both clients' `upload_folder` resume an interrupted upload (huggingface_hub deprecated `upload_large_folder` in its
favour). The token comes from the environment or the stored login.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentifactory.errors import ConfigError
from sentifactory.models.hub import HUGGING_FACE, LOGIN, MODELSCOPE, explain_hub_errors
from sentifactory.publishing.model_files import is_replaced
from sentifactory.redaction import list_environment_secrets
from sentifactory.system.fingerprint import hash_file
from sentifactory.system.progress import say, show_progress

_PRIVATE = 1  # ModelScope's code


@dataclass(frozen=True, slots=True)
class Destination:
    """The repository to upload to.

    Attributes:
        repo_id: owner/name.
        hub: `huggingface` or `modelscope`.
        is_public: whether the repository is public.
    """

    repo_id: str
    hub: str
    is_public: bool


def list_tokens() -> tuple[str, ...]:
    """Return the user's tokens, keys and passwords, from logins and environment variables, for the search."""
    from huggingface_hub import get_token

    found = [get_token(), *list_environment_secrets()]
    with suppress(ImportError):
        from modelscope_hub.config import HubConfig

        found.append(HubConfig().token)
    return tuple({token for token in found if token})


def upload_folder(folder: Path, destination: Destination, licence: str, message: str) -> str:
    """Upload a folder and return the URL of the repository.

    Raises:
        ConfigError: when the hub refuses or cannot be reached, or uploaded files differ from the local ones.
    """
    with explain_hub_errors(destination.hub, destination.repo_id):
        if destination.hub == MODELSCOPE:
            return _send_to_modelscope(folder, destination, licence, message)
        return _send_to_hugging_face(folder, destination, message)


def _send_to_hugging_face(folder: Path, destination: Destination, message: str) -> str:
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.utils import disable_progress_bars, logging

    # The library's retry warnings contain signed URLs; its progress bars are for terminals.
    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        disable_progress_bars()
    if get_token() is None:
        raise ConfigError(
            "The Hugging Face hub requires a token, and none was found",
            where=destination.repo_id,
            next_step=LOGIN[HUGGING_FACE],
        )
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
    repo_id = destination.repo_id
    say(f"Signed in as {api.whoami()['name']}")
    url = api.create_repo(repo_id, private=not destination.is_public, exist_ok=True)
    if not destination.is_public:
        _refuse_public(repo_id, api.repo_info(repo_id))
    size_mb = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    with show_progress(f"Uploading {size_mb:.0f} MB to {repo_id}"):
        stale = find_stale(api.list_repo_files(repo_id), folder)
        api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message, delete_patterns=stale)
    _compare_with_hub(api, repo_id, folder)
    return str(url)


def find_stale(there: Iterable[str], folder: Path) -> list[str]:
    """Return the files of a former version on the hub that the new one does not have.

    Old weights, templates or tokenizer files beside the new ones would be loaded with them. What is in subfolders, or
    none of our files, is the owner's and stays.
    """
    return [name for name in there if is_replaced(name) and "/" not in name and not (folder / name).is_file()]


def _compare_with_hub(api: Any, repo_id: str, folder: Path) -> None:
    """Verify the files on the hub: SHA-256 of large files, git's blob hash of small ones.

    Raises:
        ConfigError: naming the files that differ or are missing.
    """
    files = {path.name: path for path in folder.iterdir() if path.is_file()}
    there = {entry.path: entry for entry in api.get_paths_info(repo_id, list(files))}
    wrong = []
    for name, path in files.items():
        entry = there.get(name)
        if entry is None:
            wrong.append(name)
        elif entry.lfs is not None:
            wrong += [] if entry.lfs.sha256 == hash_file(path) else [name]
        else:
            wrong += [] if entry.blob_id == hash_blob(path.read_bytes()) else [name]
    _refuse_changed_files(wrong, repo_id)


def hash_blob(content: bytes) -> str:
    """Return git's blob hash of a file.

    Example:
        >>> hash_blob(b"")
        'e69de29bb2d1d6434b8b29ae775ad8c2e48c5391'
    """
    head = f"blob {len(content)}\0".encode()
    return hashlib.sha1(head + content, usedforsecurity=False).hexdigest()


def _send_to_modelscope(folder: Path, destination: Destination, licence: str, message: str) -> str:
    try:
        from modelscope_hub.api import HubApi
        from modelscope_hub.config import HubConfig
    except ImportError as error:
        raise ConfigError(
            "The package modelscope is not installed", where=destination.repo_id, next_step="pip install modelscope"
        ) from error
    repo_id, kind = destination.repo_id, "model"
    config = HubConfig()  # reads the environment again; the default instance is cached
    api = HubApi(config)
    say(f"Signed in as {api.whoami().username}")
    if not api.repo_exists(repo_id, kind):
        visibility = "public" if destination.is_public else "private"
        api.create_repo(repo_id, kind, visibility=visibility, license=licence)
    elif not destination.is_public:
        _refuse_public(repo_id, api.get_repo(repo_id, kind))
    with show_progress(f"Uploading to {repo_id}"):
        api.upload_folder(repo_id, kind, folder, commit_message=message, disable_tqdm=not sys.stderr.isatty())
    there = {file.path: file.sha256 for file in api.list_repo_files(repo_id, kind)}
    if stale := find_stale(there, folder):
        api.delete_files(repo_id, kind, stale, commit_message=message)
        there = {file.path: file.sha256 for file in api.list_repo_files(repo_id, kind)}
    wrong = find_stale(there, folder)
    wrong += [
        path.name
        for path in folder.iterdir()
        if path.name not in there or there[path.name] not in (None, hash_file(path))
    ]
    _refuse_changed_files(wrong, repo_id)
    return f"{config.endpoint}/models/{repo_id}"


def _refuse_public(repo_id: str, facts: Any) -> None:
    """Refuse to upload a private model to a public repository.

    Raises:
        ConfigError: when the repository is public.
    """
    is_private = facts.private
    if is_private is None:  # older ModelScope responses have a code instead
        is_private = getattr(facts, "visibility", None) == _PRIVATE
    if not is_private:
        raise ConfigError(
            f"The repository {repo_id} already exists and is public",
            where=repo_id,
            expected="a private repository, unless --public is passed",
            next_step="make it private on the hub, choose another name, or pass --public",
        )


def _refuse_changed_files(wrong: list[str], repo_id: str) -> None:
    """Refuse an upload whose files differ from the local ones.

    Raises:
        ConfigError: naming the files.
    """
    if wrong:
        raise ConfigError(
            f"Files on the hub differ from the local ones: {', '.join(sorted(wrong))}",
            where=repo_id,
            next_step="run the same command again",
        )
