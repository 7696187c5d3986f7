"""Everything that stands in the way of publishing a checkpoint, found at once and before anything is sent."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentifactory.corpus.leak_guard import LEAKS
from sentifactory.engines.adapters import ADAPTER_CONFIG
from sentifactory.engines.onnx import check_files, is_export, read_export
from sentifactory.errors import ConfigError, EngineError
from sentifactory.evaluation.mistake_files import each_test
from sentifactory.evaluation.verdict import Sentence, format_percent
from sentifactory.model_task import read_model_task
from sentifactory.models.classifiers import is_classifier
from sentifactory.publishing.evidence import Evidence
from sentifactory.publishing.files import Sorted
from sentifactory.publishing.licences import Terms
from sentifactory.publishing.secret_search import search_secrets
from sentifactory.task_choice import knows_labels, show_task
from sentifactory.task_files import is_same_question
from sentifactory.training.checkpoints import is_whole_safetensors

_COMPARE = "compare it: python scripts/eval_sentiment_compare.py --finetuned_model {folder} ..."


@dataclass(frozen=True, slots=True)
class Refusal:
    """One thing that stands in the way.

    Attributes:
        what: a clause.
        next_step: what mends it.
    """

    what: str
    next_step: str


def refuse(refusals: list[Refusal], where: str) -> None:
    """Stop with everything that stands in the way.

    Raises:
        ConfigError: when there is anything.
    """
    if not refusals:
        return
    n = len(refusals)
    raise ConfigError(
        f"This cannot be published, for {n} reason{'s' if n > 1 else ''}: "
        + "; ".join(f"({number}) {one.what}" for number, one in enumerate(refusals, start=1)),
        where=where,
        next_step="; ".join(f"({number}) {one.next_step}" for number, one in enumerate(refusals, start=1)),
    )


def find_refusals(
    evidence: Evidence, files: Sorted, terms: Terms, *, is_forced: bool, tokens: tuple[str, ...] = ()
) -> list[Refusal]:
    """Return everything that stands in the way of publishing a checkpoint.

    Args:
        evidence: what is known of it.
        files: what lies in its folder.
        terms: its licence.
        is_forced: publish although the report does not show that it is better than the base model.
        tokens: the tokens in use, which must not stand in a file.
    """
    found = [*_check_weights(evidence.folder, files), *_check_secrets(files, tokens), *_check_run(evidence)]
    if evidence.report is None:
        found.append(
            Refusal(
                f"there is no report on this very checkpoint ({evidence.missing_report})",
                _COMPARE.format(folder=evidence.folder),
            )
        )
    else:
        found += [*_check_leaks(evidence.report), *_check_task(evidence)]
        verdict = find_verdict(evidence)
        if verdict is not None and not is_forced:
            found.append(
                Refusal(verdict.en.rstrip("."), "train longer or test on more reviews; --force publishes it anyway")
            )
    return found + [Refusal(what, step) for what, step in terms.problems]


def find_verdict(evidence: Evidence) -> Sentence | None:
    """Return why the report does not speak for a checkpoint, None where it does."""
    if evidence.report is None:
        return None
    test = evidence.report["paired_tests"]["tuned_vs_base"]
    base, tuned = (
        format_percent(evidence.report["models"][side]["metrics"]["accuracy"]) for side in ("base", "tuned")
    )
    if test["is_shown"] and test["difference"] < 0:
        return Sentence.write(
            f"The model is worse than the base model it was tuned from ({tuned} against {base}).",
            f"该模型不如其微调前的原始模型（{tuned} 对 {base}）。",
        )
    if not test["is_shown"]:
        return Sentence.write(
            f"It is not shown that the model is better than the base model that it was tuned from "
            f"({tuned} against {base}).",
            f"未能证明该模型优于其微调前的原始模型（{tuned} 对 {base}）。",
        )
    return None


def _check_weights(folder: Path, files: Sorted) -> list[Refusal]:
    if (folder / ADAPTER_CONFIG).is_file():
        step = f"merge it: sentifactory export merge {folder} ..."
        return [Refusal("this is a LoRA adapter, which is no model by itself", step)]
    weights = [path for path in files.upload if path.suffix == ".safetensors"]
    found = []
    if not weights and not any(path.suffix == ".onnx" for path in files.upload):
        found.append(Refusal("there are no weights in safetensors here", "give the folder of a finished run"))
    for path in weights:
        if not is_whole_safetensors(path):
            found.append(Refusal(f"{path.name} is cut off", "make the checkpoint again"))
    for index in folder.glob("*.safetensors.index.json"):
        missing = _list_missing_shards(index)
        if missing:
            found.append(Refusal(f"{', '.join(missing)} of {index.name} missing", "make the checkpoint again"))
    if is_export(folder):
        try:
            check_files(folder, read_export(folder))
        except EngineError as error:
            found.append(Refusal(error.what, error.next_step))
    if not (folder / "config.json").is_file():
        found.append(Refusal("config.json is missing", "give the folder of a whole checkpoint"))
    return found


def _list_missing_shards(index: Path) -> list[str]:
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, RecursionError):
        return ["the list of files"]
    return sorted(str(name) for name in shards if not (index.parent / str(name)).is_file())


def _check_secrets(files: Sorted, tokens: tuple[str, ...]) -> list[Refusal]:
    found = [
        Refusal(f"there is something in the folder that must not be here: {why}", "move it away")
        for why in files.refused
    ]
    for path, why in search_secrets(files.upload, tokens):
        found.append(Refusal(why, f"take it out of {path}, and revoke it"))
    return found


def _check_run(evidence: Evidence) -> list[Refusal]:
    status = (evidence.card or {}).get("status")
    if status is None or status == "finished":
        return []
    return [Refusal(f"the training run is {status}, not finished", "run the same training command again")]


def _check_task(evidence: Evidence) -> list[Refusal]:
    """Return whether the report asked another task than the checkpoint was taught; of a classifier labels count."""
    own, asked = read_model_task(evidence.folder), evidence.read_reported_task()
    if own is None or asked is None or is_same_question(own, asked):
        return []
    if is_classifier(str(evidence.folder)) and knows_labels(asked, own.labels):
        return []
    why = f"the report asked the task {show_task(asked)}, and the model was taught {show_task(own)}"
    return [Refusal(why, _COMPARE.format(folder=evidence.folder) + ", without --task")]


def _check_leaks(report: dict[str, Any]) -> list[Refusal]:
    step = "take them out of the test file (sentifactory data check --unseen writes it without them) and compare again"
    found = []
    for result in each_test(report):
        facts = result["data"]["test"]
        if facts["leak_check"]["status"] == LEAKS:
            summary = facts["leak_check"]["summary"].rstrip(".")
            found.append(Refusal(f"the report tests on reviews that were trained on: {summary}", step))
        if n := facts.get("leaked_from_val"):
            found.append(Refusal(f"{n} test reviews of {facts['file']} stand among the validation reviews", step))
    return found
