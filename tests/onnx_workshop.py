"""What the tests of exports share: reviews, a tiny encoder with a head, and its float32 graph, written once."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_models import build_tiny_bert

from sentifactory.engines.local.onnx_engine import GRAPH_NAME, WEIGHTS_NAME
from sentifactory.models.pooled_classifier import register_pooled_classes
from sentifactory.publishing.onnx.onnx_graph import write_graph
from sentifactory.records import Review

REVIEWS = Path(__file__).parent / "engines" / "assets" / "reviews.tsv"


@pytest.fixture(scope="session")
def reviews() -> list[Review]:
    """Forty real reviews, 20 of each label."""
    rows = REVIEWS.read_text(encoding="utf-8").splitlines()
    return [Review(text, int(label)) for label, _, text in (row.partition("\t") for row in rows)]


@pytest.fixture(scope="session")
def val_csv(tmp_path_factory: pytest.TempPathFactory, reviews: list[Review]) -> Path:
    path = tmp_path_factory.mktemp("validation") / "val.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label"])
        writer.writerows([review.text, review.label] for review in reviews)
    return path


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, reviews: list[Review]) -> Path:
    """A random encoder with a head of our own, steep enough that few reviews are undecided."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    from sentifactory.models.classifiers import encode_texts, pad_batch

    trunk = build_tiny_bert(tmp_path_factory.mktemp("tiny_bert"))
    tokenizer = AutoTokenizer.from_pretrained(trunk)
    config_class, model_class = register_pooled_classes()
    model = AutoModel.from_pretrained(trunk)
    config = config_class(
        trunk=model.config.to_dict(),
        pooling="mean",
        id2label={0: "negative", 1: "positive"},
        label2id={"negative": 0, "positive": 1},
    )
    torch.manual_seed(1)
    classifier = model_class(config, model).eval()
    ids, mask = pad_batch(tokenizer, encode_texts(tokenizer, [review.text for review in reviews], 64))
    with torch.no_grad():
        classifier.classifier.weight.normal_(std=5)
        logits = classifier(ids, mask).logits  # (40, 2)
        classifier.classifier.bias -= logits.median(dim=0).values
    folder = tmp_path_factory.mktemp("checkpoint") / "encoder"
    classifier.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def copy_graph(source: Path) -> Callable[..., None]:
    """Return what stands in for torch's exporter: the graph that it has written before."""

    def write(model: Any, folder: Path, opset: int = 18) -> None:
        for name in (GRAPH_NAME, WEIGHTS_NAME):
            shutil.copyfile(source / name, folder / name)

    return write


@pytest.fixture(scope="session")
def float32_graph(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """The folder with the graph that torch's exporter writes of the checkpoint; done once, for it takes seconds."""
    from sentifactory.models.classifiers import load_classifier
    from sentifactory.task.task import BINARY_SENTIMENT

    folder = tmp_path_factory.mktemp("float32")
    write_graph(load_classifier(str(checkpoint), BINARY_SENTIMENT).model, folder)
    return folder
