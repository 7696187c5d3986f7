"""The options of `data prepare`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sentifactory.corpus.dataset.dataset_files import SHAREGPT
from sentifactory.corpus.reading.read_result import ReadOptions
from sentifactory.corpus.splitting.balance import DOWN
from sentifactory.corpus.splitting.order import check_batch_size
from sentifactory.corpus.splitting.splits import SplitPlan
from sentifactory.errors import ConfigError
from sentifactory.records import STRATIFIED

ON_CONFLICT = ("drop", "majority")
ON_LEAK = ("refuse", "drop", "keep")
TOO_LONG = ("reject", "cut")


@dataclass(frozen=True, slots=True)
class PipelineOptions:
    """How reviews are cleaned, split, balanced and checked. None: the default of the source.

    Attributes:
        seed: of the split.
        val_size: share below 1, count, or 0 for no such part.
        test_size: likewise.
        eval_classes: `balanced` or `stratified` val and test.
        max_train: most training reviews in all.
        balance: of the training part: `down`, `up`, `none` or `weights`.
        folds: number of folds for cross-validation; 0: one split.
        holdout_domains: domains to test on; the others are trained on.
        on_leak: `refuse`, `drop` or `keep`, where official splits share texts.
        on_conflict: `drop` or `majority`, for texts with two labels.
        max_tokens: most tokens of prompt and answer, None for no limit.
        tokenizer: folder of the model whose tokens are counted.
        too_long: `reject` or `cut`.
        batch_size: order the training part for batches of this size; 0: in random order.
    """

    seed: int = 42
    val_size: float | None = None
    test_size: float | None = None
    eval_classes: str | None = None
    max_train: int | None = None
    balance: str | None = None
    folds: int = 0
    holdout_domains: tuple[str, ...] = ()
    on_leak: str = "refuse"
    on_conflict: str = "drop"
    max_tokens: int | None = None
    tokenizer: str | None = None
    too_long: str = "reject"
    batch_size: int = 0

    def check(self, n_labels: int) -> None:
        """Raise a ConfigError for the first invalid option, before anything is read."""
        self.make_plan().check(n_labels)
        check_batch_size(self.batch_size)
        for option, choices in (("on_leak", ON_LEAK), ("on_conflict", ON_CONFLICT), ("too_long", TOO_LONG)):
            choice = getattr(self, option)
            if choice not in choices:
                raise ConfigError(
                    f"The choice is {choice!r}", where=f"--{option}", expected=", ".join(choices), code="option-value"
                )
        if self.folds == 1 or self.folds < 0:
            raise ConfigError(
                f"The number is {self.folds}",
                where="--folds",
                expected="at least 2, or 0 for one split",
                code="option-value",
            )
        if self.folds and (self.val_size is not None or self.holdout_domains):
            raise ConfigError(
                "Each fold is the val part of a split of its own",
                where="--folds",
                next_step="leave out --val_size and --holdout_domain",
                code="option-value",
            )
        if (self.max_tokens is None) != (self.tokenizer is None):
            raise ConfigError(
                "Tokens can be counted with a limit and a tokenizer only",
                where="--max_tokens",
                next_step="give both --max_tokens and --tokenizer, or neither",
                code="option-value",
            )

    def make_plan(self) -> SplitPlan:
        """Return the plan of the split."""
        return SplitPlan(
            val_size=0 if self.val_size is None else self.val_size,
            test_size=0 if self.test_size is None else self.test_size,
            eval_classes=STRATIFIED if self.eval_classes is None else self.eval_classes,
            max_train=self.max_train,
            seed=self.seed,
            balance=self.balance or DOWN,
        )

    def name_parts(self) -> list[str]:
        """Return the names of the parts that will be made."""
        if self.folds:
            return [f"fold_{fold}/{part}" for fold in range(self.folds) for part in ("train", "val")]
        return ["train", "val", "test"]

    def describe(self, *, has_official_splits: bool) -> dict[str, Any]:
        """Return the options for the manifest."""
        plan = self.make_plan()
        return {
            "seed": plan.seed,
            "val_size": _as_number(plan.val_size),
            "test_size": _as_number(plan.test_size),
            "eval_classes": plan.eval_classes,
            "max_train": plan.max_train,
            "balance": plan.balance,
            "folds": self.folds,
            "holdout_domains": list(self.holdout_domains),
            "has_official_splits": has_official_splits,
            "on_leak": self.on_leak,
            "on_conflict": self.on_conflict,
            "max_tokens": self.max_tokens,
            "tokenizer": self.tokenizer,
            "too_long": self.too_long,
            "batch_size": self.batch_size,
        }


def _as_number(size: float) -> float | int:
    return size if size < 1 else int(size)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareOptions:
    """All that the user chooses. None: the default of the source.

    Attributes:
        name: name of the data set; the source's own by default.
        output_dir: the folder that holds `dataset_info.json` (LLaMA-Factory's `dataset_dir`).
        task_name: name or YAML file of the task that renders the training data; None: that of the manifest next to the
            source, or binary sentiment.
        formatting: form of the JSONL: `sharegpt` or `alpaca`.
        read: columns, labels and encoding of the files.
        pipeline: how reviews are cleaned, split, balanced and checked.
    """

    name: str | None = None
    output_dir: str | Path = "data"
    task_name: str | None = None
    formatting: str = SHAREGPT
    read: ReadOptions = field(default_factory=ReadOptions)
    pipeline: PipelineOptions = field(default_factory=PipelineOptions)
