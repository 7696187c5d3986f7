"""The phases of a training run, as the page and the terminal show them."""

from __future__ import annotations

from sentifactory.bilingual import Sentence
from sentifactory.system.progress import say
from sentifactory.system.progress_file import begin_phase

CHECKING = Sentence("checking the recipe and the data", "检查配方与数据")
LOADING = Sentence("loading the model and the reviews", "加载模型与评论")
FROZEN_LAYERS = Sentence("computing the frozen layers, once for each review", "计算冻结层的输出（每条评论一次）")
PREPARING = Sentence("preparing the first step", "准备第一步")
TRAINING = Sentence("training", "训练")
VALIDATING = Sentence("scoring the validation reviews", "评估验证集")
SAVING = Sentence("saving the model", "保存模型")


def announce_phase(phase: Sentence) -> None:
    """Begin a phase that has no progress display of its own, and say so on stderr."""
    begin_phase(phase)
    say(f"{phase.en[0].upper()}{phase.en[1:]}")
