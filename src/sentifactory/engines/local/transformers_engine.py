"""Runs a language model in this process with transformers: slower than vLLM, but without a second environment.

Batches contain reviews of similar length, to save padding; predictions are in the order of the reviews. `score` and
`constrain` need one forward pass (`label_scorer.py`): the result of constrained greedy decoding follows from the
token probabilities in the answer tree.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sentifactory.engines.answer_tokens import AnswerTree, build_answer_tree, count_common, read_scores
from sentifactory.engines.base import (
    MAX_NEW_TOKENS,
    MAX_TOKENS,
    ClosingEngine,
    Mode,
    OnAnswer,
    answer_batches,
    make_prediction,
    split_by_length,
)
from sentifactory.engines.local.label_scorer import LabelScorer
from sentifactory.errors import EngineError
from sentifactory.models.causal_models import load_model
from sentifactory.records import Prediction, Review
from sentifactory.system.hardware import choose_torch_device, empty_device_cache, is_device_full
from sentifactory.system.progress import say, show_progress
from sentifactory.task.task import Task


class TransformersEngine(ClosingEngine):
    """A causal language model in this process.

    Args:
        model_path: checkpoint folder or hub id.
        task: prompt and answer.
        name: of the model in progress lines and reports.
        mode: `generate`, `constrain` or `score`.
        max_new_tokens: longest reply of `generate`, in tokens.
        batch_size: reviews per batch.
        device: "cuda", "cpu", ...; None: a GPU if available.

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
        self.name = name
        self.mode = mode
        self._task = task
        self._max_new_tokens = max_new_tokens
        self._batch_size = batch_size
        self._device = device or choose_torch_device()
        dtype = "float32" if self._device == "cpu" else "auto"  # half precision is slow on CPUs
        with show_progress(f"Loading {name} on {self._device}"):
            self._tokenizer, self._model = load_model(model_path, self._device, dtype)
        self._settings = build_generation_config(self._model, self._tokenizer, max_new_tokens)
        self._limit = min(getattr(self._model.config, "max_position_embeddings", None) or MAX_TOKENS, MAX_TOKENS)
        self._scorer: LabelScorer | None = None
        self._prepare_mode()

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return self._tokenizer

    @property
    def ends(self) -> list[int]:
        """The ids of the tokens that end a reply; [] where neither model nor tokenizer names one."""
        ends = self._settings.eos_token_id
        return list(ends) if isinstance(ends, list) else [] if ends is None else [ends]

    def switch_to(self, task: Task, *, mode: Mode, name: str) -> None:
        """Ask with another task or in another mode; the model stays loaded."""
        self._task, self.mode, self.name = task, mode, name
        self._prepare_mode()

    def _prepare_mode(self) -> None:
        if self._scorer is not None:
            self._scorer.close()
        self._scorer = self._build_scorer() if self.mode != "generate" else None
        self._n_reply_tokens = self._max_new_tokens
        if self._scorer is not None:
            self._n_reply_tokens = len(self._tree.lead) + max(map(len, self._tree.longest_paths))

    def _build_scorer(self) -> LabelScorer:
        self._tree = tokenize_answers(self._tokenizer, self._task)
        return LabelScorer(self._model, self._tree, self._encode(Review("")), self._settings.pad_token_id)

    def predict(self, reviews: Sequence[Review], on_answer: OnAnswer | None = None) -> list[Prediction]:
        """Return one prediction per review, in the order of the reviews.

        The latency of a review is that of its batch. A review longer than the model's context gets no answer, as with
        vLLM, because output beyond the trained positions is meaningless.

        Raises:
            EngineError: when memory runs out.
        """
        fitting, prompts = self._encode_fitting(reviews)
        answers = [Prediction(None)] * len(reviews)
        if on_answer is not None:
            for at in sorted({*range(len(reviews))} - {*fitting}):
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
            EngineError: when memory runs out.
        """
        start = time.monotonic()
        try:
            if self._scorer is None:
                replies = self._generate(prompts)
                latency_s = time.monotonic() - start
                return [make_prediction(self._task, reply, latency_s) for reply in replies]
            scores = self._scorer.score(prompts)
            latency_s = time.monotonic() - start
            return [read_scores(self._tree, score, self._task, self.mode, latency_s) for score in scores]
        except RuntimeError as error:
            if not is_device_full(error):
                raise
            raise EngineError(
                f"Not enough GPU memory for {len(prompts)} reviews of up to {max(map(len, prompts))} tokens",
                where=self.name,
                next_step="use a smaller --batch_size if the command has it, or the engine vllm",
                code="memory",
            ) from error

    def read_states(self, reviews: Sequence[Review]) -> tuple[list[int], Any]:
        """Return the hidden states after every layer, at the token that the labels part after; for the mode `score`.

        Returns:
            The positions of the n reviews that are not longer than the model takes, and their states as an array
            (layers, n, hidden size) of float32.

        Raises:
            EngineError: when the model's decoder is no plain list of layers.
        """
        import torch

        if self._scorer is None or not hasattr(getattr(self._model, self._model.base_model_prefix), "layers"):
            raise EngineError(
                f"The decoder of {type(self._model).__name__} is no list of layers",
                where=self.name,
                code="model-unsupported",
            )
        fitting, prompts = self._encode_fitting(reviews)
        if not prompts:
            return [], None
        self._scorer.share_prefix(prompts)
        order: list[int] = []
        states: list[Any] = []
        with show_progress(f"Reading hidden states of {self.name}", total=len(prompts), unit="reviews") as progress:
            for batch in split_by_length(prompts, self._batch_size):
                states.append(self._scorer.read_states([prompts[at] for at in batch]))  # (L, B, H)
                order += batch
                progress.advance(len(batch))
        places = torch.tensor(order).argsort()
        return fitting, torch.cat(states, dim=1)[:, places].numpy()

    def _encode_fitting(self, reviews: Sequence[Review]) -> tuple[list[int], list[list[int]]]:
        """Return the positions and token ids of the prompts that leave room for an answer, and say how many do not."""
        encoded = [self._encode(review) for review in reviews]
        fitting = [at for at, prompt in enumerate(encoded) if len(prompt) + self._n_reply_tokens <= self._limit]
        if n_left_out := len(encoded) - len(fitting):
            say(f"{n_left_out} of {len(encoded)} reviews are longer than {self.name} takes ({self._limit} tokens)")
        return fitting, [encoded[at] for at in fitting]

    def count_flop(self, reviews: Sequence[Review]) -> float:
        """Return the minimum floating-point operations for scoring the reviews, without the shared prefix."""
        prompts = [[*self._encode(review), *self._tree.lead] for review in reviews]
        n_shared = count_common(prompts) if len(prompts) > 1 else 0
        return sum(count_forward_flop(self._model, n_shared, len(prompt) - n_shared) for prompt in prompts)

    def close(self) -> None:
        """Free the model's memory; may be called twice."""
        import gc

        self._model = self._scorer = None
        gc.collect()
        empty_device_cache(self._device)

    def _encode(self, review: Review) -> list[int]:
        return tokenize_prompt(self._tokenizer, self._task.render_messages(review.text))

    def _generate(self, prompts: Sequence[list[int]]) -> list[str]:
        import torch

        longest = max(len(prompt) for prompt in prompts)
        padding = self._settings.pad_token_id
        # Pad on the left, so that every reply starts in the same column.
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


def tokenize_prompt(tokenizer: Any, messages: Sequence[dict[str, str]]) -> list[int]:
    """Return the token ids of a prompt, including the chat template's turn markers."""
    text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def tokenize_answers(tokenizer: Any, task: Task) -> AnswerTree:
    """Return the tree of the tokens of a task's answers; raises what `build_answer_tree` raises."""
    answers = [task.render_answer(label) for label in range(len(task.labels))]
    return build_answer_tree([tokenizer(answer, add_special_tokens=False)["input_ids"] for answer in answers])


def count_forward_flop(model: Any, n_before: int, n_tokens: int) -> float:
    """Return the floating-point operations of a forward pass with logits for the last token only.

    Two operations per weight of a linear layer and token, plus two attention products per pair of tokens
    (2 x 2 x heads x head size; sliding windows are ignored).
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
    """Return settings for greedy decoding that keep only the special tokens of the model's own settings.

    A repetition penalty in a model's defaults would change the result of greedy decoding.
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
    # generate() fills unset values from the model's own settings, so replace these as well.
    model.generation_config = config
    return config
