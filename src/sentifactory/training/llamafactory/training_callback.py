"""The callback of a LLaMA-Factory run: freezes, accelerates and estimates, besides progress and run card."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from sentifactory.errors import ConfigError
from sentifactory.system.progress import say
from sentifactory.training.acceleration.accelerations import Accelerations
from sentifactory.training.acceleration.answer_logits import find_causal_model
from sentifactory.training.estimate.estimate import (
    compare_with_run,
    estimate_run,
    find_estimate_obstacle,
    summarise_estimate,
)
from sentifactory.training.llamafactory.freezing import correct_trainable
from sentifactory.training.run.collectives import sum_over_ranks
from sentifactory.training.run.progress_callback import ProgressCallback


class TrainingCallback(ProgressCallback):
    """Freezes and accelerates a LLaMA-Factory run, and follows its progress.

    Args:
        settings: the settings passed to LLaMA-Factory.
        card: the run card, updated during the run.
        stack: receives the progress display; the caller closes it when the run ends or fails.
        is_accelerated: False leaves LLaMA-Factory unchanged, including its freezing.
        cache_bytes: disk space for all caches of frozen layers.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        card: dict[str, Any],
        stack: ExitStack,
        *,
        is_accelerated: bool,
        cache_bytes: int,
    ) -> None:
        super().__init__(card, stack)
        self.accelerations = Accelerations(settings, card, cache_bytes, is_wanted=is_accelerated)
        self._settings = settings
        self._is_accelerated = is_accelerated
        self._total_use: list[int] | None = None  # over all processes, from the end of the training on

    def on_init_end(self, args: Any, state: Any, control: Any, *, model: Any, **kwargs: Any) -> None:
        """Freeze and accelerate the model before the optimizer is created."""
        if self._is_accelerated and (line := correct_trainable(model, self._settings)):
            say(f"{line}.")
        self.accelerations.install_answer_logits(model, args)
        super().on_init_end(args, state, control, model=model, **kwargs)

    def on_train_begin(self, args: Any, state: Any, control: Any, *, model: Any, **kwargs: Any) -> None:
        """Install the accelerations that depend on the data, and estimate the run.

        Raises:
            ConfigError: when the weights have types that cannot be computed together.
        """
        self.has_begun = True
        _refuse_mixed_types(args, model, self._settings)
        dataset = getattr(kwargs["train_dataloader"], "dataset", None)
        self.accelerations.install_fast_decoder(model, args, dataset)
        if state.is_world_process_zero:
            self._estimate(args, model, dataset)
        super().on_train_begin(args, state, control, model=model, **kwargs)

    def _estimate(self, args: Any, model: Any, dataset: Any) -> None:
        """Estimate time and memory; the run continues without an estimate where that fails."""
        if args.world_size > 1 or find_estimate_obstacle(model, dataset):
            return
        try:
            estimate = estimate_run(model, dataset, None, self._settings, args, self.accelerations.plan)
        except Exception as error:  # an estimate must never stop a run (too little GPU memory to measure, for example)
            say(f"No estimate: {error}")
            return
        self._card["estimate"] = {**estimate.to_json(), "compared": None}
        say(summarise_estimate(estimate))

    def name_model_class(self, model: Any) -> str:
        """Return the class of the language model inside any wrapper."""
        return type(find_causal_model(model)).__name__

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Sum the use of the accelerations over all processes, and close the display."""
        self._total_use = sum_over_ranks(self.accelerations.count_use(), args.device)
        super().on_train_end(args, state, control, **kwargs)

    def _fill_card(self, args: Any, state: Any) -> None:
        super()._fill_card(args, state)
        self.accelerations.record_use(self._total_use or self.accelerations.count_use())
        if self._card.get("estimate"):
            self._card["estimate"]["compared"] = compare_with_run(self._card["estimate"], self._card)


def _refuse_mixed_types(args: Any, model: Any, settings: Mapping[str, Any]) -> None:
    # LLaMA-Factory trains the free layers in float32; without autocast the frozen ones must be float32 as well.
    if args.bf16 or args.fp16 or settings.get("finetuning_type") != "freeze":
        return
    types = {(one.requires_grad, str(one.dtype).removeprefix("torch.")) for one in model.parameters()}
    half = [name for is_trained, name in sorted(types) if not is_trained and name in ("bfloat16", "float16")]
    if half and (True, "float32") in types:  # with pure_bf16 the trained ones are bfloat16 as well
        raise ConfigError(
            f"The frozen layers have {half[0]} weights, the trained ones float32, and neither bf16 nor fp16 is on",
            where=str(settings["model_name_or_path"]),
            expected="bf16=true, or a checkpoint in float32",
            next_step="set bf16=true; a CPU without instructions for it is faster with the float32 checkpoint that "
            "`sentifactory export dtype MODEL --dtype float32` writes",
            code="option-value",
        )
