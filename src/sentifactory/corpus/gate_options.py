"""What the user chooses about cleaning, parting, balancing and checking reviews."""

from __future__ import annotations

from dataclasses import dataclass

from sentifactory.corpus.balance import DOWN
from sentifactory.corpus.batch_order import check_batch_size
from sentifactory.corpus.splitting import STRATIFIED, SplitPlan
from sentifactory.errors import ConfigError

ON_CONFLICT = ("drop", "majority")
ON_LEAK = ("refuse", "drop", "keep")
TOO_LONG = ("reject", "cut")


@dataclass(frozen=True, slots=True)
class GateOptions:
    """How reviews are cleaned, parted, balanced and checked. None: what is usual for the source.

    Attributes:
        seed: another seed gives another split.
        val_size: share below 1, count, or 0 for no such part.
        test_size: the same.
        eval_classes: `balanced` or `stratified` val and test.
        max_train: most training reviews in all.
        balance: of the training part: `down`, `up`, `none` or `weights`; None: `down`, and `none` for official splits.
        folds: number of folds for cross-validation; 0: one split.
        holdout_domains: domains that are the test part.
        on_leak: `refuse`, `drop` or `keep`, where official splits share texts.
        on_conflict: `drop` or `majority`, for texts under two labels.
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
        """Raise a ConfigError for the first option that cannot be right, before anything is read."""
        self.make_plan().check(n_labels)
        check_batch_size(self.batch_size)
        for option, choices in (("on_leak", ON_LEAK), ("on_conflict", ON_CONFLICT), ("too_long", TOO_LONG)):
            choice = getattr(self, option)
            if choice not in choices:
                raise ConfigError(f"The choice is {choice!r}", where=f"--{option}", expected=", ".join(choices))
        if self.folds == 1 or self.folds < 0:
            raise ConfigError(
                f"The number is {self.folds}", where="--folds", expected="at least 2, or 0 for one split"
            )
        if self.folds and (self.val_size is not None or self.holdout_domains):
            raise ConfigError(
                "Each fold is the val part of a split of its own",
                where="--folds",
                next_step="leave out --val_size and --holdout_domain",
            )
        if (self.max_tokens is None) != (self.tokenizer is None):
            raise ConfigError(
                "Tokens can be counted with a limit and a tokenizer only",
                where="--max_tokens",
                next_step="give both --max_tokens and --tokenizer, or neither",
            )

    def make_plan(self, val_size: float = 0, test_size: float = 0, eval_classes: str = STRATIFIED) -> SplitPlan:
        """Return the plan of the split, with what is usual for the source where nothing was chosen."""
        return SplitPlan(
            val_size=val_size if self.val_size is None else self.val_size,
            test_size=test_size if self.test_size is None else self.test_size,
            eval_classes=eval_classes if self.eval_classes is None else self.eval_classes,
            max_train=self.max_train,
            seed=self.seed,
            balance=self.balance or DOWN,
        )

    def name_parts(self) -> list[str]:
        """Return the names of the parts that will be made."""
        if self.folds:
            return [f"fold_{fold}/{part}" for fold in range(self.folds) for part in ("train", "val")]
        return ["train", "val", "test"]
