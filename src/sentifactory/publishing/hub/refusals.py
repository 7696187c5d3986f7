"""Finds all reasons not to publish a checkpoint, before anything is uploaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sentifactory.bilingual import Sentence, lower_first
from sentifactory.corpus.leakage.leak_guard import LEAKS
from sentifactory.engines.local.onnx_engine import check_files, is_export, read_export
from sentifactory.errors import EngineError
from sentifactory.evaluation.report.first_screen import read_doubt, read_lead
from sentifactory.evaluation.report.mistake_files import list_results
from sentifactory.metrics.number_formats import format_percent
from sentifactory.models.classifiers import is_classifier
from sentifactory.models.complete_folder import find_gap
from sentifactory.models.weights import ADAPTER_CONFIG, list_shards
from sentifactory.publishing.hub.evidence import Evidence
from sentifactory.publishing.hub.licences import Terms
from sentifactory.publishing.hub.refusal import Refusal
from sentifactory.publishing.hub.secret_search import search_secrets
from sentifactory.publishing.model_files import SortedFiles
from sentifactory.task.model_folder import read_model_task
from sentifactory.task.task_choice import knows_labels, show_task
from sentifactory.task.task_file import is_same_question
from sentifactory.training.run.checkpoints import is_whole_safetensors

_UNFINISHED_ZH = {"running": "训练仍在进行", "interrupted": "训练中途停止，尚未完成", "failed": "训练失败，尚未完成"}
_COMPARE = "compare it: python scripts/eval_sentiment_compare.py --finetuned_model {folder} ..."


def find_refusals(
    evidence: Evidence, files: SortedFiles, terms: Terms, *, is_forced: bool, tokens: tuple[str, ...] = ()
) -> list[Refusal]:
    """Return all reasons not to publish a checkpoint.

    Args:
        evidence: about the checkpoint.
        files: of its folder.
        terms: its licence.
        is_forced: accept a report that does not show a lead over the base model, or over TF-IDF in its place.
        tokens: the user's own tokens, which no file may contain.
    """
    found = [*_check_weights(evidence.folder, files), *_check_secrets(files, tokens), *_check_run(evidence)]
    if evidence.report is None:
        found.append(
            Refusal(
                "report-missing",
                Sentence.write(
                    f"there is no report on exactly this checkpoint ({evidence.missing_report.en})",
                    f"没有针对该模型的评测报告（{evidence.missing_report.zh}）",
                ),
                _COMPARE.format(folder=evidence.folder),
            )
        )
    else:
        found += [*_check_leaks(evidence.report), *_check_task(evidence)]
        verdict = find_verdict(evidence)
        if verdict is not None and not is_forced:
            what = Sentence(verdict.en.rstrip("."), verdict.zh.rstrip("。"))
            step = "train longer, test on more reviews, or publish anyway with --force"
            found.append(Refusal("not-better", what, step))
    return [*found, *terms.problems]


def find_verdict(evidence: Evidence) -> Sentence | None:
    """Return why the report does not show that a checkpoint beats its rival; None if it does.

    The rival is the base model or, where that is no meaningful baseline, TF-IDF, or else the majority label.
    """
    if evidence.report is None:
        return None
    models = evidence.report["models"]
    doubt = read_doubt(evidence.report)
    rival = "base" if doubt is None else "tfidf" if "tfidf" in models else "majority"
    lead = read_lead(evidence.report, rival)
    other, tuned = (format_percent(models[name]["metrics"]["accuracy"]) for name in (rival, "tuned"))
    names = {
        "base": Sentence("its base model", "微调前的原始模型"),
        "tfidf": Sentence("TF-IDF", " TF-IDF "),
        "majority": Sentence("always answering the commonest label", "“总答多数类”"),
    }[rival]
    why = Sentence("", "") if doubt is None else Sentence(f" {doubt['sentence']['en']}", doubt["sentence"]["zh"])
    if lead["is_shown"] and lead["difference"] < 0:
        return Sentence.write(
            f"The model is worse than {names.en} (accuracy {tuned}, against {other}).{why.en}",
            f"该模型不如{names.zh}（准确率 {tuned}，对方为 {other}）。{why.zh}",
        )
    if not lead["is_shown"]:
        return Sentence.write(
            f"The evaluation does not show that the model is better than {names.en} (accuracy {tuned}, against "
            f"{other}).{why.en}",
            f"评测未能证明该模型优于{names.zh}（准确率 {tuned}，对方为 {other}）。{why.zh}",
        )
    return None


def _check_weights(folder: Path, files: SortedFiles) -> list[Refusal]:
    if (folder / ADAPTER_CONFIG).is_file():
        step = f"merge it: sentifactory export merge {folder} ..."
        what = Sentence("this is a LoRA adapter, not a complete model", "这是 LoRA 适配器，不是完整的模型")
        return [Refusal("adapter", what, step)]
    weights = [path for path in files.upload if path.suffix == ".safetensors"]
    found = []
    if not weights and not any(path.suffix == ".onnx" for path in files.upload):
        what = Sentence("the folder has no safetensors weights", "文件夹中没有 safetensors 权重")
        found.append(Refusal("weights-missing", what, "pass the folder of a finished run"))
    for path in weights:
        if not is_whole_safetensors(path):
            what = Sentence.write(f"{path.name} is truncated", f"{path.name} 不完整")
            found.append(Refusal("weights-incomplete", what, "create the checkpoint again"))
    for index in folder.glob("*.safetensors.index.json"):
        shards = list_shards(index)
        missing = [name for name in shards or () if not (folder / name).is_file()]
        if shards is None:
            what = Sentence.write(f"{index.name} lists no files", f"{index.name} 中没有文件列表")
            found.append(Refusal("weights-incomplete", what, "create the checkpoint again"))
        elif missing:
            what = Sentence.write(
                f"{', '.join(missing)}, listed in {index.name}, is missing",
                f"缺少 {index.name} 中列出的文件：{'、'.join(missing)}",
            )
            found.append(Refusal("weights-incomplete", what, "create the checkpoint again"))
    if is_export(folder):
        try:
            check_files(folder, read_export(folder))
        except EngineError as error:
            what = Sentence(error.what, "ONNX 导出的文件已损坏或被改动")
            found.append(Refusal("export-broken", what, error.next_step))
    if not (folder / "config.json").is_file():
        what = Sentence("config.json is missing", "缺少 config.json")
        found.append(Refusal("config-missing", what, "pass the folder of a complete checkpoint"))
    if (gap := find_gap(folder)) is not None and gap.code == "model-no-tokenizer":
        what = Sentence(lower_first(gap.what), "缺少分词器文件（如 tokenizer.json）")
        found.append(Refusal("tokenizer-missing", what, gap.next_step))
    return found


def _check_secrets(files: SortedFiles, tokens: tuple[str, ...]) -> list[Refusal]:
    found = [
        Refusal(
            "file-refused",
            Sentence.write(
                f"the folder contains a file that must not be published: {why.en}",
                f"文件夹中有不得发布的文件：{why.zh}",
            ),
            "move it away",
        )
        for why in files.refused
    ]
    for path, why in search_secrets(files.upload, tokens):
        found.append(Refusal("secret", why, f"remove it from {path} and revoke it"))
    return found


def _check_run(evidence: Evidence) -> list[Refusal]:
    status = (evidence.card or {}).get("status")
    if status is None or status == "finished":
        return []
    what = Sentence(f"the training run is {status}, not finished", _UNFINISHED_ZH.get(str(status), "训练尚未完成"))
    return [Refusal("run-unfinished", what, "run the same training command again")]


def _check_task(evidence: Evidence) -> list[Refusal]:
    """Refuse a report on another task than the checkpoint's; for a classifier only the labels count."""
    own, asked = read_model_task(evidence.folder), evidence.read_reported_task()
    if own is None or asked is None or is_same_question(own, asked):
        return []
    if is_classifier(str(evidence.folder)) and knows_labels(asked, own.labels):
        return []
    why = Sentence.write(
        f"the report evaluates the task {show_task(asked)}, but the model was trained on {show_task(own)}",
        f"报告评测的任务是 {show_task(asked, 'zh')}，而模型的训练任务是 {show_task(own, 'zh')}",
    )
    return [Refusal("report-of-other-task", why, _COMPARE.format(folder=evidence.folder) + ", without --task")]


def _check_leaks(report: dict[str, Any]) -> list[Refusal]:
    step = "compare again on a test file without them (`sentifactory data check --unseen` writes one)"
    found = []
    for result in list_results(report):
        facts = result["data"]["test"]
        if facts["leak_check"]["status"] == LEAKS:
            summary = facts["leak_check"]["summary"].rstrip(".")
            what = Sentence(f"the report tests on training reviews: {summary}", "报告所用的测试评论出现在训练数据中")
            found.append(Refusal("leak", what, step))
        if n := facts.get("leaked_from_val"):
            what = Sentence.write(
                f"{n} test reviews of {facts['file']} are also validation reviews",
                f"{facts['file']} 中有 {n} 条测试评论同时也是验证评论",
            )
            found.append(Refusal("leak", what, step))
    return found
