"""The engine vllm: starts a vLLM server (`start_vllm`) and asks it through the OpenAI client, with restarts."""

from __future__ import annotations

from collections.abc import Sequence

from sentifactory.engines.base import MAX_NEW_TOKENS, ClosingEngine, Mode, OnAnswer, ServerEndedError
from sentifactory.engines.openai.connection import RetryPolicy
from sentifactory.engines.openai.openai_engine import OpenAiEngine
from sentifactory.engines.vllm.start_vllm import SILENCE_S, VllmOptions, start_vllm
from sentifactory.records import Prediction, Review
from sentifactory.system.progress import say
from sentifactory.task.task import Task


class VllmEngine(ClosingEngine):
    """A model served by a vLLM process that starts and ends with this engine.

    If the server ends while answering, it is restarted, and reviews without an answer are sent again.

    Args:
        model_path: checkpoint folder or hub id.
        task: prompt and answer.
        name: of the model in progress lines, reports and requests.
        mode: `generate`, `constrain` or `score`.
        options: how vLLM is started.
        max_new_tokens: longest reply, in tokens.
        concurrency: number of concurrent requests.

    Raises:
        ConfigError: when vLLM is not installed.
        EngineError: when vLLM does not start, or does not enforce a constraint.
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
        self._served_name = name
        self._start()

    def switch_to(self, task: Task, *, mode: Mode, name: str) -> None:
        """Ask with another task or in another mode; the server stays, or is restarted if it has ended.

        Raises:
            EngineError: when the server does not answer, or does not enforce a constraint.
        """
        self._task, self.mode, self.name = task, mode, name
        try:
            self._client.switch_to(task, mode=mode, name=name)
        except ServerEndedError as error:
            say(f"{error} Restarting it.")
            self.close()
            self._start()

    def _start(self) -> None:
        server = start_vllm(self._model_path, self._served_name, self._options)
        self.address = server.address
        self.key = server.key
        self._process = server.process
        try:
            self._client = OpenAiEngine(
                server.address,
                self._served_name,
                self._task,
                name=self.name,
                mode=self.mode,
                api_key=server.key,
                max_new_tokens=self._max_new_tokens,
                concurrency=self._concurrency,
                retry_policy=RetryPolicy(
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
            EngineError: when vLLM refuses a request, or ends repeatedly (the message shows the end of its log).
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
            except ServerEndedError as error:
                has_answered = len(answers) > len(reviews) - len(open_positions)
                n_restarts = 1 if has_answered else n_restarts + 1
                if n_restarts > self._options.max_restarts:
                    raise
                say(f"{error} Restarting it; {len(reviews) - len(answers)} reviews are left.")
                self.close()
                self._start()
        return [answers[position] for position in range(len(reviews))]

    def close(self) -> None:
        """End vLLM and its child processes; may be called twice."""
        self._process.close()
