"""Classification with a server's `/classify`, which vLLM offers for models such as BertForSequenceClassification.

The response has the probabilities in the model's label order, but only the most probable label's name. The order is
assumed to be the task's, and every response is checked against that name.
"""

from __future__ import annotations

import re
from typing import Any

from sentifactory.engines.openai.connection import Connection
from sentifactory.engines.openai.request_errors import describe_refusal
from sentifactory.errors import EngineError
from sentifactory.records import Prediction, Review
from sentifactory.task.label_names import build_label_index, read_label_name
from sentifactory.task.task import Task

PATH = "/classify"
PROBE_TEXT = "。"  # asked once, before any review
# The server's tokenizer would read these as special tokens; with a space inside they are text.
_CONTROL_WORDS = re.compile(r"([<＜\[])(/?(?:s|pad|unk|mask|cls|sep)[>＞\]])", re.IGNORECASE)


class ClassifyMode:
    """Requests the probabilities of all labels.

    Args:
        model: name of the model on the server.
        task: with the labels.
    """

    def __init__(self, model: str, task: Task) -> None:
        self._model = model
        self._task = task
        self._index = build_label_index(task)

    async def prepare(self, connection: Connection) -> None:
        """Send a test request, to check that the server classifies with the task's labels.

        Raises:
            EngineError: when it does not.
        """
        await self.ask(connection, Review(PROBE_TEXT))

    async def ask(self, connection: Connection, review: Review) -> Prediction:
        """Return the prediction for one review; the server truncates one that is too long.

        Raises:
            EngineError: when the server refuses, or its response is not a classification.
        """
        body = {
            "model": self._model,
            "input": _CONTROL_WORDS.sub(r"\1 \2", review.text),
            "truncate_prompt_tokens": -1,  # to the model's longest input
        }
        response = await connection.post_to_root(PATH, body)
        if not response.is_success:
            raise describe_refusal(response, connection.address.removesuffix("/v1") + PATH, review, 0)
        try:
            return self._read(response.json()["data"][0], connection.address)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise EngineError(
                "The response has no label probabilities",
                where=connection.address,
                expected="a classification server, such as vLLM with a BertForSequenceClassification",
                next_step="check the address and the model",
                code="server-answer",
            ) from error

    def _read(self, entry: dict[str, Any], address: str) -> Prediction:
        shares = tuple(float(share) for share in entry["probs"])
        best = shares.index(max(shares))
        name = str(entry["label"])
        is_named = read_label_name(name, self._index) == best or name.upper() == f"LABEL_{best}"
        if len(shares) != len(self._task.labels) or not is_named:
            raise EngineError(
                f"The model's {len(shares)} labels are not the task's, or not in its order: {best} is {name!r}",
                where=address,
                expected=", ".join(self._task.labels),
                next_step="run the checkpoint with --engine encoder, which matches labels by name",
                code="model-labels",
            )
        return Prediction(best, probabilities=shares)
