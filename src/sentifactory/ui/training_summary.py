"""Says in words what a training is doing, why it ended, how good it is so far, and how long it still takes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sentifactory.bilingual import Sentence
from sentifactory.metrics.number_formats import format_percent
from sentifactory.system.formats import name_duration
from sentifactory.training.run.run_phases import TRAINING
from sentifactory.ui.error_sentences import describe_error
from sentifactory.ui.training_jobs import FAILED, FINISHED, RUNNING, STOPPED, Job

_METRICS = {
    "eval_macro_f1": Sentence("macro-F1", "宏平均 F1"),
    "eval_label_accuracy": Sentence("accuracy", "准确率"),
    "eval_accuracy": Sentence("accuracy", "准确率"),
    "eval_loss": Sentence("validation loss", "验证损失"),
}
_STARTING = Sentence("starting", "正在启动")


@dataclass(frozen=True, slots=True)
class Score:
    """A score on the validation reviews.

    Attributes:
        metric: its key in the run card.
        value: a share, or a loss.
        step: after which it was measured.
    """

    metric: str
    value: float
    step: int

    @property
    def name(self) -> Sentence:
        """What the metric is called."""
        return _METRICS.get(self.metric) or Sentence(self.metric, self.metric)

    @property
    def shown(self) -> str:
        """The value as it is read: per cent, or a loss."""
        return f"{self.value:.4f}" if self.metric.endswith("loss") else format_percent(self.value)


def find_scores(card: Mapping[str, Any]) -> list[Score]:
    """Return the scores by which a run chooses its best weights, oldest first; [] where it has no validation reviews.

    Without a choice, it is macro-F1 where labels are scored, and otherwise the loss.
    """
    rows = [row for row in card.get("metrics") or () if isinstance(row, dict) and isinstance(row.get("step"), int)]
    recipe, validation = card.get("recipe") or {}, card.get("validation") or {}
    named = str(recipe.get("metric_for_best_model") or validation.get("chosen_by") or "")
    wished = [named if named.startswith("eval_") else f"eval_{named}", "eval_macro_f1", "eval_loss"]
    key = next((key for key in wished if any(isinstance(row.get(key), float | int) for row in rows)), None)
    return [Score(key, float(row[key]), row["step"]) for row in rows if key in row] if key else []


def find_best(scores: list[Score]) -> Score | None:
    """Return the best score, of equal ones the first, as trainers do; None where there is none."""
    if not scores:
        return None
    sign = -1 if scores[0].metric.endswith("loss") else 1
    return max(scores, key=lambda score: sign * score.value)


def find_loss(card: Mapping[str, Any]) -> float | None:
    """Return the last training loss; None before the first one."""
    rows = [row for row in card.get("metrics") or () if isinstance(row, dict)]
    return next((float(row["loss"]) for row in reversed(rows) if isinstance(row.get("loss"), float | int)), None)


def count_steps(job: Job) -> tuple[int, int]:
    """Return how many steps are done, and of how many; 0 where the first step has not begun."""
    done, total = int(job.card.get("steps") or 0), int(job.card.get("max_steps") or 0)
    if job.state == RUNNING and job.progress is None:
        return 0, 0  # the card is that of an earlier session
    if job.state == RUNNING and is_training(job.progress):
        assert job.progress is not None  # noqa: S101 - is_training
        return int(job.progress["done"]), int(job.progress["total"] or total)
    return done, total


def is_training(progress: Mapping[str, Any] | None) -> bool:
    """Return whether steps are being made, and not something before, between or after them."""
    return progress is not None and progress["phase"]["en"] == TRAINING.en


def describe_now(job: Job) -> Sentence | None:
    """Return what a running training does at the moment; None while it makes steps, and after its end."""
    if job.state != RUNNING:
        return None
    if job.is_stopping:
        return Sentence(
            "Stopping: the current step ends, and a checkpoint is saved. Stop again after 20 s ends it at once.",
            "正在停止：完成当前步并保存检查点。20 秒后再次点击“停止”会立即终止。",
        )
    if job.progress is None:
        return Sentence(f"{_STARTING.en.capitalize()} …", f"{_STARTING.zh} ……")
    if is_training(job.progress):
        return None
    phase, total = job.progress["phase"], job.progress["total"]
    counted = f" {job.progress['done']} / {total}" if total else " …"
    return Sentence(f"{phase['en'][0].upper()}{phase['en'][1:]}{counted}", f"{phase['zh']}{counted}")


def describe_left(job: Job) -> Sentence | None:
    """Return how long a running training still takes; None where that is unknown."""
    if job.state != RUNNING or job.is_stopping or not is_training(job.progress):
        return None
    assert job.progress is not None  # noqa: S101 - is_training
    estimate = (job.card.get("estimate") or {}).get("train_time_s")
    left_s = job.progress["left_s"] if job.progress["left_s"] is not None else estimate
    if left_s is None:
        return None
    left = name_duration(max(0.0, left_s - (time.time() - job.progress["written_at"])))
    recipe = job.card.get("recipe") or {}
    if recipe.get("early_stopping_patience") or recipe.get("early_stopping_steps"):
        return Sentence(f"at most {left.en}", f"至多 {left.zh}")
    return Sentence(f"about {left.en}", f"约 {left.zh}")


def describe_end(job: Job) -> Sentence | None:
    """Return why a training ended and what is kept of it; None while it runs."""
    if job.state == FINISHED:
        return _describe_finish(job.card)
    done, total = count_steps(job)
    place = Sentence(f" at step {done} of {total}", f"在第 {done} 步（共 {total} 步）") if total else Sentence("", "")
    kept = _describe_checkpoint(job)
    if job.state == STOPPED:
        return Sentence.write(f"Stopped{place.en}. {kept.en}", f"已{place.zh}停止。{kept.zh}")
    if job.state == FAILED:
        why = _find_reason(job)
        return Sentence.write(f"Failed{place.en}: {why.en} {kept.en}", f"{place.zh}失败：{why.zh}{kept.zh}")
    return None


def _describe_finish(card: Mapping[str, Any]) -> Sentence:
    done, total = int(card.get("steps") or 0), int(card.get("max_steps") or 0)
    best = find_best(find_scores(card))
    took = name_duration(float(card.get("wall_time_s") or 0))
    has_kept_best = best is not None and _keeps_best(card)
    if 0 < done < total and best is not None:
        return Sentence.write(
            f"Stopped early after step {done} of {total}: no better {best.name.en} than {best.shown} since step "
            f"{best.step}. The model of step {best.step} is kept. It took {took.en}.",
            f"在第 {done} 步（共 {total} 步）提前停止：{best.name.zh}自第 {best.step} 步的 {best.shown} 起没有提高。"
            f"保留第 {best.step} 步的模型。用时 {took.zh}。",
        )
    en, zh = f"All {total} steps are done, in {took.en}.", f"{total} 步全部完成，用时 {took.zh}。"
    if best is not None and has_kept_best:
        en += f" The model of step {best.step} is kept, with the best {best.name.en}: {best.shown}."
        zh += f"保留{best.name.zh}最高的第 {best.step} 步模型：{best.shown}。"
    return Sentence.write(en, zh)


def _keeps_best(card: Mapping[str, Any]) -> bool:
    """Return whether the weights of the best step are kept, and not those of the last one."""
    recipe = card.get("recipe") or {}
    return recipe.get("stage") == "encoder" or bool(recipe.get("load_best_model_at_end"))


def _describe_checkpoint(job: Job) -> Sentence:
    if job.checkpoint is None:
        return Sentence(
            "There is no checkpoint yet: to continue is to start again.", "尚无检查点，继续训练将从头开始。"
        )
    return Sentence(
        f"It can continue from the checkpoint of step {job.checkpoint}.", f"可从第 {job.checkpoint} 步的检查点继续。"
    )


def _find_reason(job: Job) -> Sentence:
    """Return why a training failed: its error in the page's words, or that it was killed."""
    if job.failure is not None:
        return describe_error(job.failure)
    return Sentence(
        "its process ended without a word. It was killed, the memory was exhausted, or the machine restarted.",
        "进程意外终止（被强制结束、内存耗尽或机器重启）。",
    )
