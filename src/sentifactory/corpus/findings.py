"""What the picture of a data set says in words: sentences in English and Chinese, the worst first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sentifactory.corpus.garbled import word_garbled
from sentifactory.corpus.wording import count, format_share, name_label, name_part, name_reason

BAD, NOTE, GOOD = "bad", "note", "good"
# From this ratio on, accuracy alone says little.
UNEQUAL_RATIO = 1.5
# A larger share of garbled texts is no accident of a few rows.
MANY_SUSPECT = 0.05


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence.

    Attributes:
        kind: `bad`: do not train or measure on this; `note`: worth knowing; `good`: checked and in order.
        en: the sentence in English.
        zh: the same in Chinese.
    """

    kind: str
    en: str
    zh: str


def build_findings(picture: Mapping[str, Any]) -> dict[str, Any]:
    """Return `kind` and `headline` of the whole, and the sentences, the worst first."""
    found = [
        *_judge_files(picture),
        *_judge_leaks(picture),
        *_judge_repeats(picture),
        *_judge_texts(picture),
        *_judge_rows(picture),
        *_judge_balance(picture),
        *_judge_doubtful(picture),
    ]
    order = [BAD, NOTE, GOOD]
    found.sort(key=lambda finding: order.index(finding.kind))
    worst = BAD if any(finding.kind == BAD for finding in found) else GOOD
    en, zh = _write_headline(picture, worst)
    return {
        "kind": worst,
        "headline": {"en": en, "zh": zh},
        "sentences": [asdict(finding) for finding in found],
    }


def _write_headline(picture: Mapping[str, Any], kind: str) -> tuple[str, str]:
    kept = picture["rows"]["kept"]
    if not picture["is_prepared"]:
        distinct = picture["repeats"]["distinct"]
        return (
            f"{count(kept, 'review')}, {distinct:,} of them different.",
            f"{kept:,} 条评论，其中 {distinct:,} 条互不相同。",
        )
    if kind == BAD:
        return "Do not train or measure on this data as it is.", "请勿直接使用这份数据训练或评测。"
    if len(picture["parts"]) == 1:
        return f"{count(kept, 'review')}, ready for training.", f"{kept:,} 条评论，可用于训练。"
    return (
        f"{count(kept, 'review')}; no text stands in two parts.",
        f"{kept:,} 条评论；各部分之间没有相同的文本。",
    )


def _judge_files(picture: Mapping[str, Any]) -> list[Finding]:
    found = []
    provenance = picture["provenance"]
    if changed := provenance["changed_files"]:
        names = ", ".join(changed)
        found.append(
            Finding(
                BAD,
                f"{names} {'is' if len(changed) == 1 else 'are'} not what the manifest tells of: changed by hand, or "
                "left from another run.",
                f"{names} 与清单不符：被手工修改过，或来自另一次运行。",
            )
        )
    stated = provenance["rows_in_manifest"]
    if stated is not None and stated != picture["rows"]["in"]:
        rows = picture["rows"]["in"]
        found.append(
            Finding(
                BAD,
                f"The files hold {count(rows, 'row')}, the manifest speaks of {stated:,}.",
                f"文件中共有 {rows:,} 行，清单记载为 {stated:,} 行。",
            )
        )
    return found


def _judge_leaks(picture: Mapping[str, Any]) -> list[Finding]:
    found = []
    for leak in picture["leaks"]:
        (one_en, one_zh), (other_en, other_zh) = map(name_part, leak["parts"])
        if n := leak["exact"]:
            found.append(
                Finding(
                    BAD,
                    f"{count(n, 'text')} of the {other_en} part {'stands' if n == 1 else 'stand'} in the {one_en} "
                    "part as well: figures measured on it would be too good.",
                    f"{other_zh}有 {n:,} 条文本同时出现在{one_zh}中：据此得到的指标会虚高。",
                )
            )
        if n := leak["near"]:
            found.append(
                Finding(
                    BAD,
                    f"{count(n, 'text')} of the {other_en} part nearly {'repeats' if n == 1 else 'repeat'} one of the "
                    f"{one_en} part.",
                    f"{other_zh}有 {n:,} 条文本与{one_zh}中的文本近似重复。",
                )
            )
    if picture["leaks"] and not found:
        found.append(
            Finding(
                GOOD,
                "Checked: no text of one part stands in another, nor a near repeat of it.",
                "已检查：各部分之间没有相同的文本，也没有近似重复。",
            )
        )
    return found


def _judge_repeats(picture: Mapping[str, Any]) -> list[Finding]:
    repeats = picture["repeats"]
    found = []
    if n := repeats["contradicting_texts"]:
        found.append(
            Finding(
                BAD if picture["is_prepared"] else NOTE,
                f"{count(n, 'text')} {'stands' if n == 1 else 'stand'} under more than one label.",
                f"{n:,} 条文本带有相互矛盾的标签。",
            )
        )
    copies = sum(part["copies"] for part in picture["parts"].values())
    if copies:
        found.append(
            Finding(
                NOTE,
                f"{count(copies, 'row')} of the training part {'is a copy' if copies == 1 else 'are copies'}: its "
                "labels were balanced by up-sampling.",
                f"训练集中有 {copies:,} 行是副本：类别通过上采样得到平衡。",
            )
        )
    if (n := repeats["repeated_rows"] - copies) > 0:
        share = format_share(n / max(picture["rows"]["kept"], 1))
        found.append(
            Finding(
                NOTE,
                f"{count(n, 'row')} ({share}) {'repeats' if n == 1 else 'repeat'} an earlier one.",
                f"{n:,} 行（{share}）与前面的某行重复。",
            )
        )
    return found


def _judge_texts(picture: Mapping[str, Any]) -> list[Finding]:
    suspect = picture["suspect_texts"]
    is_bad = any(one["rows"] > MANY_SUSPECT * one["of"] for one in suspect.values())
    return [Finding(BAD if is_bad else NOTE, en, zh) for en, zh in word_garbled(suspect)]


def _judge_rows(picture: Mapping[str, Any]) -> list[Finding]:
    rows = picture["rows"]
    if not rows["rejected"]:
        return []
    reasons = rows["rejected_by_reason"].items()
    en = ", ".join(f"{name_reason(reason)[0]} {n:,}" for reason, n in reasons)
    zh = "，".join(f"{name_reason(reason)[1]} {n:,}" for reason, n in reasons)
    return [
        Finding(
            NOTE,
            f"{rows['in']:,} rows came in = {rows['kept']:,} kept + {rows['rejected']:,} left out ({en}).",
            f"读入 {rows['in']:,} 行 = 保留 {rows['kept']:,} 行 + 剔除 {rows['rejected']:,} 行（{zh}）。",
        )
    ]


def _judge_balance(picture: Mapping[str, Any]) -> list[Finding]:
    found = []
    for part, figures in picture["parts"].items():
        counts = {label: figures["labels"][label] for label in picture["task"]["labels"]}
        en, zh = name_part(part) if picture["is_prepared"] else ("", "")
        where = f" in the {en} part" if en else ""
        most, least = max(counts, key=lambda label: counts[label]), min(counts, key=lambda label: counts[label])
        missing = [label for label, n in counts.items() if not n]
        if missing:
            found.append(
                Finding(
                    NOTE,
                    f"No review of {', '.join(missing)}{where}.",
                    f"{zh}缺少以下类别的评论：{'、'.join(name_label(label)[1] for label in missing)}。",
                )
            )
        elif counts[most] >= UNEQUAL_RATIO * counts[least]:
            found.append(
                Finding(
                    NOTE,
                    f"Unequal labels{where}: {most} {counts[most]:,}, {least} {counts[least]:,}.",
                    f"{zh}类别不均衡：{name_label(most)[1]} {counts[most]:,} 条，"
                    f"{name_label(least)[1]} {counts[least]:,} 条。",
                )
            )
    return found


def _judge_doubtful(picture: Mapping[str, Any]) -> list[Finding]:
    doubtful = picture["doubtful"]
    n = doubtful.get("probable", 0)
    if doubtful.get("is_weak"):
        agreement = format_share(doubtful["agreement"])
        return [
            Finding(
                NOTE,
                f"Wrong labels cannot be told from right ones: a TF-IDF model agrees with only {agreement} of them.",
                f"无法辨别标签对错：TF-IDF 模型仅认同其中的 {agreement}。",
            )
        ]
    if not n:
        return []
    share = format_share(n / doubtful["searched"])
    return [
        Finding(
            NOTE,
            f"About {count(n, 'label')} ({share}) {'is' if n == 1 else 'are'} probably wrong: look at the "
            "doubtful ones before you trust the last few points of an accuracy.",
            f"约有 {n:,} 个标签（{share}）可能有误：在计较最后几个百分点之前，请先人工查看存疑的标签。",
        )
    ]
