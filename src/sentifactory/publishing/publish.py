"""Publishing from beginning to end: evidence, refusals, the folder that goes up, the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sentifactory
from sentifactory.engines.onnx import is_export
from sentifactory.errors import ConfigError
from sentifactory.json_object import read_json_object
from sentifactory.models.classifiers import is_classifier
from sentifactory.models.hub_errors import HUBS
from sentifactory.models.pooled import MODEL_TYPE
from sentifactory.progress import say
from sentifactory.publishing.card import CardRequest
from sentifactory.publishing.checks import find_refusals, refuse
from sentifactory.publishing.evidence import Evidence, gather_evidence
from sentifactory.publishing.files import Sorted, sort_files
from sentifactory.publishing.hubs import Destination, list_tokens, upload_folder
from sentifactory.publishing.licences import Terms, settle_terms
from sentifactory.publishing.staging import find_written_secrets, stage_files


@dataclass(frozen=True, slots=True)
class PublishOptions:
    """The options of publishing, as the command takes them.

    Attributes:
        folder: of the checkpoint.
        repo_id: owner/name on the hub.
        hub: `huggingface` or `modelscope`.
        report_file: report.json of a comparison; None looks for it.
        licence: of the tuned model; None takes the base model's.
        data_licence: of training reviews whose terms are not known here.
        is_public: whether everybody may see it.
        is_forced: publish although the report does not show that it is better than the base model.
        is_dry_run: send nothing; return what would be sent.
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
    """Publish a checkpoint; return what was sent, and where.

    Raises:
        ConfigError: with everything that stands in the way, or with what the hub says no with.
    """
    check_names(options)
    evidence = gather_evidence(options.folder, options.report_file)
    files = sort_files(options.folder)
    terms = settle_terms(
        evidence.base_name,
        evidence.manifests,
        [str(item.get("dataset")) for item in (evidence.card or {}).get("data", ())],
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
        refuse(find_written_secrets(place, tokens), where)
        result = describe_upload(place, files, evidence, terms, options)
        if options.is_dry_run:
            return {**result, "card": (place / "README.md").read_text(encoding="utf-8")}
        destination = Destination(options.repo_id, options.hub, options.is_public)
        message = f"{evidence.folder.name}, published by SentiFactory {sentifactory.__version__}"
        url = upload_folder(place, destination, terms.licence, message)
    say(f"Published: {url}")
    return {**result, "url": url}


def loads_in_transformers(folder: Path) -> bool:
    """Return whether transformers alone loads a checkpoint."""
    config = read_json_object(folder / "config.json") or {}
    return not is_export(folder) and config.get("model_type") != MODEL_TYPE


def check_names(options: PublishOptions) -> None:
    """Refuse names that cannot be, before anything is read.

    Raises:
        ConfigError: for a hub that there is not, or a repository's name that hubs do not take.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    if options.hub not in HUBS:
        raise ConfigError(f"There is no hub {options.hub!r}", where="--hub", expected=" or ".join(HUBS))
    try:
        validate_repo_id(options.repo_id)
        is_whole = options.repo_id.count("/") == 1
    except HFValidationError:
        is_whole = False
    if not is_whole:
        raise ConfigError(
            f"The repository's name is {options.repo_id!r}",
            where="--repo_id",
            expected="owner/name, of letters, digits, '-', '_' and '.'",
            next_step="correct it",
        )


def describe_upload(
    place: Path, files: Sorted, evidence: Evidence, terms: Terms, options: PublishOptions
) -> dict[str, Any]:
    """Return what goes up, what stays behind, and under which terms."""
    return {
        "repo_id": options.repo_id,
        "hub": options.hub,
        "is_public": options.is_public,
        "licence": terms.licence,
        "report": str(evidence.report_file),
        "files": {path.name: path.stat().st_size for path in sorted(place.iterdir())},
        "stay_behind": [path.name for path in files.stay],
    }
