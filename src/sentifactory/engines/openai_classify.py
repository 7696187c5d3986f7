"""Asks a server's `/classify`, as vLLM has it for classifiers such as BertForSequenceClassification.

The answer holds the probabilities in the order of the model's labels, and the name of the likeliest label alone: the
order is taken to be the task's, and every answer is held against that name.
"""

from __future__ import annotations

import re
from typing import Any

from sentifactory.corpus.labels import build_label_index
from sentifactory.engines.openai_client import Connection
from sentifactory.engines.openai_errors import describe_refusal
from sentifactory.errors import EngineError
from sentifactory.models.classifier_labels import read_label_name
from sentifactory.records import Prediction, Review
from sentifactory.task import Task

PATH = "/classify"
# The server's tokenizer would take these for tokens of control; with a blank inside they are text.
_CONTROL_WORDS = re.compile(r"([<＜\[])(/?(?:s|pad|unk|mask|cls|sep)[>＞\]])", re.IGNORECASE)


class ClassifyAsker:
    """Reads the probabilities of all labels from one request.

    Args:
        model: name under which the server knows the model.
        task: says which labels there are.
    """

    def __init__(self, model: str, task: Task) -> None:
        self._model = model
        self._task = task
        self._index = build_label_index(task)

    async def prepare(self, connection: Connection) -> None:
        """Ask once, to see that the server classifies and has the task's labels.

        Raises:
            EngineError: when it does not.
        """
        await self.ask(connection, Review("。"))

    async def ask(self, connection: Connection, review: Review) -> Prediction:
        """Return the prediction for one review; one that is too long is cut at its end.

        Raises:
            EngineError: when the server refuses, or answers something else.
        """
        body = {
            "model": self._model,
            "input": _CONTROL_WORDS.sub(r"\1 \2", review.text),
            "truncate_prompt_tokens": -1,  # to the model's longest input
        }
        response = await connection.post_beside(PATH, body)
        if not response.is_success:
            raise describe_refusal(response, connection.address.removesuffix("/v1") + PATH, review, 0)
        try:
            return self._read(response.json()["data"][0], connection.address)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise EngineError(
                "The answer holds no probabilities of labels",
                where=connection.address,
                expected="a server that classifies, such as vLLM with a BertForSequenceClassification",
                next_step="check the address and the model",
            ) from error

    def _read(self, entry: dict[str, Any], address: str) -> Prediction:
        shares = tuple(float(share) for share in entry["probs"])
        best = shares.index(max(shares))
        name = str(entry["label"])
        is_named = read_label_name(name, self._index) == best or name.upper() == f"LABEL_{best}"
        if len(shares) != len(self._task.labels) or not is_named:
            raise EngineError(
                f"The model's {len(shares)} labels are not those of the task in their order: {best} is {name!r}",
                where=address,
                expected=", ".join(self._task.labels),
                next_step="run the checkpoint with --engine encoder, which looks its labels up by name",
            )
        return Prediction(best, probabilities=shares)
