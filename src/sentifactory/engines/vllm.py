"""A vLLM server of our own and the client that asks it, as one engine."""

from __future__ import annotations

from collections.abc import Sequence

from sentifactory.engines.base import MAX_NEW_TOKENS, ClosingEngine, Mode, OnAnswer, ServerGoneError
from sentifactory.engines.openai_api import OpenAiEngine
from sentifactory.engines.openai_client import Patience
from sentifactory.engines.vllm_process import SILENCE_S, VllmOptions, start_vllm
from sentifactory.progress import say
from sentifactory.records import Prediction, Review
from sentifactory.task import Task


class VllmEngine(ClosingEngine):
    """A model served by a vLLM process that begins and ends with this engine.

    A server that ends while it answers is started again, and the reviews that have no answer yet are sent again.

    Args:
        model_path: folder of a checkpoint, or a hub id.
        task: prompt and answer.
        name: what the model is called in progress lines and reports, and under which it is served.
        mode: `generate`, `constrain` or `score`.
        options: how vLLM is started.
        max_new_tokens: longest reply, in tokens.
        concurrency: requests under way at the same time.

    Raises:
        ConfigError: when there is no vLLM environment.
        EngineError: when vLLM does not start, or does not keep to a constraint.
    """

    def __init__(
        self,
        model_path: str,
        task: Task,
        *,
        name: str = "model",
        mode: Mode = "generate",
        options: VllmOptions | None = None,
        max_new_tokens: int = MAX_NEW_TOKENS,
        concurrency: int = 32,
    ) -> None:
        self.name = name
        self.mode = mode
        self._model_path = model_path
        self._task = task
        self._options = options or VllmOptions()
        self._max_new_tokens = max_new_tokens
        self._concurrency = concurrency
        self._start()

    def _start(self) -> None:
        server = start_vllm(self._model_path, self.name, self._options)
        self.address = server.address
        self.key = server.key
        self._process = server.process
        try:
            self._client = OpenAiEngine(
                server.address,
                self.name,
                self._task,
                name=self.name,
                mode=self.mode,
                api_key=server.key,
                max_new_tokens=self._max_new_tokens,
                concurrency=self._concurrency,
                patience=Patience(
                    timeout_s=None,
                    silence_s=SILENCE_S,
                    check_server=lambda: server.process.check_alive("while it was answering"),
                ),
            )
        except BaseException:
            self.close()
            raise

    def predict(self, reviews: Sequence[Review], on_answer: OnAnswer | None = None) -> list[Prediction]:
        """Return one prediction per review, in the order of the reviews.

        Raises:
            EngineError: when vLLM refuses, or has ended again and again (its last lines are shown).
        """
        answers: dict[int, Prediction] = {}
        n_restarts = 0
        while len(answers) < len(reviews):
            open_positions = [position for position in range(len(reviews)) if position not in answers]

            def keep(place: int, prediction: Prediction, positions: list[int] = open_positions) -> None:
                answers[positions[place]] = prediction
                if on_answer is not None:
                    on_answer(positions[place], prediction)

            try:
                self._client.predict([reviews[position] for position in open_positions], keep)
            except ServerGoneError as error:
                has_answered = len(answers) > len(reviews) - len(open_positions)
                n_restarts = 1 if has_answered else n_restarts + 1
                if n_restarts > self._options.max_restarts:
                    raise
                say(f"{error} It is started again; {len(reviews) - len(answers)} reviews are still to be asked.")
                self.close()
                self._start()
        return [answers[position] for position in range(len(reviews))]

    def close(self) -> None:
        """End vLLM and everything it started; may be called twice."""
        self._process.close()
