"""A teacher is asked about reviews without labels; its probabilities teach a student (`training.soft_labels`).

Answers are written down as they come: a run that was cut off is continued by the same command, and asks nothing twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentifactory.atomic import refuse_endangered, write_json
from sentifactory.corpus.export import clean_as_trained
from sentifactory.corpus.manifest import hash_file
from sentifactory.corpus.readers import read_texts
from sentifactory.corpus.sampling import take_sample
from sentifactory.engines.base import Mode
from sentifactory.engines.calibration import find_calibration
from sentifactory.engines.identity import identify_engine
from sentifactory.engines.registry import build_engine, check_engine, check_mode, choose_kind, split_by_prompt
from sentifactory.errors import ConfigError, DataError, EngineError
from sentifactory.evaluation.predicting import collect_answers, compute_fingerprint
from sentifactory.evaluation.provenance import describe_model, describe_versions
from sentifactory.json_object import read_json_object
from sentifactory.progress import say
from sentifactory.records import Review
from sentifactory.task import Task
from sentifactory.task_choice import choose_task
from sentifactory.training.soft_labels import write_soft_labels

if TYPE_CHECKING:
    from sentifactory.engines.base import Engine

_MODE: Mode = "score"  # the only one that gives probabilities


@dataclass(frozen=True, slots=True)
class TeachOptions:
    """The options of asking a teacher.

    Attributes:
        teacher: folder of its model, or its name at an address.
        input_files: reviews; labels in them are not looked at.
        output_file: where the soft labels go, a .jsonl file; what is known of them goes beside it.
        engine: that runs the teacher.
        task: name or YAML file; None: what the teacher was taught.
        max_samples: most reviews that it is asked about; None for all.
        seed: chooses them.
    """

    teacher: str
    input_files: tuple[str, ...]
    output_file: Path
    engine: str = "vllm"
    task: str | None = None
    max_samples: int | None = None
    seed: int = 42


def ask_teacher(options: TeachOptions) -> dict[str, Any]:
    """Write the soft labels, and return what is known of them.

    Raises:
        ConfigError: when an option cannot be used, or the place cannot be written.
        DataError: when a file cannot be used.
        EngineError: when the teacher cannot be run, or answers nothing.
    """
    if options.output_file.suffix != ".jsonl":
        raise ConfigError(f"--output_file is {str(options.output_file)!r}", expected="a name that ends in .jsonl")
    facts_file = options.output_file.with_suffix(".json")
    refuse_endangered([options.output_file, facts_file], [*options.input_files, options.teacher, options.task])
    if facts_file.exists() and "teacher" not in (read_json_object(facts_file) or {}):
        raise ConfigError(
            "What is known of the soft labels would replace another file",
            where=str(facts_file),
            next_step="choose another --output_file",
        )
    journal = options.output_file.with_suffix(".answers.jsonl")
    if options.output_file.exists() and not facts_file.exists() and not journal.exists():
        raise ConfigError(
            "Something stands here that no teacher has written, and it would be replaced",
            where=str(options.output_file),
            next_step="move it away, or choose another --output_file",
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
        # Its answers come corrected, where a calibration lies beside it.
        compute_fingerprint(
            identify_engine(engine, options.teacher, task, find_calibration(options.teacher, task), mode=_MODE)
        ),
    )
    taught = [row for row, answer in enumerate(answers.predictions) if answer.probabilities is not None]
    if not taught:
        journal.unlink(missing_ok=True)  # the same command asks again
        raise EngineError(
            f"The teacher answered none of the {len(reviews)} reviews",
            where=options.teacher,
            next_step="see above why, or ask another teacher",
        )
    if n_missing := len(reviews) - len(taught):
        say(f"The teacher gave no answer to {n_missing} of {len(reviews)} reviews: these are left out")
    lessons = [answers.predictions[row] for row in taught]
    write_soft_labels(options.output_file, [reviews[row] for row in taught], lessons, task)
    facts = {
        "teacher": {"model": options.teacher, "engine": engine, "mode": _MODE, **model},
        "task": chosen.to_json(),
        "input": [{"file": name, "sha256": hash_file(Path(name))} for name in options.input_files],
        "reviews": len(taught),
        "missing": n_missing,
        "answered": {label: sum(answer.label == at for answer in lessons) for at, label in enumerate(task.labels)},
        "predict_s": round(answers.predict_s, 3),
        "sha256": hash_file(options.output_file),
        "versions": describe_versions([engine]),
    }
    write_json(facts_file, facts)
    journal.unlink(missing_ok=True)  # every answer stands in the file
    return facts


def read_distinct(files: Sequence[str], task: Task) -> list[Review]:
    """Return the reviews of some files without their labels, each text once, those without a text left out.

    Raises:
        DataError: when a file cannot be used, or no text is left.
    """
    rows = [review for name in files for review in clean_as_trained(read_texts(name, task), name)]
    texts = {review.text: review for review in rows if review.text.strip()}
    if not texts:
        raise DataError("No row has a text", where=", ".join(files), expected="at least one review")
    return list(texts.values())
