"""The model card: the hub's metadata, and a page in English and Chinese.

Every figure comes from the evidence: results and intervals from report.json, recipe, versions and duration from
run.json, data from the manifests, temperature and threshold from calibration.json.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sentifactory.bilingual import Picker
from sentifactory.errors import ConfigError
from sentifactory.evaluation.report.figures import list_figures
from sentifactory.evaluation.report.mistake_files import list_results
from sentifactory.publishing.hub.card_facts import (
    describe_calibration,
    describe_data,
    describe_run,
    list_result_tables,
)
from sentifactory.publishing.hub.confusion_picture import PICTURE_NAME
from sentifactory.publishing.hub.evidence import Evidence
from sentifactory.publishing.hub.licences import Terms
from sentifactory.publishing.hub.refusals import find_verdict
from sentifactory.redaction import redact_paths

METRICS = ("accuracy", "precision", "recall", "f1", "macro_f1", "mcc", "roc_auc")
# The hub's identifiers of metrics, where they are not ours.
_METRIC_TYPES = {"macro_f1": "f1", "mcc": "matthews_correlation"}
_CAUSAL, _CLASSIFIER = "text-generation", "text-classification"


@dataclass(frozen=True, slots=True)
class CardRequest:
    """The model and repository that a card describes.

    Attributes:
        repo_id: owner/name on the hub.
        hub: `huggingface` or `modelscope`.
        is_classifier: whether the model is an encoder classifier, not a language model.
        loads_in_transformers: whether plain transformers loads it (not an ONNX export or our own classifier head).
    """

    repo_id: str
    hub: str
    is_classifier: bool
    loads_in_transformers: bool = True


def build_card(evidence: Evidence, terms: Terms, request: CardRequest) -> str:
    """Return the text of the card: the hub's metadata, then the page.

    Raises:
        ConfigError: when huggingface_hub rejects the metadata.
    """
    from huggingface_hub import ModelCard

    data = build_metadata(evidence, terms, request)
    text = f"---\n{data.to_yaml()}\n---\n\n{render_page(evidence, terms, request)}"
    try:
        back = ModelCard(text).data
    except ValueError as error:
        raise ConfigError(f"huggingface_hub rejects the card's metadata ({error})", code="card-metadata") from error
    if back.to_dict() != data.to_dict():
        raise ConfigError("The card's metadata changed when read back", where="README.md", code="card-metadata")
    return text


def build_metadata(evidence: Evidence, terms: Terms, request: CardRequest) -> Any:
    """Return the metadata as huggingface_hub's `ModelCardData`, with one result per metric and test file."""
    from huggingface_hub import ModelCardData

    licence = terms.licence or "other"
    pipeline = _CLASSIFIER if request.is_classifier else _CAUSAL
    return ModelCardData(
        language=["zh"],
        license=licence,
        license_name=terms.base.licence_name or None if licence == "other" else None,
        license_link=terms.base.link or None if licence in ("other", "gemma") else None,
        base_model=terms.base.hub_id or None,
        library_name="transformers" if request.loads_in_transformers else None,
        pipeline_tag=pipeline,
        tags=["sentiment-analysis", "chinese", "sentifactory"],
        model_name=request.repo_id.rpartition("/")[2],
        eval_results=list_eval_results(evidence) or None,
    )


def list_eval_results(evidence: Evidence) -> list[Any]:
    """Return one `EvalResult` per metric and test file, with the interval in `metric_args`."""
    from huggingface_hub import EvalResult

    if evidence.report is None:
        return []
    found = []
    for result in list_results(evidence.report):
        facts = result["data"]["test"]
        name = redact_paths(str(facts["file"]))
        for figure in list_figures(result, evidence.report["task"]["labels"]):
            value = figure.values["tuned"]
            if figure.key not in METRICS or value is None:
                continue
            interval = value.interval
            found.append(
                EvalResult(
                    task_type=_CLASSIFIER,
                    task_name=evidence.report["task"]["name"],
                    dataset_type=Path(name).parent.name or Path(name).stem,
                    dataset_name=f"{name} ({facts['asked']} reviews, sha256 {facts['sha256'][:12]})",
                    dataset_split="test",
                    metric_type=_METRIC_TYPES.get(figure.key, figure.key),
                    metric_name=figure.title.en,
                    metric_value=round(value.value, 4),
                    metric_args={"interval_95": [round(interval.low, 4), round(interval.high, 4)]}
                    if interval
                    else None,
                )
            )
    return found


def render_page(evidence: Evidence, terms: Terms, request: CardRequest) -> str:
    """Return the page below the metadata, in English and then in Chinese."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # Markdown, not HTML: the template escapes every external text or puts it into a code block.
    environment = Environment(  # noqa: S701
        loader=PackageLoader("sentifactory.publishing.hub"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    from sentifactory.system.formats import escape

    environment.filters["escape_markdown"] = escape
    environment.filters["tojson_text"] = partial(json.dumps, ensure_ascii=False)
    task = evidence.read_task()
    facts: dict[str, Any] = {
        "repo_id": request.repo_id,
        "hub": request.hub,
        "is_classifier": request.is_classifier,
        "loads_in_transformers": request.loads_in_transformers,
        "task": task,
        "picture": PICTURE_NAME,
        "terms": terms,
        "warning": find_verdict(evidence),
        "report": redact_paths(strip_predictions(evidence.report)),
        "export": redact_paths(evidence.export),
        "run": describe_run(evidence),
        "calibration": describe_calibration(evidence),
    }
    template = environment.get_template("card.md.j2")
    pages = []
    for language in ("en", "zh"):
        pick = Picker(language)
        view = {"tables": list_result_tables(evidence, pick), "data": describe_data(evidence, terms, pick)}
        pages.append(template.render(**facts, **view, language=language, pick=pick))
    return "\n".join(pages)


def strip_predictions(report: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a report without run cards and what quotes reviews (predictions, replies, words, few-shot prompts)."""
    if report is None:
        return None
    kept = {key: value for key, value in report.items() if key not in ("predictions", "words")}
    kept["models"] = {
        name: {key: value for key, value in model.items() if key not in ("run_card", "prompt_template")}
        for name, model in report["models"].items()
    }
    if "written" in kept:
        kept["written"] = {key: value for key, value in report["written"].items() if key != "replies"}
    kept["further_tests"] = [
        {key: value for key, value in further.items() if key not in ("predictions", "words")}
        for further in report["further_tests"]
    ]
    return kept
