"""The model card: metadata for the hub, and a page in English and Chinese; every figure comes from the evidence.

Nothing is typed here that was measured elsewhere: figures and intervals come from report.json, recipe, versions and
times from run.json, the data from their manifest, temperature and threshold from calibration.json.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sentifactory.errors import ConfigError
from sentifactory.evaluation.mistake_files import each_test
from sentifactory.evaluation.wording import list_figures
from sentifactory.publishing.card_facts import (
    Picker,
    describe_calibration,
    describe_data,
    describe_run,
    list_result_tables,
)
from sentifactory.publishing.checks import find_verdict
from sentifactory.publishing.evidence import Evidence
from sentifactory.publishing.licences import Terms
from sentifactory.publishing.picture import PICTURE_NAME
from sentifactory.publishing.places import hide_places

METRICS = ("accuracy", "precision", "recall", "f1", "macro_f1", "mcc", "roc_auc")
# The hub's identifiers of metrics, where they are not ours.
_METRIC_TYPES = {"macro_f1": "f1", "mcc": "matthews_correlation"}
_CAUSAL, _CLASSIFIER = "text-generation", "text-classification"


@dataclass(frozen=True, slots=True)
class CardRequest:
    """What a card is made for.

    Attributes:
        repo_id: owner and name on the hub.
        hub: `huggingface` or `modelscope`.
        is_classifier: whether the model is an encoder with a head, and not a language model that writes.
        loads_in_transformers: whether transformers alone loads it; not an ONNX export, nor a head of our own.
    """

    repo_id: str
    hub: str
    is_classifier: bool
    loads_in_transformers: bool = True


def build_card(evidence: Evidence, terms: Terms, request: CardRequest) -> str:
    """Return the card as text: the hub's metadata in front, then the page.

    Raises:
        ConfigError: when the hub's own library does not take the metadata.
    """
    from huggingface_hub import ModelCard

    data = build_metadata(evidence, terms, request)
    text = f"---\n{data.to_yaml()}\n---\n\n{render_page(evidence, terms, request)}"
    try:
        back = ModelCard(text).data
    except ValueError as error:
        raise ConfigError(f"The card's metadata are not taken by huggingface_hub ({error})") from error
    if back.to_dict() != data.to_dict():
        raise ConfigError("The card's metadata do not come back as they were written", where="README.md")
    return text


def build_metadata(evidence: Evidence, terms: Terms, request: CardRequest) -> Any:
    """Return the metadata as huggingface_hub's `ModelCardData`, with a result for each figure and test file."""
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
    """Return one `EvalResult` for each figure of the model on each test file, its interval in `metric_args`."""
    from huggingface_hub import EvalResult

    if evidence.report is None:
        return []
    found = []
    for result in each_test(evidence.report):
        facts = result["data"]["test"]
        name = hide_places(str(facts["file"]))
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
    """Return the page below the metadata, English first."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # Markdown, not HTML: every text from outside passes `escape` in the template or stands in a fence.
    environment = Environment(  # noqa: S701
        loader=PackageLoader("sentifactory.publishing"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    from sentifactory.evaluation.markdown import escape

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
        "report": hide_places(strip_predictions(evidence.report)),
        "export": hide_places(evidence.export),
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
    """Return a report without what quotes reviews (predictions, words), and without the run card, which goes along."""
    if report is None:
        return None
    kept = {key: value for key, value in report.items() if key not in ("predictions", "words")}
    kept["models"] = {
        name: {key: value for key, value in model.items() if key != "run_card"}
        for name, model in report["models"].items()
    }
    kept["further_tests"] = [
        {key: value for key, value in further.items() if key not in ("predictions", "words")}
        for further in report["further_tests"]
    ]
    return kept
