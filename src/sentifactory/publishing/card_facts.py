"""What the card shows of the evidence, as rows and tables in one language."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sentifactory.evaluation.markdown import build_table
from sentifactory.evaluation.mistake_files import each_test
from sentifactory.evaluation.verdict import Sentence
from sentifactory.evaluation.wording import list_figures, name_contender
from sentifactory.publishing.evidence import Evidence
from sentifactory.publishing.licences import Terms
from sentifactory.publishing.places import hide_places

# Settings that say where a run is, and not what it does.
_PLACES = frozenset(
    {"output_dir", "dataset_dir", "report_to", "disable_tqdm", "overwrite_output_dir", "overwrite_cache", "plot_loss",
     "resume_from_checkpoint", "logging_steps", "save_total_limit", "dataloader_num_workers",
     "preprocessing_num_workers", "do_train", "save_strategy", "save_steps"}
)  # fmt: skip
_GIB = 2**30


class Picker:
    """Picks the words of one language: from two texts, or from a sentence that has both.

    Args:
        language: `en` or `zh`.
    """

    def __init__(self, language: str) -> None:
        self._language = language

    def __call__(self, en: str, zh: str) -> str:
        """Return one of two texts."""
        return en if self._language == "en" else zh

    def of(self, sentence: Sentence | Mapping[str, str]) -> str:
        """Return the language's part of a sentence."""
        both = sentence if isinstance(sentence, Mapping) else {"en": sentence.en, "zh": sentence.zh}
        return both[self._language]


def list_result_tables(evidence: Evidence, pick: Picker) -> list[dict[str, Any]]:
    """Return what each test file says: its name, number of reviews, verdict, leak sentence, and figures as a table."""
    if evidence.report is None:
        return []
    found = []
    for result in each_test(evidence.report):
        facts = result["data"]["test"]
        names = list(result["models"])
        rows = [["", *(pick.of(name_contender(name)) for name in names), pick("tuned − base", "微调 − 原始")]]
        for figure in list_figures(result, evidence.report["task"]["labels"]):
            cells = [figure.show(name) for name in names]
            rows.append([pick.of(figure.title), *cells, figure.show_difference()])
        found.append(
            {
                "file": hide_places(str(facts["file"])),
                "sha256": facts["sha256"],
                "asked": facts["asked"],
                "headline": pick.of(result["verdict"]["headline"]),
                "details": [pick.of(detail) for detail in result["verdict"]["details"]],
                "leaks": hide_places(pick.of(facts["leak_check"]["sentence"])),
                "is_checked": facts["leak_check"]["status"] == "clean",
                "table": "\n".join(build_table(rows)),
            }
        )
    return found


def describe_data(evidence: Evidence, terms: Terms, pick: Picker) -> list[str]:
    """Return a line for each training file: rows, labels, hashes, source and its terms."""
    lines, card = [], evidence.card or {}
    limit = (card.get("recipe") or {}).get("max_samples")
    for item in card.get("data", ()):
        folder, _, name = str(item["file"]).rpartition("/")
        words = [f"`{hide_places(str(item['dataset']))}`", f"sha256 `{item['sha256'][:12]}`"]
        if manifest := evidence.manifests.get(folder):
            source, rows = hide_places(str(manifest["source"])), manifest["rows"]
            part = manifest["parts"][name.partition(".")[0]]
            counts = ", ".join(f"{label} {count}" for label, count in part["labels"].items())
            words.append(pick(f"{part['rows']} reviews ({counts})", f"{part['rows']} 条评论（{counts}）"))
            # LLaMA-Factory takes so many from the beginning of each data set.
            if limit and limit < part["rows"]:
                words.append(pick(f"of which the first {limit} were trained on", f"其中前 {limit} 条用于训练"))
            words.append(
                pick(
                    f"from `{source}`: {rows['in']} rows in, {rows['kept']} kept, {rows['rejected']} left out",
                    f"来源 `{source}`：读入 {rows['in']} 行，保留 {rows['kept']} 行，剔除 {rows['rejected']} 行",
                )
            )
        lines.append(", ".join(words))
    names = [f"{name}: {licence or '?'}" for name, licence in terms.data.items()]
    if names:
        lines.append(pick("Terms of the reviews: ", "评论的许可：") + ", ".join(names))
    return lines


def describe_run(evidence: Evidence) -> dict[str, Any] | None:
    """Return recipe, versions, hardware and times of the training run; None without a run card."""
    card = evidence.card
    if card is None:
        return None
    speed, memory = card.get("speed") or {}, card.get("memory") or {}
    parameters = card.get("parameters") or {}
    return {
        "recipe": {key: hide_places(value) for key, value in (card.get("recipe") or {}).items() if key not in _PLACES},
        "seed": card.get("seed"),
        "versions": card.get("packages") or {},
        "system": (card.get("machine") or {}).get("system", ""),
        "device": card.get("device", ""),
        "minutes": round(card["wall_time_s"] / 60, 1) if card.get("wall_time_s") else None,
        "tokens_per_s": speed.get("tokens_per_s"),
        "peak_gib": {
            name.removeprefix("peak_").removesuffix("_bytes"): round(value / _GIB, 1) for name, value in memory.items()
        },
        "trainable": parameters.get("trainable"),
        "total": parameters.get("total"),
        "steps": card.get("steps"),
    }


def describe_calibration(evidence: Evidence) -> dict[str, Any] | None:
    """Return temperature, threshold and what they were fitted on; None where there is no calibration."""
    values = evidence.calibration
    if values is None:
        return None
    fitted = values["fitted_on"]
    return {
        "method": values["method"],
        "temperature": round(values["temperature"], 3),
        "bias": [round(one, 3) for one in values["bias"]],
        "threshold": values["threshold"],
        "target": values["target_accuracy"],
        "reviews": fitted.get("reviews"),
        "before": fitted.get("nll_before"),
        "after": fitted.get("nll_after"),
    }
