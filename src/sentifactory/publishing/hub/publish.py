"""Publishes a model: collect the evidence, check for refusals, stage the files, upload them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sentifactory
from sentifactory.engines.local.onnx_engine import is_export
from sentifactory.errors import ConfigError
from sentifactory.models.classifiers import is_classifier
from sentifactory.models.hub import HUBS
from sentifactory.models.pooled_classifier import MODEL_TYPE
from sentifactory.publishing.hub.evidence import Evidence, gather_evidence, list_names_without_manifest
from sentifactory.publishing.hub.licences import Terms, determine_terms
from sentifactory.publishing.hub.model_card import CardRequest
from sentifactory.publishing.hub.refusal import refuse
from sentifactory.publishing.hub.refusals import find_refusals
from sentifactory.publishing.hub.staging import find_secrets_in_new_files, stage_files
from sentifactory.publishing.hub.upload import Destination, list_tokens, upload_folder
from sentifactory.publishing.model_files import SortedFiles, sort_files
from sentifactory.system.json_text import read_json_object
from sentifactory.system.network_settings import is_hub_id
from sentifactory.system.progress import say


@dataclass(frozen=True, slots=True)
class PublishOptions:
    """The options of `sentifactory publish`.

    Attributes:
        folder: of the checkpoint.
        repo_id: owner/name on the hub.
        hub: `huggingface` or `modelscope`.
        report_file: report.json of a comparison; None searches for it.
        licence: of the tuned model; None takes the base model's.
        data_licence: of training reviews whose licence is not in our table.
        is_public: whether the repository is public.
        is_forced: publish even if the report does not show an improvement over the base model.
        is_dry_run: upload nothing; return what would be uploaded.
    """

    folder: Path
    repo_id: str
    hub: str = "huggingface"
    report_file: Path | None = None
    licence: str | None = None
    data_licence: str | None = None
    is_public: bool = False
    is_forced: bool = False
    is_dry_run: bool = False


def publish_model(options: PublishOptions) -> dict[str, Any]:
    """Publish a checkpoint; return what was uploaded, and where.

    Raises:
        ConfigError: with all reasons not to publish, or with the hub's error.
    """
    check_names(options)
    evidence = gather_evidence(options.folder, options.report_file)
    files = sort_files(options.folder)
    terms = determine_terms(
        evidence.base_name,
        evidence.manifests,
        list_names_without_manifest(evidence.card, evidence.manifests),
        licence=options.licence,
        data_licence=options.data_licence,
    )
    tokens = list_tokens()
    where = str(options.folder)
    refuse(find_refusals(evidence, files, terms, is_forced=options.is_forced, tokens=tokens), where)
    request = CardRequest(
        options.repo_id, options.hub, is_classifier(str(options.folder)), loads_in_transformers(options.folder)
    )
    with stage_files(evidence, files, terms, request) as place:
        refuse(find_secrets_in_new_files(place, files, tokens), where)
        result = describe_upload(place, files, evidence, terms, options)
        if options.is_dry_run:
            return {**result, "card": (place / "README.md").read_text(encoding="utf-8")}
        destination = Destination(options.repo_id, options.hub, options.is_public)
        message = f"{evidence.folder.name}, published by SentiFactory {sentifactory.__version__}"
        url = upload_folder(place, destination, terms.licence, message)
    say(f"Published: {url}")
    return {**result, "url": url}


def loads_in_transformers(folder: Path) -> bool:
    """Return whether plain transformers loads a checkpoint."""
    config = read_json_object(folder / "config.json") or {}
    return not is_export(folder) and config.get("model_type") != MODEL_TYPE


def check_names(options: PublishOptions) -> None:
    """Check the names of the hub and the repository.

    Raises:
        ConfigError: for an unknown hub or an invalid repository name.
    """
    if options.hub not in HUBS:
        raise ConfigError(
            f"Unknown hub {options.hub!r}", where="--hub", expected=" or ".join(HUBS), code="option-value"
        )
    if not is_hub_id(options.repo_id):
        raise ConfigError(
            f"{options.repo_id!r} is not a valid repository name",
            where="--repo_id",
            expected="owner/name, of letters, digits, '-', '_' and '.'",
            next_step="correct it",
            code="repository-name",
        )


def describe_upload(
    place: Path, files: SortedFiles, evidence: Evidence, terms: Terms, options: PublishOptions
) -> dict[str, Any]:
    """Return what is uploaded and what is not, and under which licence."""
    return {
        "repo_id": options.repo_id,
        "hub": options.hub,
        "is_public": options.is_public,
        "licence": terms.licence,
        "report": str(evidence.report_file),
        "files": {path.name: path.stat().st_size for path in sorted(place.iterdir())},
        "stay_behind": [path.name for path in files.stay],
    }
