"""Runs a teacher on reviews without labels; its probabilities become the soft labels of a student (`soft_labels`).

Answers are saved as they arrive: the same command continues an interrupted run, and asks nothing twice.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentifactory.corpus.dataset.dataset_files import clean_as_trained
from sentifactory.corpus.reading.review_files import read_texts
from sentifactory.corpus.splitting.sampling import take_sample
from sentifactory.engines.ask import collect_answers
from sentifactory.engines.base import Mode
from sentifactory.engines.model_identity import identify_engine
from sentifactory.engines.registry import build_engine, check_engine, check_mode, choose_kind, split_by_prompt
from sentifactory.errors import ConfigError, DataError, EngineError
from sentifactory.metrics.calibration import find_calibration
from sentifactory.records import Review
from sentifactory.redaction import mask_text
from sentifactory.system.atomic import has_marker, refuse_overwriting_inputs, write_json
from sentifactory.system.fingerprint import compute_fingerprint, hash_file
from sentifactory.system.json_text import read_json_object
from sentifactory.system.progress import say
from sentifactory.task.task import Task
from sentifactory.task.task_choice import choose_task
from sentifactory.training.distillation.soft_labels import write_soft_labels
from sentifactory.training.run.provenance import describe_model, describe_versions

if TYPE_CHECKING:
    from sentifactory.engines.base import Engine

_MODE: Mode = "score"  # the only mode that always gives probabilities


@dataclass(frozen=True, slots=True)
class DistillOptions:
    """The options of `sentifactory distill`.

    Attributes:
        teacher: folder of the model, or its name at an address.
        input_files: of reviews; labels are ignored.
        output_file: of the soft labels, a .jsonl file; a .json file with their facts is written next to it.
        engine: runs the teacher.
        task: name or YAML file; None: the one saved with the teacher.
        max_samples: maximum number of reviews; None: all.
        seed: of their selection.
    """

    teacher: str
    input_files: tuple[str, ...]
    output_file: Path
    engine: str = "vllm"
    task: str | None = None
    max_samples: int | None = None
    seed: int = 42


def ask_teacher(options: DistillOptions) -> dict[str, Any]:
    """Write the soft labels, and return their facts.

    Raises:
        ConfigError: when an option cannot be used, or a file cannot be written.
        DataError: when a file cannot be used.
        EngineError: when the teacher cannot be run, or gives no answer.
    """
    if options.output_file.suffix != ".jsonl":
        raise ConfigError(f"--output_file is {str(options.output_file)!r}", expected="a name that ends in .jsonl")
    facts_file = options.output_file.with_suffix(".json")
    refuse_overwriting_inputs([options.output_file, facts_file], [*options.input_files, options.teacher, options.task])
    if os.path.lexists(facts_file) and not {"teacher", "sha256"} <= {*(read_json_object(facts_file) or ())}:
        raise ConfigError(
            "The facts file would replace a file that is not from sentifactory distill",
            where=str(facts_file),
            next_step="choose another --output_file",
        )
    journal = options.output_file.with_suffix(".answers.jsonl")
    if os.path.lexists(options.output_file) and not _is_own_output(options.output_file, facts_file, journal):
        raise ConfigError(
            "The output would replace a file that is not from sentifactory distill",
            where=str(options.output_file),
            next_step="move that file, or choose another --output_file",
        )
    check_engine(options.engine, options.teacher)
    engine = choose_kind(options.engine, options.teacher)
    check_mode(_MODE, engine)
    asking, heads = split_by_prompt([(engine, options.teacher)])
    chosen = choose_task(options.task, models=asking, classifiers=heads, texts=options.input_files).announce()
    task = chosen.task
    reviews = take_sample(read_distinct(options.input_files, task), options.max_samples, options.seed)
    model = describe_model(options.teacher)

    def open_engine() -> AbstractContextManager[Engine]:
        return build_engine(engine, options.teacher, task, name="the teacher", mode=_MODE)

    answers = collect_answers(
        open_engine,
        reviews,
        journal,
        # The answers are calibrated where a calibration is saved with the teacher.
        compute_fingerprint(
            identify_engine(engine, options.teacher, task, find_calibration(options.teacher, task), mode=_MODE)
        ),
    )
    answered = [row for row, answer in enumerate(answers.predictions) if answer.probabilities is not None]
    if not answered:
        journal.unlink(missing_ok=True)  # so that the same command asks again
        raise EngineError(
            f"The teacher answered none of the {len(reviews)} reviews",
            where=options.teacher,
            next_step="see the messages above, or use another teacher",
        )
    if n_missing := len(reviews) - len(answered):
        say(f"The teacher gave no answer to {n_missing} of {len(reviews)} reviews, which are left out")
    kept = [answers.predictions[row] for row in answered]
    write_soft_labels(options.output_file, [reviews[row] for row in answered], kept, task)
    facts = {
        "teacher": {"model": options.teacher, "engine": mask_text(engine), "mode": _MODE, **model},
        "task": chosen.to_json(),
        "input": [{"file": name, "sha256": hash_file(Path(name))} for name in options.input_files],
        "reviews": len(answered),
        "missing": n_missing,
        "answered": {label: sum(answer.label == at for answer in kept) for at, label in enumerate(task.labels)},
        "predict_s": round(answers.predict_s, 3),
        "sha256": hash_file(options.output_file),
        "versions": describe_versions([engine]),
    }
    write_json(facts_file, facts)
    journal.unlink(missing_ok=True)  # every answer is in the output file
    return facts


def _is_own_output(output_file: Path, facts_file: Path, journal: Path) -> bool:
    """Return whether this command has written these soft labels, and nobody has changed them since."""
    if not output_file.is_file():
        return False
    if (read_json_object(facts_file) or {}).get("sha256") == hash_file(output_file):
        return True
    return journal.exists() and has_marker(output_file, '{"text": "')  # killed before the facts were written


def read_distinct(files: Sequence[str], task: Task) -> list[Review]:
    """Return the distinct, non-empty texts of some files as reviews without labels.

    Raises:
        DataError: when a file cannot be used, or there is no text.
    """
    rows = [review for name in files for review in clean_as_trained(read_texts(name, task), name)]
    texts = {review.text: review for review in rows if review.text.strip()}
    if not texts:
        raise DataError("No row has a text", where=", ".join(files), expected="at least one review")
    return list(texts.values())
