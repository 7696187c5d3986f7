"""The facts about a model as people read them: what it answers, from what it was trained, how long, how large."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sentifactory.bilingual import Sentence, name_label
from sentifactory.corpus.leakage.leak_guard import CLEAN, LEAKS
from sentifactory.errors import ConfigError
from sentifactory.models.classifiers import is_classifier
from sentifactory.models.weights import list_weights
from sentifactory.publishing.hub.evidence import read_manifests
from sentifactory.redaction import redact_paths
from sentifactory.system.formats import format_bytes, name_duration
from sentifactory.system.json_text import read_json_object
from sentifactory.task.model_folder import read_model_task
from sentifactory.task.task import Task
from sentifactory.ui.compatibility import read_head
from sentifactory.ui.model_reports import ModelReport
from sentifactory.ui.training_summary import Score, find_best, find_scores

_METHODS = {
    "full": Sentence("all layers were trained", "训练全部层"),
    "freeze": Sentence("the last layers were trained, the others frozen", "只训练最后几层，其余冻结"),
    "lora": Sentence("LoRA adapters were trained", "训练 LoRA 适配器"),
    "last_layers": Sentence("the last layers and the classifier were trained", "训练最后几层与分类头"),
    "head": Sentence("only the classifier was trained, on frozen layers", "冻结模型，只训练分类头"),
}
_DEVICES = {"cpu": Sentence("on the CPU", "CPU"), "cuda": Sentence("on a GPU", "GPU")}


@dataclass(frozen=True, slots=True)
class Fact:
    """A line of a model's card."""

    title: Sentence
    value: Sentence


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A model as its card shows it.

    Attributes:
        labels: what it can answer; () where its folder does not say.
        summary: what kind of model it is, as a sentence.
        facts: further lines.
        reports: comparisons in which it was tested, the newest first; None while they are searched.
        validation: its best score in training; None where it had no validation reviews.
        took: time of its training; None where it is unknown.
        size: of its weights on disk.
        prompt: the question that a language model is asked; "" for others.
        run: its run card; None where it was not trained here.
    """

    labels: Sequence[str]
    summary: Sentence
    facts: Sequence[Fact]
    reports: Sequence[ModelReport] | None
    validation: Score | None
    took: Sentence | None
    size: str
    prompt: str
    run: Mapping[str, Any] | None


def describe_model(folder: Path, run: Mapping[str, Any] | None, reports: Sequence[ModelReport] | None) -> ModelCard:
    """Return the card of a model.

    Args:
        folder: of the model.
        run: its run card, if it has one.
        reports: comparisons in which it was tested; None while they are searched.
    """
    task = _read_task(folder)
    labels = task.labels if task is not None else tuple(read_head(folder))
    is_encoder = is_classifier(str(folder)) or (run or {}).get("recipe", {}).get("stage") == "encoder"
    facts = [] if run is None else [*_describe_data(run), *_describe_training(run), *_describe_leaks(run)]
    wall_time_s = (run or {}).get("wall_time_s")
    return ModelCard(
        labels=labels,
        summary=_summarise(folder, run, labels, is_encoder=is_encoder),
        facts=facts,
        reports=reports,
        validation=find_best(find_scores(run)) if run is not None else None,
        took=None if wall_time_s is None else name_duration(float(wall_time_s)),
        size=format_bytes(sum(file.stat().st_size for file in list_weights(folder) if file.is_file())),
        prompt="" if task is None or is_encoder else task.prompt_template,
        run=run,
    )


def _read_task(folder: Path) -> Task | None:
    try:
        return read_model_task(folder)
    except ConfigError:  # what cannot be read is not shown; whoever uses the model is told
        return None


def _summarise(folder: Path, run: Mapping[str, Any] | None, labels: Sequence[str], *, is_encoder: bool) -> Sentence:
    kind = Sentence("Classifier", "分类器") if is_encoder else Sentence("Language model", "语言模型")
    if run is None:
        layers = (read_json_object(folder / "config.json") or {}).get("num_hidden_layers")
        of_layers = Sentence(f" of {layers} layers", f"，{layers} 层") if isinstance(layers, int) else Sentence("", "")
        untuned = Sentence("", "")
        if not labels:
            untuned = Sentence(
                " It is pretrained and has no task of its own: train it, or compare with it.",
                "预训练模型，本身没有任务：可用于训练或作对比。",
            )
        return Sentence.write(f"{kind.en}{of_layers.en}.{untuned.en}", f"{kind.zh}{of_layers.zh}。{untuned.zh}")
    recipe = run.get("recipe") or {}
    base = Path(str(recipe.get("model_name_or_path") or "?")).name
    method = _METHODS.get(str(recipe.get("finetuning_type", "full")), Sentence("it was tuned", "微调"))
    return Sentence.write(f"{kind.en}, tuned from {base}: {method.en}.", f"{kind.zh}，由{base}微调：{method.zh}。")


def _describe_data(run: Mapping[str, Any]) -> list[Fact]:
    """Return which reviews the model was trained on: source, number and labels."""
    manifests, facts = read_manifests({"data": run.get("data") or ()}), []
    limit = (run.get("recipe") or {}).get("max_samples")
    for item in run.get("data") or ():
        file = Path(str(item.get("file", "")))
        part = (manifests.get(str(file.parent)) or {}).get("parts", {}).get(file.name.partition(".")[0])
        if not isinstance(part, dict) or file.stem != "train":
            continue
        used = min(int(limit), part["rows"]) if isinstance(limit, int) else part["rows"]
        of_all = "" if used == part["rows"] else f" / {part['rows']:,}"
        named = {name_label(label): n for label, n in part["labels"].items()}
        en = ", ".join(f"{n:,} {label[0]}" for label, n in named.items())
        zh = "，".join(f"{label[1]} {n:,}" for label, n in named.items())
        value = Sentence.write(
            f"{used:,}{of_all} of {file.parent.name} ({en})", f"{file.parent.name}，{used:,}{of_all} 条（{zh}）"
        )
        facts.append(Fact(Sentence("Training reviews", "训练评论"), value))
    if not facts and (dataset := (run.get("recipe") or {}).get("dataset")):
        shown = redact_paths(str(dataset))
        facts.append(Fact(Sentence("Training reviews", "训练评论"), Sentence(shown, shown)))
    return facts


def _describe_training(run: Mapping[str, Any]) -> list[Fact]:
    facts = []
    done, total = int(run.get("steps") or 0), int(run.get("max_steps") or 0)
    device = _DEVICES.get(str(run.get("device") or "").partition(":")[0], Sentence("", ""))
    if total:
        finished = _show_date(run.get("finished_at"))
        en = f"{done:,} of {total:,} steps {device.en}".rstrip() + (f", finished {finished}" if finished else "")
        zh = f"{done:,} / {total:,} 步" + (f"（{device.zh}）" if device.zh else "")
        zh += f"，{finished}完成" if finished else ""
        facts.append(Fact(Sentence("Training", "训练"), Sentence.write(en, zh)))
    parameters = run.get("parameters") or {}
    if parameters.get("total"):
        (en, zh), (trained_en, trained_zh) = (name_count(int(parameters[key])) for key in ("total", "trainable"))
        value = Sentence.write(f"{en}, of which {trained_en} were trained", f"{zh}，其中训练{trained_zh}")
        facts.append(Fact(Sentence("Weights", "参数量"), value))
    if peak := (run.get("memory") or {}).get("peak_rss_bytes"):
        facts.append(
            Fact(Sentence("Memory in training", "训练内存"), Sentence(format_bytes(peak), format_bytes(peak)))
        )
    return facts


def _describe_leaks(run: Mapping[str, Any]) -> list[Fact]:
    words = {
        CLEAN: Sentence("No test review was among the training reviews.", "测试评论未出现在训练数据中。"),
        LEAKS: Sentence(
            "Test reviews were among the training reviews: its scores are too high.",
            "测试评论出现在训练数据中，评测分数偏高。",
        ),
    }.get(str((run.get("leak_check") or {}).get("status")))
    words = words or Sentence("It was not checked for test reviews.", "未检查训练数据中是否含有测试评论。")
    return [Fact(Sentence("Leak check", "泄漏检查"), words)]


def _show_date(moment: Any) -> str:
    """Return the date and time of an ISO 8601 moment, to the minute and in UTC; "" for anything else."""
    try:
        return datetime.fromisoformat(str(moment)).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return ""


def name_count(n: int) -> tuple[str, str]:
    """Return a large number in English and in Chinese.

    Example:
        >>> name_count(234_656_384), name_count(22_294_528), name_count(1_543_714_304)[0]
        (('235 million', '2.35 亿'), ('22 million', '2229 万'), '1.54 billion')
    """
    en = f"{n / 1e9:.2f} billion" if n >= 1e9 else f"{n / 1e6:.0f} million" if n >= 1e7 else f"{n:,}"
    zh = f"{n / 1e8:.2f} 亿" if n >= 1e8 else f"{n / 1e4:.0f} 万" if n >= 1e6 else f"{n:,}"
    return en, zh
