"""Review sets of the Hugging Face hub and of ModelScope, their official splits kept apart.

Written `hf:owner/name`, `ms:owner/name`, with `:config` and `@split` behind it where wanted, or as one of the named
sets. A local folder in the place of `owner/name` is read by the same library. Mirrors: HF_ENDPOINT is honoured by the
library; with USE_MODELSCOPE_HUB=1 (as in LLaMA-Factory) `hf:` and the named sets ask ModelScope for the same name.
Not covered: sets that need code of their own to be run (the libraries no longer do that, and we do not either).
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

from sentifactory.corpus.columns import Columns
from sentifactory.corpus.intake import Intake, ReadOptions
from sentifactory.corpus.labels import LabelReader
from sentifactory.corpus.manifest import InputFile
from sentifactory.corpus.readers import collect_rows
from sentifactory.corpus.row_faults import refuse_unsound
from sentifactory.corpus.table_files import BATCH_ROWS, iter_batches, pick_names, read_class_names
from sentifactory.corpus.tables import BrokenRow, RawRow, Table
from sentifactory.environments import wants_modelscope
from sentifactory.errors import ConfigError, DataError
from sentifactory.file_lock import explain_missing_locks, lacks_locks
from sentifactory.network_settings import find_network_fault
from sentifactory.progress import say
from sentifactory.task import Task

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
        config: one of its configurations, or None for the only one.
        split: the only split to be read, or None for all.
    """

    hub: str
    name: str
    config: str | None = None
    split: str | None = None

    def __str__(self) -> str:
        config = f":{self.config}" if self.config else ""
        return f"{self.hub}:{self.name}{config}" + (f"@{self.split}" if self.split else "")


def parse_address(source: str) -> HubAddress | None:
    """Return the address that a source states, None for one that is no address.

    Raises:
        DataError: when it begins like one and is none.

    Example:
        >>> parse_address("hf:org/reviews:zh@test")
        HubAddress(hub='hf', name='org/reviews', config='zh', split='test')
    """
    source = NAMED_SETS.get(source, source)
    if not source.startswith(("hf:", "ms:")):
        return None
    match = _ADDRESS.fullmatch(source)
    if match is None:
        raise DataError(
            f"The address is {source!r}", expected="hf:owner/name, with :config and @split behind it where wanted"
        )
    hub = "ms" if wants_modelscope() else match["hub"]
    return HubAddress(hub, match["name"], match["config"], match["split"])


def read_hub(address: HubAddress, task: Task, options: ReadOptions) -> tuple[dict[str, Intake], dict[str, str]]:
    """Return the rows of each split of a data set, and the versions of the packages that fetched it.

    Raises:
        DataError: when the hub cannot be reached, or has no such data set, or the set cannot be used.
        ConfigError: when a package is not installed.
    """
    parts = _load_parts(address)
    packages = {"datasets": version("datasets")}
    if address.hub == "ms":
        packages["modelscope"] = version("modelscope")
    base = HubAddress(address.hub, address.name, address.config)
    intakes = {}
    for split, dataset in parts.items():
        intakes[split] = _read_split(f"{base}@{split}", _HUB_NAMES[address.hub], dataset, task, options)
    return intakes, packages


def _read_split(name: str, kind: str, dataset: Any, task: Task, options: ReadOptions) -> Intake:
    labels = LabelReader(task, options.label_map, options.star_threshold)
    sha256 = ""

    def iter_rows(columns: Columns) -> Iterator[RawRow | BrokenRow]:
        nonlocal sha256
        digest = hashlib.sha256()
        wanted = None if columns.has_chats else pick_names(dataset.column_names, columns)
        batches = dataset.with_format("arrow").iter(BATCH_ROWS)
        for row in iter_batches(batches, wanted, read_class_names(dataset.features.arrow_schema)):
            digest.update(repr(tuple(row)).encode("utf-8", "surrogatepass"))
            yield row
        sha256 = digest.hexdigest()

    table = Table(kind, None, dataset.column_names, name, False, "", iter_rows)
    reviews, rejected, scale = collect_rows(table, name, task, options, labels)
    inputs = [InputFile(name, sha256, len(reviews) + len(rejected), scale)]
    intake = Intake(reviews, rejected, None, kind, inputs)
    refuse_unsound(intake, name, labels)
    return intake


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
    """Return the folder into which ModelScope's own client put a data set."""
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
    """Return an error that says whether the network, the name, the configuration or the set itself is at fault."""
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
            f"The configuration is not clear ({why[:300]})",
            where=str(address),
            next_step="give it, as in hf:owner/name:config",
        )
    if "unknown split" in why.lower():
        return DataError(f"There is no such split ({first})", where=str(address), next_step="give one of those")
    return DataError(
        f"The data set cannot be loaded ({first})",
        where=str(address),
        expected="owner/name of a data set that needs no code of its own",
        next_step="check the name, or give a local file",
    )
