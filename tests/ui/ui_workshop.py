"""A tiny encoder, a recipe that trains it in seconds, and a CSV of reviews that it can learn."""

from __future__ import annotations

import random
from pathlib import Path

from tiny_models import build_tiny_bert

RECIPE = """# Purpose: a tiny encoder, in seconds.
stage: encoder
model_name_or_path: {model}
finetuning_type: full
pooling: cls
dataset: chosen/on/the/page.csv
eval_dataset: chosen/on/the/page.csv
output_dir: chosen/on/the/page
learning_rate: 5.0e-3
num_train_epochs: {epochs}
logging_steps: 4
use_cpu: true
"""


def build_workshop(folder: Path) -> Path:
    """Write pretrained/tiny, recipes/quick.yaml, recipes/endless.yaml and my_reviews.csv."""
    model = folder / "pretrained" / "tiny"
    model.mkdir(parents=True)
    build_tiny_bert(model)
    (folder / "recipes").mkdir()
    for name, epochs in (("quick", 6), ("endless", 100_000)):
        (folder / "recipes" / f"{name}.yaml").write_text(RECIPE.format(model=model, epochs=epochs), encoding="utf-8")
    dice = random.Random(5)
    rows = []
    for at in range(240):
        words = "房间服务早餐前台书屏幕" + ("太差失望糟糕", "很好喜欢满意")[at % 2] * 2
        rows.append(f"{at % 2},{''.join(dice.choices(words, k=dice.randint(12, 30)))}{at}\n")
    (folder / "my_reviews.csv").write_text("label,text\n" + "".join(rows), encoding="utf-8")
    return folder
