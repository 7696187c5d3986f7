"""Writes a classifier as an ONNX graph, and quantises the graph to int8.

Uses torch's own exporter, because optimum's requires transformers below 4.58 and LLaMA-Factory a newer one. For int8,
the embedding table gets one scale per row (little is lost in any token's vector); the linear layers are quantised by
onnxruntime.quantization after smoothing (`onnx_smoothing`); attention and norms stay in float32. Weights use 7 bits:
on processors without VNNI, the sum of two products of 8-bit weights and 8-bit activations overflows 16 bits, and
exported files are used on other machines.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sentifactory.engines.local.onnx_engine import GRAPH_NAME, WEIGHTS_NAME
from sentifactory.errors import ConfigError
from sentifactory.publishing.onnx.onnx_smoothing import smooth_graph

Quantise = Literal["none", "dynamic", "static"]
QUANTISE: tuple[Quantise, ...] = ("none", "dynamic", "static")
# LayerNormalization exists since opset 17; this torch exports no opset below 18.
OPSET = 18
_SMALLEST_APART = 1024  # bytes; smaller tensors stay in the graph file
_LARGEST_INT8 = 127


@contextmanager
def silence_libraries() -> Iterator[None]:
    """Suppress the log messages, warnings and prints of exporter and quantiser."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def write_graph(model: Any, folder: Path, opset: int = OPSET) -> None:
    """Write a classifier as a float32 graph with dynamic batch and length, and its weights in a second file.

    Args:
        model: called with `input_ids` and `attention_mask` (B, T), it returns an object with `logits` (B, n_labels).
        folder: for the two files.
        opset: ONNX opset version.

    Raises:
        ConfigError: when the package onnx is missing, or the model cannot be exported.
    """
    import torch

    class LogitsAlone(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.classifier = model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.classifier(input_ids=input_ids, attention_mask=attention_mask).logits

    model.set_attn_implementation("eager")  # plain matrix products and softmax, which every runtime can fuse
    ids = torch.ones((2, 7), dtype=torch.long)  # example input; a size of 1 would be fixed in the graph
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens")}
    try:
        with silence_libraries():
            program = torch.onnx.export(
                LogitsAlone().eval(),
                (ids, mask),
                input_names=["input_ids", "attention_mask"],
                output_names=["logits"],
                dynamic_shapes=(sizes, sizes),
                opset_version=opset,
                dynamo=True,
                verbose=False,
            )
            graph = program.model_proto
    except (ImportError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"The model cannot be exported to ONNX ({str(error).strip().splitlines()[0]})",
            where=type(model).__name__,
            next_step="pip install onnx onnxscript" if isinstance(error, ImportError) else "try another --opset",
        ) from error
    # Shapes that were inferred before quantisation contradict those after it.
    del graph.graph.value_info[:]
    save_graph(graph, folder)


def save_graph(graph: Any, folder: Path) -> None:
    """Write a graph, and its weights into a second file."""
    import onnx

    for name in (GRAPH_NAME, WEIGHTS_NAME):  # onnx would append to an existing weights file
        (folder / name).unlink(missing_ok=True)
    onnx.save_model(
        graph,
        str(folder / GRAPH_NAME),
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=WEIGHTS_NAME,
        size_threshold=_SMALLEST_APART,
    )
    (folder / WEIGHTS_NAME).chmod(0o644)  # onnx creates a file that only its owner can read


def quantise_graph(
    folder: Path, kind: Quantise, batches: Sequence[tuple[np.ndarray, np.ndarray]], scratch: Path
) -> None:
    """Replace the float32 graph in a folder by an int8 graph.

    Args:
        folder: of the graph.
        kind: `dynamic`: activation ranges of each batch; `static`: activation ranges measured on `batches`.
        batches: token ids and masks (B, T) of the calibration reviews.
        scratch: an empty folder for intermediate files.
    """
    import onnx
    from onnxruntime import quantization

    smooth = onnx.load(str(folder / GRAPH_NAME))
    smooth_graph(smooth, folder, batches)
    save_graph(smooth, folder)
    source, target = str(folder / GRAPH_NAME), str(scratch / GRAPH_NAME)
    common: dict[str, Any] = {
        "per_channel": True,
        "reduce_range": True,
        "op_types_to_quantize": ["MatMul"],
        "use_external_data_format": True,
        "extra_options": {"MatMulConstBOnly": True},  # products of two activations, as in attention, stay in float32
    }
    with silence_libraries():
        if kind == "static":
            quantization.quantize_static(source, target, _build_reader(batches), **common)
        else:
            quantization.quantize_dynamic(source, target, weight_type=quantization.QuantType.QInt8, **common)
    graph = onnx.load(target)
    quantise_embeddings(graph)
    save_graph(graph, folder)


def _build_reader(batches: Sequence[tuple[np.ndarray, np.ndarray]]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Batches(CalibrationDataReader):
        """Supplies the batches one after the other."""

        def __init__(self) -> None:
            self._left = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            """Return the inputs of the next batch; None at the end."""
            batch = next(self._left, None)
            return None if batch is None else {"input_ids": batch[0], "attention_mask": batch[1]}

    return Batches()


def quantise_embeddings(graph: Any) -> int:
    """Convert every float32 embedding table to int8 with one scale per row; return the number of tables.

    A table that other operations use as well is not converted.
    """
    from onnx import TensorProto, helper, numpy_helper

    tables = {
        table.name: table
        for table in graph.graph.initializer
        if table.data_type == TensorProto.FLOAT and len(table.dims) == 2
    }
    readers: dict[str, list[Any]] = {name: [] for name in tables}
    for node in graph.graph.node:
        for name in set(node.input) & tables.keys():
            readers[name].append(node)
    found = [name for name, nodes in readers.items() if nodes and all(_looks_up_rows(node, name) for node in nodes)]
    for name in found:
        rows, scales = quantise_rows(numpy_helper.to_array(tables[name]))
        graph.graph.initializer.remove(tables[name])
        graph.graph.initializer.extend(
            [numpy_helper.from_array(rows, f"{name}_int8"), numpy_helper.from_array(scales, f"{name}_scale")]
        )
    nodes = []
    for node in graph.graph.node:
        table = node.input[0] if node.input else ""
        if table not in found:
            nodes.append(node)
            continue
        ids, out = node.input[1], node.output[0]
        nodes += [
            helper.make_node("Gather", [f"{table}_int8", ids], [f"{out}_int8"], name=f"{out}_rows"),
            helper.make_node("Cast", [f"{out}_int8"], [f"{out}_float"], name=f"{out}_cast", to=TensorProto.FLOAT),
            helper.make_node("Gather", [f"{table}_scale", ids], [f"{out}_scale"], name=f"{out}_scales"),
            helper.make_node("Mul", [f"{out}_float", f"{out}_scale"], [out], name=f"{out}_scaled"),
        ]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    return len(found)


def _looks_up_rows(node: Any, table: str) -> bool:
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
    return node.op_type == "Gather" and axis == 0 and node.input[0] == table


def quantise_rows(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a table as int8 (V, H) and the scale of each row (V, 1); their product approximates the table.

    Example:
        >>> rows, scales = quantise_rows(np.array([[1.0, -0.5], [0.0, 0.0]], dtype=np.float32))
        >>> rows.tolist(), scales.shape
        ([[127, -64], [0, 0]], (2, 1))
    """
    largest = np.abs(table).max(axis=1, keepdims=True)
    scales = np.where(largest > 0, largest / _LARGEST_INT8, 1).astype(np.float32)
    return np.rint(table / scales).astype(np.int8), scales
