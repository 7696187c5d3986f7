"""Few-shot prompts: a task whose prompt contains examples from the training reviews."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from sentifactory.errors import DataError
from sentifactory.records import Review
from sentifactory.task.task import Task

# Short examples keep the prompt short; without prefix caching every review pays for its length.
MAX_EXAMPLE_CHARACTERS = 80


def choose_examples(train: Sequence[Review], n_labels: int, shots: int, seed: int) -> list[Review]:
    """Return `shots` short training reviews of each label, in rounds of all labels in random order.

    Raises:
        DataError: when a label has too few training reviews of at most `MAX_EXAMPLE_CHARACTERS`.
    """
    rng = random.Random(seed)  # noqa: S311 - a sample, not a secret
    chosen = []
    for label in range(n_labels):
        found = [
            review for review in train if review.label == label and len(review.text.strip()) <= MAX_EXAMPLE_CHARACTERS
        ]
        if len(found) < shots:
            raise DataError(
                f"Label {label} has {len(found)} short training reviews",
                expected=f"at least {shots} of at most {MAX_EXAMPLE_CHARACTERS} characters",
                next_step="lower --shots",
                code="few-shot-examples",
            )
        chosen.append(rng.sample(found, shots))
    rows = [list(row) for row in zip(*chosen, strict=True)]
    for row in rows:
        rng.shuffle(row)
    return [review for row in rows for review in row]


def add_examples(task: Task, examples: Sequence[Review]) -> Task:
    """Return the task with examples, each a question with its answer, before the question.

    Example:
        >>> from sentifactory.task.task import BINARY_SENTIMENT
        >>> task = add_examples(BINARY_SENTIMENT, [Review("很好", 1)])
        >>> task.render_prompt("差").count("评论：")
        2
    """
    shown = [
        f"{task.render_prompt(example.text)}\n{task.render_answer(example.label)}\n\n"
        for example in examples
        if example.label is not None
    ]
    return replace(
        task, name=f"{task.name}_{len(shown)}_examples", prompt_template="".join(shown) + task.prompt_template
    )
