"""Smoothing changes no answer of the float32 graph, and lets the int8 one keep what an outlying channel would cost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sentifactory.engines.local.onnx_engine import GRAPH_NAME
from sentifactory.publishing.onnx.onnx_graph import save_graph
from sentifactory.publishing.onnx.onnx_smoothing import measure_channels, smooth_graph

CHANNELS, OUTLIER = 64, 5


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A table, whose channel 5 is 200 times as large as the others, in front of two layers."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    chosen = np.random.default_rng(3)
    table = chosen.normal(size=(50, CHANNELS)).astype(np.float32)
    table[:, OUTLIER] *= 200
    weights = {name: chosen.normal(size=(CHANNELS, 8)).astype(np.float32) for name in ("one", "other")}
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"], name="look_up"),
        helper.make_node("MatMul", ["rows", "one"], ["first"], name="layer"),
        helper.make_node("MatMul", ["rows", "other"], ["second"], name="other_layer"),
        helper.make_node("Add", ["first", "second"], ["sums"], name="sums"),
        helper.make_node("Cast", ["attention_mask"], ["mask"], name="mask", to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"], name="column"),
        helper.make_node("Mul", ["sums", "column"], ["logits"], name="logits"),
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["B", "T"]) for name in MASKED]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", "T", 8])
    tensors = {"table": table, **weights, "last": np.array([-1])}
    stored = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    graph = helper.make_graph(nodes, "layers", inputs, [output], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    save_graph(model, tmp_path)
    return tmp_path


MASKED = ("input_ids", "attention_mask")


def make_batch() -> tuple[np.ndarray, np.ndarray]:
    ids = np.random.default_rng(4).integers(0, 50, size=(6, 9))
    mask = np.ones_like(ids)
    mask[0, 4:] = 0
    return ids, mask


def run(folder: Path) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / GRAPH_NAME), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, dict(zip(MASKED, make_batch(), strict=True)))[0])


def quantise(folder: Path) -> np.ndarray:
    from onnxruntime import quantization

    target = folder / "int8"
    target.mkdir()
    quantization.quantize_dynamic(
        str(folder / GRAPH_NAME), str(target / GRAPH_NAME), weight_type=quantization.QuantType.QInt8,
        per_channel=True, op_types_to_quantize=["MatMul"],
    )  # fmt: skip
    return run(target)


def test_the_answers_stay_and_int8_loses_less(folder: Path) -> None:
    import onnx

    exact, before = run(folder), quantise(folder)
    batch = make_batch()
    outlier = measure_channels(folder, ["rows"], [batch])["rows"]
    assert outlier.argmax() == OUTLIER
    assert not (folder / "shown.onnx").exists()

    graph = onnx.load(str(folder / GRAPH_NAME))
    assert smooth_graph(graph, folder, [batch]) == 1, "one input, of two layers"
    assert [node.op_type for node in graph.graph.node].count("Mul") == 2
    smoothed = folder / "smoothed"
    smoothed.mkdir()
    save_graph(graph, smoothed)
    assert np.allclose(run(smoothed), exact, rtol=1e-4, atol=1e-3)
    spread = measure_channels(smoothed, ["rows_smooth"], [batch])["rows_smooth"]
    assert spread.max() / np.median(spread) < 0.2 * outlier.max() / np.median(outlier)
    after = quantise(smoothed)
    others = np.abs(exact) < np.abs(exact).max() * 0.05  # where the outlier does not drown what the others say
    assert others.any()
    assert np.abs(after - exact)[others].mean() < 0.5 * np.abs(before - exact)[others].mean()


def test_pads_are_not_looked_at(folder: Path) -> None:
    ids, mask = make_batch()
    whole = measure_channels(folder, ["rows"], [(ids, np.ones_like(mask))])["rows"]
    mask[:] = 0
    mask[0, 0] = 1
    alone = measure_channels(folder, ["rows"], [(ids, mask)])["rows"]
    assert (alone <= whole).all()
    assert (alone < whole).any()
