"""Prepares the evidence for the model card, as lines and tables in one language."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sentifactory.bilingual import Picker, name_model
from sentifactory.evaluation.report.figures import list_figures
from sentifactory.evaluation.report.mistake_files import list_results
from sentifactory.publishing.hub.evidence import Evidence
from sentifactory.publishing.hub.licences import Terms
from sentifactory.redaction import redact_paths
from sentifactory.system.formats import build_table
from sentifactory.training.recipe.known_training import EARLIER

# Recipe settings that the card omits: local paths, logging and saving.
_OMITTED_SETTINGS = frozenset(
    {"output_dir", "dataset_dir", "report_to", "disable_tqdm", "overwrite_output_dir", "overwrite_cache", "plot_loss",
     "resume_from_checkpoint", "logging_steps", "save_total_limit", "dataloader_num_workers",
     "preprocessing_num_workers", "do_train", "save_strategy", "save_steps"}
)  # fmt: skip
_GIB = 2**30


def list_result_tables(evidence: Evidence, pick: Picker) -> list[dict[str, Any]]:
    """Return the results on each test file: its name, number of reviews, verdict, leak check and table of figures."""
    if evidence.report is None:
        return []
    found = []
    for result in list_results(evidence.report):
        facts = result["data"]["test"]
        names = list(result["models"])
        rows = [["", *(pick.of(name_model(name)) for name in names), pick("tuned − base", "微调 − 原始")]]
        for figure in list_figures(result, evidence.report["task"]["labels"]):
            cells = [figure.show(name) for name in names]
            rows.append([pick.of(figure.title), *cells, figure.show_difference()])
        found.append(
            {
                "file": redact_paths(str(facts["file"])),
                "sha256": facts["sha256"],
                "asked": facts["asked"],
                "headline": pick.of(result["verdict"]["headline"]),
                "details": [pick.of(detail) for detail in result["verdict"]["details"]],
                "leaks": redact_paths(pick.of(facts["leak_check"]["sentence"])),
                "is_checked": facts["leak_check"]["status"] == "clean",
                "table": "\n".join(build_table(rows)),
            }
        )
    return found


def describe_data(evidence: Evidence, terms: Terms, pick: Picker) -> list[str]:
    """Return a line for each training file (rows, labels, hash, source), and one for the licences of the reviews."""
    lines, card = [], evidence.card or {}
    limit = (card.get("recipe") or {}).get("max_samples")
    for item in card.get("data", ()):
        folder, _, name = str(item["file"]).rpartition("/")
        words = [f"`{redact_paths(str(item['dataset']))}`", f"sha256 `{item['sha256'][:12]}`"]
        if manifest := evidence.manifests.get(folder):
            source, rows = redact_paths(str(manifest["source"])), manifest["rows"]
            part = manifest["parts"][name.partition(".")[0]]
            counts = ", ".join(f"{label} {count}" for label, count in part["labels"].items())
            words.append(pick(f"{part['rows']} reviews ({counts})", f"{part['rows']} 条评论（{counts}）"))
            # LLaMA-Factory takes the first max_samples rows of each data set.
            if limit and limit < part["rows"]:
                words.append(pick(f"the first {limit} of them used for training", f"其中前 {limit} 条用于训练"))
            words.append(
                pick(
                    f"from `{source}`: {rows['in']} rows read, {rows['kept']} kept, {rows['rejected']} rejected",
                    f"来源 `{source}`：读取 {rows['in']} 行，保留 {rows['kept']} 行，剔除 {rows['rejected']} 行",
                )
            )
        lines.append(", ".join(words))
    for item in (card.get(EARLIER) or {}).get("files", ()):
        name, sha256 = redact_paths(Path(str(item["file"])).name), str(item["sha256"])[:12]
        when = pick("learned before this training: ", "此前训练所用：")
        lines.append(f"{when}`{name}`, sha256 `{sha256}`")
    names = [f"{name}: {licence or '?'}" for name, licence in terms.data.items()]
    if names:
        lines.append(pick("Licences of the reviews: ", "评论数据的许可证：") + ", ".join(names))
    return lines


def describe_run(evidence: Evidence) -> dict[str, Any] | None:
    """Return recipe, versions, hardware and duration of the training run; None without a run card."""
    card = evidence.card
    if card is None:
        return None
    speed, memory = card.get("speed") or {}, card.get("memory") or {}
    parameters = card.get("parameters") or {}
    return {
        "recipe": {
            key: redact_paths(value)
            for key, value in (card.get("recipe") or {}).items()
            if key not in _OMITTED_SETTINGS
        },
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
    """Return temperature, threshold and the data they were fitted on; None without a calibration."""
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
