"""Reads data sets of the Hugging Face hub and of ModelScope, split by split.

An address is `hf:owner/name` or `ms:owner/name`, optionally with `:config` and `@split`, or one of the named sets. A
local folder in place of `owner/name` is read by the same library, which also honours HF_ENDPOINT for mirrors. With
USE_MODELSCOPE_HUB=1 (as in LLaMA-Factory) `hf:` and the named sets are fetched from ModelScope under the same name.
Not covered: data sets that need to run code of their own.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sentifactory.corpus.files.columns import Columns
from sentifactory.corpus.files.table_files import BATCH_ROWS, iter_batches, pick_names, read_class_names
from sentifactory.corpus.files.tables import BrokenRow, RawRow, Table
from sentifactory.corpus.reading.label_reader import LabelReader
from sentifactory.corpus.reading.read_result import InputFile, ReadOptions, ReadResult
from sentifactory.corpus.reading.review_files import collect_rows
from sentifactory.corpus.reading.row_errors import refuse_unsound
from sentifactory.errors import ConfigError, DataError
from sentifactory.system.environments import wants_modelscope
from sentifactory.system.file_lock import explain_missing_locks, lacks_locks
from sentifactory.system.network_settings import find_network_fault, is_hub_id
from sentifactory.system.progress import say
from sentifactory.task.task import Task

NAMED_SETS = {
    "chnsenticorp": "hf:lansinuote/ChnSentiCorp",  # the original 9,600 / 1,200 / 1,200
    "waimai_10k": "hf:XiangPan/waimai_10k",
    "online_shopping_10_cats": "hf:XiangPan/online_shopping_10_cats_62k",
}
_ADDRESS = re.compile(r"(?P<hub>hf|ms):(?P<name>[^:@]+)(?::(?P<config>[^:@]+))?(?:@(?P<split>[^:@]+))?")
_HUB_NAMES = {"hf": "huggingface", "ms": "modelscope"}


@dataclass(frozen=True, slots=True)
class HubAddress:
    """A data set on a hub.

    Attributes:
        hub: hf or ms.
        name: owner/name, or a local folder.
        config: one of its configurations; None: the only one.
        split: the only split to read; None: all.
    """

    hub: str
    name: str
    config: str | None = None
    split: str | None = None

    def __str__(self) -> str:
        config = f":{self.config}" if self.config else ""
        return f"{self.hub}:{self.name}{config}" + (f"@{self.split}" if self.split else "")


def parse_address(source: str) -> HubAddress | None:
    """Return the hub address of a source, None for a source of another kind.

    Raises:
        DataError: when it begins like an address and is invalid.

    Example:
        >>> parse_address("hf:org/reviews:zh@test")
        HubAddress(hub='hf', name='org/reviews', config='zh', split='test')
    """
    source = NAMED_SETS.get(source, source)
    if not source.startswith(("hf:", "ms:")):
        return None
    match = _ADDRESS.fullmatch(source)
    if match is None or not (is_hub_id(match["name"]) or os.path.isdir(match["name"])):
        raise DataError(f"The address is {source!r}", expected="hf:owner/name, optionally with :config and @split")
    hub = "ms" if wants_modelscope() else match["hub"]
    return HubAddress(hub, match["name"], match["config"], match["split"])


def read_hub(address: HubAddress, task: Task, options: ReadOptions) -> tuple[dict[str, ReadResult], dict[str, str]]:
    """Return the rows of each split of a data set, and the versions of the packages that fetched it.

    Raises:
        DataError: when the hub cannot be reached, has no such data set, or the data set cannot be used.
        ConfigError: when a package is not installed.
    """
    parts = _load_parts(address)
    packages = {"datasets": version("datasets")}
    if address.hub == "ms":
        packages["modelscope"] = version("modelscope")
    base = HubAddress(address.hub, address.name, address.config)
    results = {}
    for split, dataset in parts.items():
        results[split] = _read_split(f"{base}@{split}", _HUB_NAMES[address.hub], dataset, task, options)
    return results, packages


def _read_split(name: str, kind: str, dataset: Any, task: Task, options: ReadOptions) -> ReadResult:
    labels = LabelReader(task, options.label_map, options.star_threshold)
    sha256 = ""

    def iter_rows(columns: Columns) -> Iterator[RawRow | BrokenRow]:
        nonlocal sha256
        digest = hashlib.sha256()
        wanted = pick_names(dataset.column_names, columns)
        batches = dataset.with_format("arrow").iter(BATCH_ROWS)
        for row in iter_batches(batches, wanted, read_class_names(dataset.features.arrow_schema)):
            digest.update(repr(tuple(row)).encode("utf-8", "surrogatepass"))
            yield row
        sha256 = digest.hexdigest()

    table = Table(kind, None, dataset.column_names, name, False, "", iter_rows)
    reviews, rejected, scale = collect_rows(table, name, task, options, labels)
    inputs = [InputFile(name, sha256, len(reviews) + len(rejected), scale)]
    result = ReadResult(reviews, rejected, None, kind, inputs)
    refuse_unsound(result, name, labels)
    return result


def _load_parts(address: HubAddress) -> dict[str, Any]:
    try:
        import datasets
    except ImportError as error:
        raise ConfigError(
            "The package datasets is not installed", where=str(address), next_step="pip install 'sentifactory[train]'"
        ) from error
    place = address.name
    if address.hub == "ms" and not Path(place).is_dir():
        place = _download_from_modelscope(address)
    if not Path(place).is_dir():
        say(f"Fetching {address} from {os.environ.get('HF_ENDPOINT', 'the Hugging Face hub')}")
    load = partial(datasets.load_dataset, place, address.config)
    try:
        loaded = load(split=address.split) if address.split else load()
    except Exception as error:  # the library lets through whatever its many parts raise
        raise _describe_failure(address, error) from error
    return {address.split: loaded} if address.split else dict(loaded)


def _download_from_modelscope(address: HubAddress) -> str:
    """Download a data set with ModelScope's client and return its folder."""
    try:
        from modelscope.hub.snapshot_download import dataset_snapshot_download
    except ImportError as error:
        raise ConfigError(
            "The package modelscope is not installed", where=str(address), next_step="pip install modelscope"
        ) from error
    say(f"Fetching {address} from ModelScope")
    try:
        return str(dataset_snapshot_download(address.name))
    except Exception as error:  # as above
        raise _describe_failure(address, error) from error


def _describe_failure(address: HubAddress, error: Exception) -> DataError | ConfigError:
    """Return an error that names the cause: the network, the name, the configuration or the data set itself."""
    if not Path(address.name).is_dir() and (fault := find_network_fault()):
        return fault
    if isinstance(error, OSError) and lacks_locks(error):
        return explain_missing_locks(error)
    why = " ".join(str(error).split())
    first = why.split(". ")[0][:200]
    hub = "ModelScope" if address.hub == "ms" else "The Hugging Face hub"
    mirror = "set HF_ENDPOINT to a mirror" if address.hub == "hf" else "unset USE_MODELSCOPE_HUB"
    signs = ("reach", "connection", "resolve", "offline", "network", "timed out", "max retries")
    if isinstance(error, ConnectionError | TimeoutError) or any(sign in why.lower() for sign in signs):
        return DataError(
            f"{hub} cannot be reached ({first})",
            where=str(address),
            next_step=f"check the connection, {mirror}, or download the files and give the local file or folder",
        )
    if "config name is missing" in why.lower() or "builderconfig" in why.lower():
        return DataError(
            f"The configuration is missing or unknown ({why[:300]})",
            where=str(address),
            next_step="name one, as in hf:owner/name:config",
        )
    if "unknown split" in why.lower():
        return DataError(f"There is no such split ({first})", where=str(address), next_step="name one that exists")
    return DataError(
        f"The data set cannot be loaded ({first})",
        where=str(address),
        expected="owner/name of a data set that does not need to run code of its own",
        next_step="check the name, or give a local file",
    )
