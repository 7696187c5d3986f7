"""A checkpoint run in this process by transformers: slower than vLLM, but it needs nothing beside `.venv`.

Batches hold reviews of like length, so that little is spent on padding; the answers come back in the order of the
reviews. `score` and `constrain` take one forward pass each (`transformers_scoring.py`): what greedy decoding under a
constraint would write follows from the probabilities at the places where the answers part.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from sentifactory.engines.adapters import load_network
from sentifactory.engines.answers import build_answer_tree, count_common, read_scores
from sentifactory.engines.base import MAX_NEW_TOKENS, ClosingEngine, Mode, OnAnswer, make_prediction
from sentifactory.engines.batches import answer_batches
from sentifactory.engines.transformers_scoring import LabelScorer
from sentifactory.errors import EngineError
from sentifactory.models.load_errors import describe_load_error, list_load_errors
from sentifactory.progress import say, show_progress
from sentifactory.records import Prediction, Review
from sentifactory.task import Task


class TransformersEngine(ClosingEngine):
    """A causal language model in this process.

    Args:
        model_path: folder of a checkpoint, or a hub id.
        task: prompt and answer.
        name: what the model is called in progress lines and reports.
        mode: `generate`, `constrain` or `score`.
        max_new_tokens: longest reply of `generate`, in tokens.
        batch_size: reviews answered at the same time.
        device: "cuda", "cpu", ...; None: a GPU where there is one.

    Raises:
        EngineError: when the model cannot be loaded.
    """

    def __init__(
        self,
        model_path: str,
        task: Task,
        *,
        name: str = "model",
        mode: Mode = "generate",
        max_new_tokens: int = MAX_NEW_TOKENS,
        batch_size: int = 16,
        device: str | None = None,
    ) -> None:
        import torch

        self.name = name
        self.mode = mode
        self._task = task
        self._max_new_tokens = max_new_tokens
        self._batch_size = batch_size
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        dtype = "float32" if self._device == "cpu" else "auto"  # a CPU computes in half precision, but slowly
        with show_progress(f"Loading {name} on {self._device}"):
            self._tokenizer, self._model = load_model(model_path, self._device, dtype)
        self._settings = build_generation_config(self._model, self._tokenizer, max_new_tokens)
        self._scorer = self._build_scorer() if mode != "generate" else None
        self._limit = getattr(self._model.config, "max_position_embeddings", None) or sys.maxsize
        self._n_reply_tokens = max_new_tokens
        if self._scorer is not None:
            self._n_reply_tokens = len(self._tree.lead) + max(map(len, self._tree.longest_paths))

    def _build_scorer(self) -> LabelScorer:
        answers = [self._task.render_answer(label) for label in range(len(self._task.labels))]
        self._tree = build_answer_tree(
            [self._tokenizer(answer, add_special_tokens=False)["input_ids"] for answer in answers]
        )
        return LabelScorer(self._model, self._tree, self._encode(Review("")), self._settings.pad_token_id)

    def predict(self, reviews: Sequence[Review], on_answer: OnAnswer | None = None) -> list[Prediction]:
        """Return one prediction per review, in the order of the reviews.

        The latency of a review is that of its batch. A review that is longer than the model takes gets no answer, as
        from vLLM: beyond the positions that it was trained for a model says something, and nothing that counts.

        Raises:
            EngineError: when the memory does not suffice.
        """
        encoded = [self._encode(review) for review in reviews]
        fitting = [at for at, prompt in enumerate(encoded) if len(prompt) + self._n_reply_tokens <= self._limit]
        prompts = [encoded[at] for at in fitting]
        answers = [Prediction(None)] * len(encoded)
        if n_left_out := len(encoded) - len(fitting):
            say(f"{n_left_out} of {len(encoded)} reviews are longer than {self.name} takes ({self._limit} tokens)")
        if on_answer is not None:
            for at in sorted({*range(len(encoded))} - {*fitting}):
                on_answer(at, answers[at])
        if self._scorer is not None and prompts:
            self._scorer.share_prefix(prompts)

        def tell(row: int, answer: Prediction) -> None:
            if on_answer is not None:
                on_answer(fitting[row], answer)

        found = answer_batches(self.name, prompts, split_by_length(prompts, self._batch_size), self._answer, tell)
        for at, answer in zip(fitting, found, strict=True):
            answers[at] = answer
        return answers

    def _answer(self, prompts: Sequence[list[int]]) -> list[Prediction]:
        """Return the predictions for the prompts of one batch.

        Raises:
            EngineError: when the memory does not suffice.
        """
        import torch

        start = time.monotonic()
        try:
            if self._scorer is None:
                replies = self._generate(prompts)
                latency_s = time.monotonic() - start
                return [make_prediction(self._task, reply, latency_s) for reply in replies]
            scores = self._scorer.score(prompts)
            latency_s = time.monotonic() - start
            return [read_scores(self._tree, score, self._task, self.mode, latency_s) for score in scores]
        except torch.cuda.OutOfMemoryError as error:
            raise EngineError(
                f"The GPU's memory does not suffice for {len(prompts)} reviews of up to "
                f"{max(map(len, prompts))} tokens",
                where=self.name,
                next_step="choose the engine vllm, or a smaller --batch_size where the command has it",
            ) from error

    def count_flop(self, reviews: Sequence[Review]) -> float:
        """Return the floating-point operations that scoring the reviews needs at least: only unshared tokens count."""
        prompts = [[*self._encode(review), *self._tree.lead] for review in reviews]
        n_shared = count_common(prompts) if len(prompts) > 1 else 0
        return sum(count_forward_flop(self._model, n_shared, len(prompt) - n_shared) for prompt in prompts)

    def close(self) -> None:
        """Free the model's memory; may be called twice."""
        import gc

        import torch

        self._model = self._scorer = None
        gc.collect()
        if self._device.startswith("cuda"):
            torch.cuda.empty_cache()

    def _encode(self, review: Review) -> list[int]:
        """Return the token ids of the prompt, the model's own turn markers included."""
        messages = self._task.render_messages(review.text)
        text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _generate(self, prompts: Sequence[list[int]]) -> list[str]:
        import torch

        longest = max(len(prompt) for prompt in prompts)
        padding = self._settings.pad_token_id
        # Padding stands on the left, so that every reply begins in the same column.
        ids = [[padding] * (longest - len(prompt)) + prompt for prompt in prompts]
        mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        with torch.inference_mode():
            output = self._model.generate(
                input_ids=torch.tensor(ids, device=self._device),  # (B, T)
                attention_mask=torch.tensor(mask, device=self._device),  # (B, T)
                generation_config=self._settings,
            )
        replies = output[:, longest:].tolist()  # (B, up to max_new_tokens)
        return [str(reply) for reply in self._tokenizer.batch_decode(replies, skip_special_tokens=True)]


def load_model(model_path: str, device: str, dtype: str) -> tuple[Any, Any]:
    """Return the tokenizer and the model, ready to answer.

    Raises:
        EngineError: when one of them cannot be loaded, or the tokenizer has no chat template.
    """
    import torch
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model_path, trust_remote_code=False)
        model = load_network(model_path, dtype).to(device).eval()
    except list_load_errors() as error:
        is_memory = isinstance(error, torch.cuda.OutOfMemoryError)
        raise EngineError(
            f"The model cannot be loaded ({describe_load_error(error)})",
            where=model_path,
            expected="the folder of a whole checkpoint with its tokenizer, or a hub id",
            next_step="take a smaller model or dtype" if is_memory else "make the checkpoint again",
        ) from error
    if not getattr(tokenizer, "chat_template", None):
        raise EngineError(
            "The tokenizer has no chat template",
            where=model_path,
            expected="chat_template.jinja or a template in tokenizer_config.json",
            next_step="take an instruction-tuned model, or put the template of the training run beside the model",
        )
    return tokenizer, model


def count_forward_flop(model: Any, n_before: int, n_tokens: int) -> float:
    """Return the floating-point operations of a forward pass over tokens, of which the last one meets the vocabulary.

    A multiplication and an addition for each weight of a linear layer and token, and two products of attention, each
    token with those before it (2 x 2 x heads x size a pair; sliding windows are not taken off).
    """
    from torch import nn

    head = model.get_output_embeddings()
    linear = sum(
        layer.weight.numel() for layer in model.modules() if isinstance(layer, nn.Linear) and layer is not head
    )
    config = model.config
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    pairs = n_tokens * n_before + n_tokens * (n_tokens + 1) / 2
    attention = 4 * config.num_hidden_layers * config.num_attention_heads * size * pairs
    return float(2 * linear * n_tokens + attention + 2 * head.weight.numel())


def build_generation_config(model: Any, tokenizer: Any, max_new_tokens: int) -> Any:
    """Return settings for greedy decoding: of the model's own, only its special tokens are kept.

    A repetition penalty among a model's defaults would change what greedy decoding says.
    """
    from transformers import GenerationConfig

    own = model.generation_config
    ends = own.eos_token_id if own.eos_token_id is not None else tokenizer.eos_token_id
    padding = own.pad_token_id if own.pad_token_id is not None else tokenizer.pad_token_id
    if padding is None:
        padding = ends[0] if isinstance(ends, list) else ends
    config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        bos_token_id=own.bos_token_id,
        eos_token_id=ends,
        pad_token_id=padding if padding is not None else 0,
    )
    # generate() fills what is not set from the model's own settings: leave nothing there to fill from.
    model.generation_config = config
    return config


def split_by_length(prompts: Sequence[Sequence[int]], batch_size: int) -> Iterator[list[int]]:
    """Yield positions in batches of like length, the longest first (memory that does not suffice shows at once).

    Example:
        >>> list(split_by_length([[1], [1, 2, 3], [1, 2]], batch_size=2))
        [[1, 2], [0]]
    """
    order = sorted(range(len(prompts)), key=lambda position: (-len(prompts[position]), position))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
