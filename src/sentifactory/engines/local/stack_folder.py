"""The folder of a stack: TF-IDF and a tuned model whose probabilities are combined; all of it travels in one folder.

- `model/`: a copy of the tuned model, with its task, run card and licence.
- `stack.safetensors`: the weights of TF-IDF and of the combination; `stack_terms.json`: the n-grams of TF-IDF.
- `stack.json`: SHA-256 of these files and of the model's weights and settings, the labels, where reviews came from.
- `sentifactory_task.json` and `calibration.json`, as every model has them.

No part of TF-IDF is a pickle or code, and whatever was changed, added to the model or left out is refused when the
stack is loaded. `evaluation.stack` makes the folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sentifactory.corpus.inspection.tfidf_pipeline import build_tfidf_pipeline
from sentifactory.errors import ConfigError
from sentifactory.metrics.calibration import hash_prompt
from sentifactory.metrics.combination import Combination
from sentifactory.models.folder_checks import find_unsafe_content
from sentifactory.models.weights import identify_checkpoint
from sentifactory.system.atomic import write_json, write_text
from sentifactory.system.fingerprint import hash_file
from sentifactory.system.json_text import read_json
from sentifactory.task.task import Task

STACK_NAME = "stack.json"
MEMBER_NAME = "model"
FORMAT_VERSION = 1
_WEIGHTS_NAME, _TERMS_NAME = "stack.safetensors", "stack_terms.json"
_FACTS = {"labels": list, "prompt_sha256": str, "tfidf_labels": list, "files": dict, "model": dict, "fitted_on": dict}
_MAX_TERMS_BYTES = 1 << 30


def is_stack(model: str | Path) -> bool:
    """Return whether a folder is one that `sentifactory model stack` has written."""
    return (Path(model).expanduser() / STACK_NAME).is_file()


def is_fitted_on(model: str | Path, sha256: str) -> bool:
    """Return whether a folder is a stack whose combination and calibration were fitted on a file of this hash.

    Its answers to these reviews are too good to fit anything else on them.
    """
    return is_stack(model) and read_facts(str(model))["fitted_on"].get("sha256") == sha256


def find_member(model: str) -> str:
    """Return the folder of the tuned model of a stack; every other model is its own."""
    return str(Path(model).expanduser() / MEMBER_NAME) if is_stack(model) else model


def write_stack(
    folder: Path, pipeline: Any, combination: Combination, task: Task, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the files of a stack into a folder that holds the copy of its model, and return its facts.

    Args:
        folder: with the model in `MEMBER_NAME`.
        pipeline: the trained pipeline of `build_tfidf_pipeline`.
        combination: of TF-IDF and the model, in this order.
        task: what is asked.
        facts: further ones: `fitted_on`, and whatever the stack says about itself.

    Raises:
        OSError: when a file cannot be written.
    """
    import numpy as np
    from safetensors.numpy import save_file

    vectoriser, regression = (step for _, step in pipeline.steps)
    terms = sorted(vectoriser.vocabulary_, key=vectoriser.vocabulary_.__getitem__)
    write_text(folder / _TERMS_NAME, json.dumps(terms))  # all ASCII: whatever characters a review holds survive
    tensors = {
        "tfidf.idf": vectoriser.idf_,
        "tfidf.coef": regression.coef_,
        "tfidf.intercept": regression.intercept_,
        "combination.weights": combination.weights,
        "combination.bias": combination.bias,
    }
    save_file(
        {name: np.ascontiguousarray(values, dtype=np.float64) for name, values in tensors.items()},
        folder / _WEIGHTS_NAME,
    )
    (folder / _WEIGHTS_NAME).chmod(0o644)  # safetensors makes files that only their owner may read
    content = {
        "format_version": FORMAT_VERSION,
        "labels": list(task.labels),
        "prompt_sha256": hash_prompt(task),
        "tfidf_labels": [int(label) for label in regression.classes_],
        "files": {name: hash_file(folder / name) for name in (_WEIGHTS_NAME, _TERMS_NAME)},
        "model": identify_checkpoint(folder / MEMBER_NAME),
        **facts,
    }
    write_json(folder / STACK_NAME, content)
    return content


def read_facts(folder: str | Path) -> dict[str, Any]:
    """Return what a stack says about itself; its files are not read.

    Raises:
        ConfigError: when stack.json cannot be used, or a part of the folder would keep a loader busy for ever.
    """
    place = Path(folder).expanduser()
    if fault := find_unsafe_content(place):
        raise describe_unusable(place, fault)
    try:
        facts = read_json(place / STACK_NAME)
        version = facts["format_version"]
        is_whole = all(isinstance(facts[name], kind) for name, kind in _FACTS.items())
        is_whole &= all(isinstance(label, str) for label in facts["labels"]) and len(facts["labels"]) > 1
        seen = facts["tfidf_labels"]
        is_whole &= len(seen) > 1 and sorted(set(seen)) == seen and set(seen) <= {*range(len(facts["labels"]))}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise describe_unusable(place, f"{STACK_NAME} cannot be read") from error
    if version != FORMAT_VERSION:
        raise ConfigError(
            f"The stack is of format {version}",
            where=str(place / STACK_NAME),
            expected=f"format {FORMAT_VERSION}",
            next_step="make the stack again with this version",
            code="stack-version",
        )
    if not is_whole:
        raise describe_unusable(place, f"{STACK_NAME} lacks facts, or they are of another kind")
    return dict(facts)


def check_task(folder: str | Path, task: Task, *, is_prompted: bool) -> None:
    """Refuse a task for which the combination does not hold.

    Args:
        folder: of the stack.
        task: what will be asked.
        is_prompted: whether the model is shown the prompt; a classifier is not.

    Raises:
        ConfigError: when the labels or the prompt are others than those that the stack was fitted with.
    """
    facts = read_facts(folder)
    is_same = list(task.labels) == facts["labels"]
    if not is_same or (is_prompted and facts["prompt_sha256"] != hash_prompt(task)):
        raise ConfigError(
            f"The stack was fitted for {', '.join(facts['labels'])}"
            + (" and another prompt" if is_same else f", and the task {task.name} has {', '.join(task.labels)}"),
            where=str(folder),
            next_step="leave out --task, or make a stack for this task with `sentifactory model stack`",
            code="stack-task",
        )


def load_stack(folder: str | Path) -> tuple[Any, Combination]:
    """Return the trained TF-IDF pipeline of a stack and its combination, after all hashes were compared.

    Raises:
        ConfigError: when the folder is damaged, or is not the one that was fitted.
    """
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    place = Path(folder).expanduser()
    facts = read_facts(place)
    check_files(place, facts)
    try:
        terms, tensors = read_json(place / _TERMS_NAME), load_file(place / _WEIGHTS_NAME)
        idf, coef, intercept, weights, bias = (
            tensors[name].astype(np.float64)
            for name in ("tfidf.idf", "tfidf.coef", "tfidf.intercept", "combination.weights", "combination.bias")
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise describe_unusable(place, "its weights cannot be read") from error
    n_rows = 1 if len(facts["tfidf_labels"]) == 2 else len(facts["tfidf_labels"])
    is_list = isinstance(terms, list) and all(isinstance(term, str) for term in terms)
    if not is_list or not terms or len(set(terms)) < len(terms):
        raise describe_unusable(place, f"{_TERMS_NAME} is no list of different n-grams")
    found = [values.shape for values in (idf, coef, intercept, weights, bias)]
    stated = [(len(terms),), (n_rows, len(terms)), (n_rows,), (2,), (len(facts["labels"]),)]
    is_finite = all(np.isfinite(values).all() for values in (idf, coef, intercept, weights, bias))
    if found != stated or not is_finite:
        raise describe_unusable(place, "its weights do not fit together, or are not finite")
    pipeline = build_tfidf_pipeline(n_reviews=1, n_labels=len(facts["tfidf_labels"]))
    vectoriser, regression = (step for _, step in pipeline.steps)
    vectoriser.set_params(vocabulary=terms)
    vectoriser.idf_ = idf
    regression.classes_ = np.array(facts["tfidf_labels"])
    regression.coef_, regression.intercept_ = coef, intercept
    return pipeline, Combination(tuple(weights.tolist()), tuple(bias.tolist()))


def check_files(folder: Path, facts: Mapping[str, Any]) -> None:
    """Refuse files that are not those of the stack when it was fitted.

    Raises:
        ConfigError: naming the first one.
    """
    for name in (_WEIGHTS_NAME, _TERMS_NAME):
        path = folder / name
        if not path.is_file():
            raise describe_unusable(folder, f"{name} is missing")
        if path.stat().st_size > _MAX_TERMS_BYTES or hash_file(path) != facts["files"].get(name):
            raise describe_unusable(folder, f"{name} is not the file that was fitted")
    if not (folder / MEMBER_NAME).is_dir():
        raise describe_unusable(folder, f"the folder {MEMBER_NAME} is missing")
    found = identify_checkpoint(folder / MEMBER_NAME)
    for part, stated in found.items():
        own = facts["model"].get(part)
        if own != stated:
            known = own if isinstance(own, dict) else {}
            changed = sorted(name for name in {*stated, *known} if stated.get(name) != known.get(name))
            raise describe_unusable(folder, f"{MEMBER_NAME}/{changed[0]} is not what it was when the stack was fitted")


def describe_unusable(folder: Path, why: str) -> ConfigError:
    """Return the error for a stack that cannot be used."""
    return ConfigError(
        f"This stack is not loaded: {why}",
        where=str(folder),
        expected="the folder as `sentifactory model stack` has written it",
        next_step="copy the whole folder again, or make the stack again",
        code="stack-unusable",
    )
