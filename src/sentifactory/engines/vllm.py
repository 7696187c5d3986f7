"""A vLLM server of our own and the client that asks it, as one engine."""

from __future__ import annotations

from collections.abc import Sequence

from sentifactory.engines.base import MAX_NEW_TOKENS, ClosingEngine
from sentifactory.engines.openai_api import OpenAiEngine
from sentifactory.engines.vllm_process import VllmOptions, start_vllm
from sentifactory.records import Prediction, Review
from sentifactory.task import Task


class VllmEngine(ClosingEngine):
    """A model served by a vLLM process that begins and ends with this engine.

    Args:
        model_path: folder of a checkpoint, or a hub id.
        task: prompt and answer.
        name: what the model is called in progress lines and reports, and under which it is served.
        options: how vLLM is started.
        max_new_tokens: longest reply, in tokens.
        concurrency: requests under way at the same time.

    Raises:
        ConfigError: when there is no vLLM environment.
        EngineError: when vLLM does not start.
    """

    def __init__(
        self,
        model_path: str,
        task: Task,
        *,
        name: str = "model",
        options: VllmOptions | None = None,
        max_new_tokens: int = MAX_NEW_TOKENS,
        concurrency: int = 32,
    ) -> None:
        self.name = name
        server = start_vllm(model_path, name, options or VllmOptions())
        self.address = server.address
        self._process = server.process
        try:
            self._client = OpenAiEngine(
                server.address,
                name,
                task,
                name=name,
                api_key="none",  # the user's key is not for this server
                max_new_tokens=max_new_tokens,
                concurrency=concurrency,
                check_server=lambda: self._process.check_alive("while it was answering"),
            )
        except BaseException:
            self.close()
            raise

    def predict(self, reviews: Sequence[Review]) -> list[Prediction]:
        """Return one prediction per review, in the order of the reviews.

        Raises:
            EngineError: when vLLM has ended (its last lines are shown) or refuses.
        """
        return self._client.predict(reviews)

    def close(self) -> None:
        """End vLLM and everything it started; may be called twice."""
        self._process.close()
