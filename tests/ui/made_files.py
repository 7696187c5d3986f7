"""Made-up files of reviews with columns of other names."""

from __future__ import annotations

import csv
import random
from pathlib import Path

WORDS = {"好评": "很好喜欢满意", "中评": "一般还行凑合", "差评": "太差失望糟糕"}


def write_opinions(path: Path, n_rows: int = 300, encoding: str = "utf-8") -> Path:
    """Write three-class reviews with the columns 日期, 平台, 顾客说的话, 结论, 次数 and 城市.

    Other columns than the labels (结论) have fewer different words, whole numbers like stars, and a later place.
    """
    dice = random.Random(3)
    with path.open("w", encoding=encoding, newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["日期", "平台", "顾客说的话", "结论", "次数", "城市"])
        for at in range(n_rows):
            label = list(WORDS)[at % 3]
            topic = "".join(dice.choices("房间服务早餐前台书屏幕", k=dice.randint(8, 20)))
            others = [dice.randint(1, 5), dice.choice(["北京", "上海"])]
            shop = dice.choice(["京东", "淘宝"])
            text = f"{topic}{WORDS[label] * 2}{at}"
            writer.writerow([f"2024-{at % 12 + 1:02d}-01", shop, text, label, *others])
    return path
