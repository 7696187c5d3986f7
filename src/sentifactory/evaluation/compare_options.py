"""The options of a comparison, and what is refused before anything is read or started."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sentifactory.engines.base import MAX_NEW_TOKENS, Mode
from sentifactory.engines.local.stack_folder import is_stack
from sentifactory.engines.registry import check_engine, check_mode, choose_kind, split_by_prompt
from sentifactory.errors import ConfigError
from sentifactory.evaluation.report.report import check_report_place
from sentifactory.metrics.calibration_fit import check_target_accuracy
from sentifactory.redaction import mask_text

SIDES = ("base", "tuned")
_ASKED_FOR = ("train_samples", "shots", "written_samples", "adapt_prior")


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """The options of a comparison, as the command takes them.

    Attributes:
        csv_path: test reviews; the verdict is about these.
        more_csv_paths: further files of test reviews, each reported with its difference from the first.
        val_path: validation reviews; calibrations are fitted on them and saved with the models.
        target_accuracy: the accuracy that answers above the threshold of a calibration must reach.
        base_model: folder, hub id, or name at an address.
        finetuned_model: likewise.
        output_file: where report.json goes; the page is written next to it.
        max_samples: most reviews to ask; None for all of the file.
        engine: `vllm`, `transformers`, `encoder`, `auto` (for each side the one of these two that fits its model), or
            an OpenAI-compatible address that serves both models.
        base_url: address of the base model alone; wins over `engine`.
        tuned_url: address of the tuned model alone; wins over `engine`.
        mode: `generate`, `constrain` or `score`.
        task: name or YAML file of the task; None: the task of the models.
        train_csv: training reviews: TF-IDF is trained on them, and test reviews among them are refused.
        train_files: further training files, in addition to those of the tuned model's run card.
        train_samples: only the first so many rows of `train_csv` are used (LLaMA-Factory's `max_samples`); a second
            TF-IDF, the row `tfidf_all`, is then trained on all of them.
        max_new_tokens: longest reply, in tokens.
        seed: of the sample, of TF-IDF and of the bootstrap.
        allow_leaks: compare although training has seen test reviews; the report then begins with a warning.
        shots: with so many training reviews of each label as examples in its prompt, the base model is asked a second
            time (the row `few_shot`); 0: it is not.
        written_samples: to so many reviews of the first test file the tuned model also writes an answer.
        adapt_prior: also adapt every model's answers to the labels' shares among the test reviews.
    """

    csv_path: str
    base_model: str
    finetuned_model: str
    output_file: str
    more_csv_paths: tuple[str, ...] = ()
    val_path: str | None = None
    target_accuracy: float = 0.95
    max_samples: int | None = None
    engine: str = "vllm"
    base_url: str | None = None
    tuned_url: str | None = None
    mode: Mode = "generate"
    task: str | None = None
    train_csv: str | None = None
    train_files: tuple[str, ...] = ()
    train_samples: int | None = None
    max_new_tokens: int = MAX_NEW_TOKENS
    seed: int = 42
    allow_leaks: bool = False
    shots: int = 0
    written_samples: int | None = None
    adapt_prior: bool = False

    def model_of(self, side: str) -> str:
        """Return the folder or name of `base` or `tuned`."""
        return self.base_model if side == "base" else self.finetuned_model

    def engine_of(self, side: str) -> str:
        """Return the engine of `base` or `tuned`: a local kind, or an address."""
        address = self.base_url if side == "base" else self.tuned_url
        return address or choose_kind(self.engine, self.model_of(side))


def check_options(options: CompareOptions) -> None:
    """Refuse options that cannot work, before anything is read or started.

    Raises:
        ConfigError: for the first option that cannot be used.
    """
    for name in ("max_samples", "train_samples", "max_new_tokens", "written_samples"):
        check_count(name, getattr(options, name))
    if options.train_samples is not None and options.train_csv is None:
        raise ConfigError(
            "--train_samples needs --train_csv", next_step="give the training reviews as well", code="option-missing"
        )
    check_mode(options.mode)
    if options.adapt_prior:
        refuse_without_probabilities(options.mode)
    check_target_accuracy(options.target_accuracy)
    inputs = [options.csv_path, *options.more_csv_paths, options.val_path, options.train_csv, *options.train_files]
    check_report_place(options.output_file, [*inputs, options.base_model, options.finetuned_model, options.task])
    for side in SIDES:
        check_engine(options.engine_of(side), options.model_of(side))
        check_mode(options.mode, options.engine_of(side), options.model_of(side))
    _check_few_shot(options)
    _check_written(options)


def refuse_without_probabilities(mode: Mode) -> None:
    """Refuse `--adapt_prior` where models are asked for words.

    Raises:
        ConfigError: for every mode but score.
    """
    if mode != "score":
        raise ConfigError(
            f"--adapt_prior needs probabilities, which the mode {mode} does not give",
            where="--adapt_prior",
            expected="--mode score",
            next_step="add --mode score, or leave out --adapt_prior",
            code="prior-no-probabilities",
        )


def _check_few_shot(options: CompareOptions) -> None:
    """Refuse `--shots` without training reviews, or for a base model that takes no prompt.

    Raises:
        ConfigError: saying which.
    """
    if options.shots < 0:
        raise ConfigError(f"--shots is {options.shots}", expected="0 or more", code="option-value")
    if options.shots == 0:
        return
    if options.train_csv is None:
        raise ConfigError(
            "--shots needs --train_csv", next_step="give the training reviews as well", code="option-missing"
        )
    if is_stack(options.base_model) or split_by_prompt([(options.engine_of("base"), options.base_model)])[1]:
        raise ConfigError(
            "--shots is for language models, and the base model takes no prompt of ours",
            where=options.base_model,
            next_step="leave --shots out",
            code="option-value",
        )


def _check_written(options: CompareOptions) -> None:
    """Refuse `--written_samples` where the answers are written anyway, or the tuned model cannot write.

    Raises:
        ConfigError: saying which.
    """
    if options.written_samples is None:
        return
    if options.mode == "generate":
        raise ConfigError(
            "--written_samples is of no use with --mode generate: every answer is written",
            next_step="leave it out, or compare with --mode score",
            code="option-value",
        )
    check_mode("generate", options.engine_of("tuned"), options.finetuned_model)


def check_count(option: str, value: int | None) -> None:
    """Refuse a count below 1.

    Raises:
        ConfigError: naming the option.
    """
    if value is not None and value < 1:
        raise ConfigError(
            f"--{option} is {value}", expected="1 or more", next_step="correct the option", code="option-value"
        )


def describe_settings(options: CompareOptions) -> dict[str, Any]:
    """Return the options that decide the result, for the report."""
    return {
        "engines": {side: mask_text(options.engine_of(side)) for side in SIDES},
        "mode": options.mode,
        "decoding": "greedy",
        "max_new_tokens": options.max_new_tokens,
        "max_samples": options.max_samples,
        "seed": options.seed,
        "target_accuracy": options.target_accuracy,
        "scoring": "strict: an unparsed answer is wrong",
        # Only where it was asked for: reports of earlier versions do not say.
        **{name: value for name in _ASKED_FOR if (value := getattr(options, name))},
    }
