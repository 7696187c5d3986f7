"""Makes the inputs of linear layers easier to write in eight bits, without changing what the layers compute.

A few channels of an encoder's activations are many times as large as the others, and one scale for all of them leaves
the others too few steps. Each channel is divided by a factor and the weights that it meets are multiplied by the same:
SmoothQuant (Xiao et al., 2023, arXiv:2211.10438). The factors come from reviews that the graph is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sentifactory.engines.onnx import GRAPH_NAME

# How much of the difficulty goes to the weights. The paper's 0.5 is for larger models; with 0.7 the probabilities of
# e5-small differed half as much from the checkpoint's as without smoothing, with 0.5 as much.
STRENGTH = 0.7
_SMALLEST = 1e-5


def smooth_graph(graph: Any, folder: Path, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> int:
    """Rescale the channels before every linear layer of a float32 graph in place; return how many inputs were.

    Args:
        graph: an onnx ModelProto with its weights.
        folder: holds the same graph as files.
        batches: token ids and masks (B, T) of reviews to learn the factors from.
    """
    from onnx import helper, numpy_helper

    weights = {tensor.name: tensor for tensor in graph.graph.initializer}
    layers: dict[str, list[Any]] = {}
    for node in graph.graph.node:
        if node.op_type == "MatMul" and node.input[1] in weights:
            layers.setdefault(node.input[0], []).append(node)
    largest = measure_channels(folder, list(layers), batches)
    smoothing: dict[str, Any] = {}  # by the name of the first layer that needs it: there it must be computed
    for source, nodes in layers.items():
        tables = {node.input[1]: numpy_helper.to_array(weights[node.input[1]]) for node in nodes}
        factors = find_factors(largest[source], list(tables.values()))
        for name, table in tables.items():
            weights[name].CopyFrom(numpy_helper.from_array(table * factors[:, None], name))
        graph.graph.initializer.append(numpy_helper.from_array(1 / factors, f"{source}_smoothing"))
        smoothing[nodes[0].name] = helper.make_node(
            "Mul", [source, f"{source}_smoothing"], [f"{source}_smooth"], name=f"{source}_smoothed"
        )
        for node in nodes:
            node.input[0] = f"{source}_smooth"
    ordered = [one for node in graph.graph.node for one in (smoothing.get(node.name), node) if one is not None]
    del graph.graph.node[:]
    graph.graph.node.extend(ordered)
    return len(smoothing)


def find_factors(largest: np.ndarray, tables: Sequence[np.ndarray]) -> np.ndarray:
    """Return what each channel is divided by, (C,) float32, of geometric mean 1.

    Args:
        largest: (C,) largest magnitude of each channel.
        tables: (C, N) weights that the channels meet.

    Example:
        >>> [round(float(one), 2) for one in find_factors(np.array([100.0, 1.0]), [np.ones((2, 3))])]
        [5.01, 0.2]
    """
    met = np.max([np.abs(table).max(axis=1) for table in tables], axis=0)
    factors = np.maximum(largest, _SMALLEST) ** STRENGTH / np.maximum(met, _SMALLEST) ** (1 - STRENGTH)
    return np.asarray(factors / np.exp(np.log(factors).mean()), dtype=np.float32)


def measure_channels(
    folder: Path, names: Sequence[str], batches: Iterable[tuple[np.ndarray, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Return the largest magnitude (C,) of each channel of the named values over all tokens that are no pads."""
    import onnx
    import onnxruntime

    graph = onnx.load(str(folder / GRAPH_NAME), load_external_data=False)
    graph.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    shown = folder / "shown.onnx"  # beside the graph, whose file of weights it names
    try:
        onnx.save_model(graph, str(shown))
        session = onnxruntime.InferenceSession(str(shown), providers=["CPUExecutionProvider"])
    finally:
        shown.unlink(missing_ok=True)
    largest: dict[str, np.ndarray] = {}
    for ids, mask in batches:
        for name, value in zip(
            names, session.run(list(names), {"input_ids": ids, "attention_mask": mask}), strict=True
        ):
            highest = np.abs(value[mask.astype(bool)]).max(axis=0)
            largest[name] = np.maximum(largest.get(name, 0.0), highest)
    return largest
