"""Sentences in English and Chinese about the profile of a data set, the worst first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sentifactory.bilingual import name_label, name_part
from sentifactory.corpus.files.garbled_text import word_garbled
from sentifactory.corpus.inspection.display_text import count_noun, name_reason
from sentifactory.system.formats import format_share

BAD, NOTE, GOOD = "bad", "note", "good"
# From this ratio of the labels on, accuracy alone is misleading.
MAX_LABEL_RATIO = 1.5
# A larger share of garbled texts is a fault of the file.
MAX_SUSPECT_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence.

    Attributes:
        kind: `bad`: do not train or evaluate on this; `note`: worth knowing; `good`: checked and fine.
        en: the sentence in English.
        zh: the same in Chinese.
    """

    kind: str
    en: str
    zh: str


def build_findings(profile: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `kind` and `headline` of the profile, and its sentences, the worst first."""
    found = [
        *_check_files(profile),
        *_check_leaks(profile),
        *_check_repeats(profile),
        *_check_texts(profile),
        *_check_rows(profile),
        *_check_balance(profile),
        *_check_doubtful(profile),
    ]
    order = [BAD, NOTE, GOOD]
    found.sort(key=lambda finding: order.index(finding.kind))
    worst = BAD if any(finding.kind == BAD for finding in found) else GOOD
    en, zh = _write_headline(profile, worst)
    return {
        "kind": worst,
        "headline": {"en": en, "zh": zh},
        "sentences": [asdict(finding) for finding in found],
    }


def _write_headline(profile: Mapping[str, Any], kind: str) -> tuple[str, str]:
    kept = profile["rows"]["kept"]
    if not profile["is_prepared"]:
        distinct = profile["repeats"]["distinct"]
        return (
            f"{count_noun(kept, 'review')}, {distinct:,} of them different.",
            f"{kept:,} 条评论，其中 {distinct:,} 条互不相同。",
        )
    if kind == BAD:
        return "Do not train or evaluate on this data as it is.", "请勿直接使用这份数据训练或评测。"
    if len(profile["parts"]) == 1:
        return f"{count_noun(kept, 'review')}, ready for training.", f"{kept:,} 条评论，可用于训练。"
    return (
        f"{count_noun(kept, 'review')}; no text is in two parts.",
        f"{kept:,} 条评论；各部分之间没有相同的文本。",
    )


def _check_files(profile: Mapping[str, Any]) -> list[Finding]:
    found = []
    provenance = profile["provenance"]
    if changed := provenance["changed_files"]:
        names = ", ".join(changed)
        found.append(
            Finding(
                BAD,
                f"{names} {'differs' if len(changed) == 1 else 'differ'} from the manifest: edited, or left over from "
                "another run.",
                f"{names} 与清单不符：可能被手工修改过，或来自另一次运行。",
            )
        )
    stated = provenance["rows_in_manifest"]
    if stated is not None and stated != profile["rows"]["in"]:
        rows = profile["rows"]["in"]
        found.append(
            Finding(
                BAD,
                f"The files hold {count_noun(rows, 'row')}, but the manifest states {stated:,}.",
                f"文件中共有 {rows:,} 行，清单记载为 {stated:,} 行。",
            )
        )
    return found


def _check_leaks(profile: Mapping[str, Any]) -> list[Finding]:
    found = []
    for leak in profile["leaks"]:
        (one_en, one_zh), (other_en, other_zh) = map(name_part, leak["parts"])
        if n := leak["exact"]:
            found.append(
                Finding(
                    BAD,
                    f"{count_noun(n, 'text')} of the {other_en} part {'is' if n == 1 else 'are'} also in the {one_en} "
                    "part: metrics on it would be too optimistic.",
                    f"{other_zh}有 {n:,} 条文本同时出现在{one_zh}中：据此得到的指标会虚高。",
                )
            )
        if n := leak["near"]:
            found.append(
                Finding(
                    BAD,
                    f"{count_noun(n, 'near duplicate')} of texts of the {one_en} part "
                    f"{'is' if n == 1 else 'are'} in the {other_en} part.",
                    f"{other_zh}有 {n:,} 条文本与{one_zh}中的文本近似重复。",
                )
            )
    if profile["leaks"] and not found:
        found.append(
            Finding(
                GOOD,
                "Checked: no text of one part is in another, nor a near duplicate of it.",
                "已检查：各部分之间没有相同的文本，也没有近似重复。",
            )
        )
    return found


def _check_repeats(profile: Mapping[str, Any]) -> list[Finding]:
    repeats = profile["repeats"]
    found = []
    if n := repeats["contradicting_texts"]:
        found.append(
            Finding(
                BAD if profile["is_prepared"] else NOTE,
                f"{count_noun(n, 'text')} {'has' if n == 1 else 'have'} more than one label.",
                f"{n:,} 条文本带有相互矛盾的标签。",
            )
        )
    copies = sum(part["copies"] for part in profile["parts"].values())
    if copies:
        found.append(
            Finding(
                NOTE,
                f"{count_noun(copies, 'row')} of the training part {'is a copy' if copies == 1 else 'are copies'}: "
                "its labels were balanced by up-sampling.",
                f"训练集中有 {copies:,} 行是副本：类别通过上采样得到平衡。",
            )
        )
    if (n := repeats["repeated_rows"] - copies) > 0:
        share = format_share(n / max(profile["rows"]["kept"], 1))
        found.append(
            Finding(
                NOTE,
                f"{count_noun(n, 'row')} ({share}) {'duplicates' if n == 1 else 'duplicate'} an earlier one.",
                f"{n:,} 行（{share}）与前面的某行重复。",
            )
        )
    return found


def _check_texts(profile: Mapping[str, Any]) -> list[Finding]:
    suspect = profile["suspect_texts"]
    is_bad = any(one["rows"] > MAX_SUSPECT_SHARE * one["of"] for one in suspect.values())
    return [Finding(BAD if is_bad else NOTE, en, zh) for en, zh in word_garbled(suspect)]


def _check_rows(profile: Mapping[str, Any]) -> list[Finding]:
    rows = profile["rows"]
    if not rows["rejected"]:
        return []
    reasons = rows["rejected_by_reason"].items()
    en = ", ".join(f"{name_reason(reason)[0]} {n:,}" for reason, n in reasons)
    zh = "，".join(f"{name_reason(reason)[1]} {n:,}" for reason, n in reasons)
    return [
        Finding(
            NOTE,
            f"{rows['in']:,} rows read = {rows['kept']:,} kept + {rows['rejected']:,} left out ({en}).",
            f"读入 {rows['in']:,} 行 = 保留 {rows['kept']:,} 行 + 剔除 {rows['rejected']:,} 行（{zh}）。",
        )
    ]


def _check_balance(profile: Mapping[str, Any]) -> list[Finding]:
    found = []
    for part, figures in profile["parts"].items():
        counts = {label: figures["labels"][label] for label in profile["task"]["labels"]}
        en, zh = name_part(part) if profile["is_prepared"] else ("", "")
        where = f" in the {en} part" if en else ""
        most, least = max(counts, key=lambda label: counts[label]), min(counts, key=lambda label: counts[label])
        missing = [label for label, n in counts.items() if not n]
        if missing:
            found.append(
                Finding(
                    NOTE,
                    f"No reviews with the label {', '.join(missing)}{where}.",
                    f"{zh}缺少以下类别的评论：{'、'.join(name_label(label)[1] for label in missing)}。",
                )
            )
        elif counts[most] >= MAX_LABEL_RATIO * counts[least]:
            found.append(
                Finding(
                    NOTE,
                    f"Imbalanced labels{where}: {most} {counts[most]:,}, {least} {counts[least]:,}.",
                    f"{zh}类别不均衡：{name_label(most)[1]} {counts[most]:,} 条，"
                    f"{name_label(least)[1]} {counts[least]:,} 条。",
                )
            )
    return found


def _check_doubtful(profile: Mapping[str, Any]) -> list[Finding]:
    doubtful = profile["doubtful"]
    n = doubtful.get("probable", 0)
    if doubtful.get("is_weak"):
        agreement = format_share(doubtful["agreement"])
        return [
            Finding(
                NOTE,
                f"Wrong labels cannot be found: a TF-IDF model agrees with only {agreement} of the labels.",
                f"无法找出错误标签：TF-IDF 模型与标签的一致率仅为 {agreement}。",
            )
        ]
    if not n:
        return []
    share = format_share(n / doubtful["searched"])
    return [
        Finding(
            NOTE,
            f"About {count_noun(n, 'label')} ({share}) {'is' if n == 1 else 'are'} probably wrong: look at the "
            "doubtful ones before you rely on the last few points of an accuracy.",
            f"约有 {n:,} 个标签（{share}）可能有误：在计较最后几个百分点之前，请先人工查看存疑的标签。",
        )
    ]
