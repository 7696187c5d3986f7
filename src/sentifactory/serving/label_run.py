"""From the options of `sentifactory label` to a labelled file."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentifactory.atomic import refuse_endangered
from sentifactory.errors import ConfigError
from sentifactory.missing_package import require_packages
from sentifactory.serving.labelling import Answerer, EngineAnswerer, LabelOptions, label_file
from sentifactory.serving.loading import ModelChoice, open_engine
from sentifactory.serving.reporting import build_reporter
from sentifactory.serving.spool import name_bad_file, name_journal

RAY = "ray"


@dataclass(frozen=True, slots=True)
class LabelWish:
    """What the user asks for.

    Attributes:
        source: the file to label.
        out: where the labelled rows go.
        model: folder, hub id, name at an address, or (for tfidf) a file of labelled reviews.
        engine: name of an engine, "ray", or None.
        vllm_urls: addresses of vLLM servers; more than one only with ray.
        replicas: how many engines ray runs; None: one, or one an address.
        replica_engine: the engine of each of ray's replicas.
        task: name or YAML file of the task; None: what the model was taught.
        name: what the model is called.
        threshold: below this probability no label is given.
        text_column: column of the reviews.
        encoding: of a text file.
        overwrite: replace a finished output.
        is_excel_safe: begin cells with an apostrophe that a spreadsheet would take for formulas.
        vllm_log: file for vLLM's output.
        vllm_dtype: the numbers that vLLM computes with.
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
    vllm_log: str | None = None
    vllm_dtype: str | None = None

    def choose_model(self) -> ModelChoice:
        """Return the model and what runs it.

        Raises:
            ConfigError: when options exclude each other, or there is no such engine, model or package.
        """
        is_ray = self.engine == RAY
        if is_ray:
            require_packages("ray")
        if not is_ray and (self.replicas is not None or self.replica_engine is not None or len(self.vllm_urls) > 1):
            raise ConfigError(
                "Several replicas were asked for",
                where="--replicas, --replica_engine or --vllm_url",
                next_step="add --engine ray",
            )
        if self.replicas is not None and self.replicas < 1:
            raise ConfigError(f"--replicas is {self.replicas}", expected="1 or more")
        kind = self.replica_engine if is_ray else self.engine
        address = self.vllm_urls[0] if self.vllm_urls else None
        choice = ModelChoice(self.model, kind, address, self.vllm_log, self.vllm_dtype)
        choice.check()
        return choice


def run_labelling(wish: LabelWish) -> dict[str, Any]:
    """Label a file and return what was counted; raises what `label_file` raises."""
    choice = wish.choose_model()
    chosen = choice.find_task(wish.task, [wish.source]).announce()
    task = chosen.task
    reporter = build_reporter(wish.model, task, wish.threshold, wish.name)
    out = Path(wish.out)
    made = [out, name_bad_file(out), name_journal(out)]
    refuse_endangered(made, [wish.source, wish.model, wish.task], "OUT")
    refuse_endangered([wish.vllm_log], [wish.source, wish.model, wish.task, *made], "--vllm_log")
    options = LabelOptions(Path(wish.source), out, wish.text_column, wish.encoding, wish.overwrite, wish.is_excel_safe)
    with ExitStack() as stack:

        def open_answerer() -> Answerer:
            if wish.engine != RAY:
                return EngineAnswerer(stack.enter_context(open_engine(choice, task, reporter.model)), wish.source)
            from sentifactory.serving.ray_labelling import RayAnswerer, Replicas

            number = wish.replicas or max(1, len(wish.vllm_urls))
            replicas = Replicas(choice, task, reporter.model, number, wish.vllm_urls)
            return RayAnswerer(replicas, out)

        # The engine gives probabilities as they are, and the reporter corrects them.
        identity = choice.identify(task) | {"calibration": reporter.describe_calibration()}
        return {**label_file(options, reporter, identity, open_answerer), "task": chosen.to_json()}
