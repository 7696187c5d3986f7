"""Runs `sentifactory label`: checks its options, chooses the engine, labels the file."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sentifactory.errors import ConfigError
from sentifactory.serving.answer_format import build_formatter
from sentifactory.serving.backends.model_loading import ModelChoice, open_engine
from sentifactory.serving.labelling.label_file import EngineRowPredictor, LabelOptions, RowPredictor, label_file
from sentifactory.serving.labelling.resumable_output import name_bad_file, name_journal
from sentifactory.system.atomic import refuse_overwriting_inputs
from sentifactory.system.extras import require_packages

RAY = "ray"


@dataclass(frozen=True, slots=True)
class LabelRequest:
    """The options of `sentifactory label`.

    Attributes:
        source: the file to label.
        out: the file of labelled rows.
        model: folder, hub id, name at an address, or (for tfidf) a file of labelled reviews.
        engine: name of an engine, "ray", or None.
        vllm_urls: addresses of vLLM servers; more than one only with ray.
        replicas: number of engines that ray runs; None: one, or one per address.
        replica_engine: the engine of each of ray's replicas.
        task: name or YAML file of the task; None: the one that the model was trained on.
        name: of the model in the output.
        threshold: below this probability no label is given.
        text_column: column of the reviews.
        encoding: of a text file.
        overwrite: replace a finished output.
        is_excel_safe: prefix cells with an apostrophe that a spreadsheet would take for formulas.
        adapt_prior: adapt the answers to the labels' shares among the rows.
        vllm_log: file for vLLM's output.
        vllm_dtype: number format of vLLM's computation.
    """

    source: str
    out: str
    model: str
    engine: str | None = None
    vllm_urls: tuple[str, ...] = ()
    replicas: int | None = None
    replica_engine: str | None = None
    task: str | None = None
    name: str | None = None
    threshold: str | None = None
    text_column: str | None = None
    encoding: str | None = None
    overwrite: bool = False
    is_excel_safe: bool = False
    adapt_prior: bool = False
    vllm_log: str | None = None
    vllm_dtype: str | None = None

    @property
    def choice(self) -> ModelChoice:
        """The model and its engine, unchecked."""
        kind = self.replica_engine if self.engine == RAY else self.engine
        address = self.vllm_urls[0] if self.vllm_urls else None
        return ModelChoice(self.model, kind, address, self.vllm_log, self.vllm_dtype)

    def choose_model(self) -> ModelChoice:
        """Return the model and its engine, checked.

        Raises:
            ConfigError: when options contradict each other, or there is no such engine, model or package.
        """
        is_ray = self.engine == RAY
        if is_ray:
            require_packages("ray")
        if not is_ray and (self.replicas is not None or self.replica_engine is not None or len(self.vllm_urls) > 1):
            raise ConfigError(
                "Only ray runs replicas",
                where="--replicas, --replica_engine or --vllm_url",
                next_step="add --engine ray",
            )
        if self.replicas is not None and self.replicas < 1:
            raise ConfigError(f"--replicas is {self.replicas}", expected="1 or more")
        self.choice.check()
        return self.choice


def run_labelling(request: LabelRequest) -> dict[str, Any]:
    """Label a file and return its counts; raises the errors of `label_file`."""
    choice = request.choose_model()
    chosen = choice.find_task(request.task, [request.source]).announce()
    task = chosen.task
    formatter = build_formatter(request.model, task, request.threshold, request.name)
    out = Path(request.out)
    outputs = [out, name_bad_file(out), name_journal(out)]
    refuse_overwriting_inputs(outputs, [request.source, request.model, request.task], "OUT")
    refuse_overwriting_inputs(
        [request.vllm_log], [request.source, request.model, request.task, *outputs], "--vllm_log"
    )
    options = LabelOptions(
        Path(request.source),
        out,
        request.text_column,
        request.encoding,
        request.overwrite,
        request.is_excel_safe,
        request.adapt_prior,
    )
    with ExitStack() as stack:

        def open_predictor() -> RowPredictor:
            if request.engine != RAY:
                return EngineRowPredictor(
                    stack.enter_context(open_engine(choice, task, formatter.model)), request.source
                )
            from sentifactory.serving.labelling.ray_labelling import RayRowPredictor, Replicas

            n_replicas = request.replicas or max(1, len(request.vllm_urls))
            # Chosen here: a machine of a cluster might choose another engine.
            own = choice if request.vllm_urls else replace(choice, kind=choice.engine_kind)
            return RayRowPredictor(Replicas(own, task, formatter.model, n_replicas, request.vllm_urls), out)

        # The engine gives uncalibrated probabilities; the formatter calibrates them.
        identity = choice.identify(task) | {"calibration": formatter.describe_calibration()}
        return {**label_file(options, formatter, identity, open_predictor), "task": chosen.to_json()}
