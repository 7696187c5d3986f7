"""Writes the tables of the training guide from benchmarks: what freezing costs, and the speed of a step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sentifactory.bilingual import Sentence
from sentifactory.metrics.number_formats import format_percent, format_range, read_interval
from sentifactory.system.formats import DASH, build_table
from tools.docs.page_parts import name_machine

METHOD_HEADERS = {
    "en": ["method", "trainable weights, millions", "accuracy (95%)", "by seed", "training, min", "peak memory, GB"],
    "zh": ["训练方式", "可训练权重（百万）", "准确率（95%）", "各随机种子", "训练（分钟）", "内存峰值（GB）"],
}
METHOD_NAMES = {
    "untuned": "未微调",
    "freeze_2": "冻结，只训练最后 2 层",
    "freeze_6": "冻结，只训练最后 6 层",
    "freeze_12": "冻结，只训练最后 12 层",
    "full": "全参数，含词嵌入",
    "lora": "LoRA，秩 8，全部线性层",
    "label": "冻结，只训练最后 6 层，只计算标签的损失",
    "mixed": "冻结，只训练最后 6 层，混合损失",
    "lowest_12": "保留最低 12 层，训练其中最后 4 层",
    "lowest_12_mixed": "保留最低 12 层，训练其中最后 4 层，混合损失",
    "lowest_9_mixed": "保留最低 9 层，训练其中最后 3 层，混合损失",
}
METHOD_CAPTIONS = {
    "en": "{recipe}, {reviews} training reviews, one epoch; {asked} validation reviews; the methods take turns, on "
    "{machine}. The time is the median over the seeds, starting with an empty cache of the frozen layers.",
    "zh": "{recipe}，{reviews} 条训练评论，1 个 epoch；{asked} 条验证评论；各方法轮流进行，机器：{machine}。"
    "时间取各种子的中位数，开始时冻结层的缓存为空。",
}
RANGE_WORDS = {"en": "to", "zh": "至"}
SPEED_HEADERS = {
    "en": ["training", "samples/s", "speed-up", "peak memory, relative", "operations, relative"],
    "zh": ["训练", "每秒样本数", "加速比", "内存峰值（相对原版）", "运算量（相对原版）"],
}
SPEED_NAMES = {
    "stock": Sentence("stock LLaMA-Factory", "原版 LLaMA-Factory"),
    "building": Sentence("ours, first epoch", "我们的，第一轮"),
    "cached": Sentence("ours, later epochs", "我们的，以后各轮"),
    "two epochs": Sentence("ours, two epochs", "我们的，两轮合计"),
}
SPEED_CAPTIONS = {
    "en": "{recipe}, prompt of the task `{task}`; stock and ours take turns on the same reviews, on a processor with "
    "{cores} cores. The loss of every step is the same.",
    "zh": "{recipe}，任务 `{task}` 的提示词，原版与我们的在同样的评论上轮流运行，{cores} 核处理器。每一步的损失相同。",
}


def write_methods_part(bench: Mapping[str, Any], language: str) -> str:
    """Return the table of a methods.json in a language, `en` or `zh`."""
    rows = [METHOD_HEADERS[language]]
    for row in bench["rows"]:
        interval = format_range(read_interval(row["interval"]), RANGE_WORDS[language])
        trained, time_s, peak = row["parameters"], row["train_time_s"], row["peak_bytes"]
        rows.append(
            [
                row["title"] if language == "en" else METHOD_NAMES.get(row["method"], row["title"]),
                DASH if trained is None else f"{trained / 1e6:.0f}",
                f"{format_percent(row['accuracy'])} ({interval})",
                ", ".join(map(format_percent, row["accuracies"].values())),
                DASH if time_s is None else f"{time_s / 60:.1f}",
                DASH if peak is None else f"{peak / 1e9:.1f}",
            ]
        )
    caption = METHOD_CAPTIONS[language].format(
        recipe=_name_recipe(bench),
        reviews=bench["training_reviews"],
        asked=bench["rows"][0]["reviews"],
        machine=name_machine(bench["machine"]),
    )
    return "\n".join([*build_table(rows), "", caption])


def write_speed_part(bench: Mapping[str, Any], language: str) -> str:
    """Return the table of a train_step.json in a language, `en` or `zh`."""
    stock = bench["rows"]["stock"]
    rows = [SPEED_HEADERS[language]]
    for name, row in bench["rows"].items():
        rows.append(
            [
                getattr(SPEED_NAMES[name], language),
                f"{1 / row['seconds']:.2f}",
                f"{stock['seconds'] / row['seconds']:.2f}",
                f"{row['peak_bytes'] / stock['peak_bytes']:.2f}",
                f"{row['operations'] / stock['operations']:.2f}",
            ]
        )
    cores = bench["machine"]["cpu_cores"]
    caption = SPEED_CAPTIONS[language].format(recipe=_name_recipe(bench), task=bench["task"], cores=cores)
    return "\n".join([*build_table(rows), "", caption])


def _name_recipe(bench: Mapping[str, Any]) -> str:
    """Return the recipe and its overrides, as on the command line."""
    return f"`{' '.join([bench['recipe'], *bench['overrides']])}`"
