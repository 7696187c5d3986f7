"""Token ids from a server's own tokenizer and chat template.

vLLM applies the chat template in `/tokenize`. llama.cpp has `/apply-template` for that, and other names of the fields
in `/tokenize`. Both ignore fields that they do not know, so a text is sent under both names.
"""

from __future__ import annotations

from typing import Any

from sentifactory.engines.openai.connection import Connection
from sentifactory.engines.openai.request_errors import OTHER_MODES, read_message
from sentifactory.errors import EngineError

PATH = "/tokenize"
TEMPLATE_PATH = "/apply-template"


class NoTokensError(EngineError):
    """The server returns no token ids."""

    code = "server-mode"


class TokenRoutes:
    """Requests token ids.

    Args:
        model: the server's name for the model.

    Attributes:
        has_templates: whether the server is llama.cpp, which has `/apply-template`; set by `find`.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self.has_templates = False

    async def find(self, connection: Connection, messages: list[dict[str, str]]) -> None:
        """Find out by which requests the server returns token ids.

        Args:
            connection: to the server.
            messages: a chat to try it with.

        Raises:
            NoTokensError: when there are none.
        """
        self.has_templates = await self._render(connection, messages) is not None
        await self.tokenize_chat(connection, messages)

    async def tokenize_text(self, connection: Connection, text: str) -> list[int]:
        """Return the token ids of a text, without a token that opens a prompt.

        Raises:
            NoTokensError: when the server returns none.
        """
        words = {"prompt": text, "content": text, "add_special_tokens": False, "add_special": False}
        return await self._tokenize(connection, words)

    async def tokenize_chat(self, connection: Connection, messages: list[dict[str, str]]) -> list[int]:
        """Return the token ids of chat messages up to where the model's turn begins, as the server's chats have them.

        Raises:
            NoTokensError: when the server returns none.
        """
        if not self.has_templates:
            return await self._tokenize(connection, {"messages": messages, "add_generation_prompt": True})
        prompt = await self._render(connection, messages)
        return await self._tokenize(connection, {"content": prompt or "", "add_special": True, "parse_special": True})

    async def _render(self, connection: Connection, messages: list[dict[str, str]]) -> str | None:
        """Return the prompt by the chat template in the GGUF file; None from a server without that route."""
        response = await connection.post_to_root(TEMPLATE_PATH, {"model": self._model, "messages": messages})
        try:
            return str(response.json()["prompt"])
        except (ValueError, KeyError, TypeError):
            return None

    async def _tokenize(self, connection: Connection, words: dict[str, Any]) -> list[int]:
        response = await connection.post_to_root(PATH, {"model": self._model, **words})
        try:
            tokens = [int(token) for token in response.json()["tokens"]]
            if not tokens:  # llama.cpp's answer to fields that it does not know
                raise ValueError("no tokens")
        except (ValueError, KeyError, TypeError) as error:
            raise NoTokensError(
                "The server does not return the token ids of a text, so answers cannot be scored "
                f"(HTTP {response.status_code}: {read_message(response)})",
                where=str(response.request.url),
                expected="POST /tokenize, as in vLLM and llama.cpp",
                next_step=f"use the engine vllm or transformers; {OTHER_MODES}",
            ) from error
        return tokens
