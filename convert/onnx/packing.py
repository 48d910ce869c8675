"""Smaller ONNX files with the same computation: weights packed in fewer bits.

Weights are unpacked by plain ops that runtimes run once, while loading. So a packed
model is as fast as in float32, takes no more memory than it, and needs no kernels.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.convert.onnx.passes import Graph, attribute
from deeplab2_edge.errors import ConversionError
from deeplab2_edge.optional import require

onnx: Any = require("onnx", extra="onnx")

# Weights below this many values are not worth a node that unpacks them.
_MIN_PACKED = 256


def pack_as_half(model: Any) -> None:
    """Stores weights as float16, unpacked by a Cast that runtimes run while loading.

    Computation stays in float32: ONNX Runtime has no float16 kernels for most ops on
    CPUs and would cast around each.
    """
    graph = Graph(model)
    nodes = []
    for name, tensor in list(graph.constants().items()):
        value = onnx.numpy_helper.to_array(tensor)
        if value.dtype != np.float32 or value.size < _MIN_PACKED:
            continue
        half = value.astype(np.float16)
        if not np.isfinite(half).all():
            raise ConversionError(
                f"{name} has values beyond {np.finfo(np.float16).max:g}, the largest "
                "of float16; use --quantize none"
            )
        packed = f"{name}/half"
        tensor.CopyFrom(onnx.numpy_helper.from_array(half, packed))
        nodes.append(
            onnx.helper.make_node(
                "Cast", [packed], [name], f"{name}/unpack", to=onnx.TensorProto.FLOAT
            )
        )
    _prepend(model, nodes)


def pack_as_int8(model: Any) -> None:
    """Stores kernels as int8, one scale for each output channel.

    They are unpacked by Cast and Mul, which runtimes run while loading, so the model
    is as fast as in float32. DequantizeLinear would be run for every image (ONNX
    Runtime 1.31). Activations are not touched: with the integer kernels that
    `onnxruntime.quantization.quantize_dynamic` chooses, the demo model loses 10 dB of
    its class scores and takes twice the time of float32.
    """
    graph = Graph(model)
    nodes = []
    packed: set[str] = set()
    for node in graph.nodes:
        for place, axis in _channel_axes(node).items():
            name = node.input[place]
            value = graph.value(name)
            if name in packed or value is None or value.size < _MIN_PACKED:
                continue
            packed.add(name)
            levels, scale = _to_levels(value, axis)
            graph.constants()[name].CopyFrom(
                onnx.numpy_helper.from_array(levels, f"{name}/int8")
            )
            graph.forget_constants()
            graph.set_constant(f"{name}/scale", scale)
            nodes += [
                onnx.helper.make_node(
                    "Cast",
                    [f"{name}/int8"],
                    [f"{name}/levels"],
                    f"{name}/cast",
                    to=onnx.TensorProto.FLOAT,
                ),
                onnx.helper.make_node(
                    "Mul", [f"{name}/levels", f"{name}/scale"], [name], f"{name}/unpack"
                ),
            ]
    _prepend(model, nodes)


def _channel_axes(node: Any) -> dict[int, int]:
    """Returns the axis that counts output channels, by place of a constant input."""
    if node.op_type == "Conv":
        return {1: 0}
    if node.op_type == "MatMul":
        return {0: -2, 1: -1}
    if node.op_type == "Gemm":
        return {1: 0 if attribute(node, "transB", 0) else 1}
    return {}


def _to_levels(
    value: NDArray[np.float32], axis: int
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Rounds a kernel to -127..127 times a scale for each index of an axis."""
    others = tuple(a for a in range(value.ndim) if a != axis % value.ndim)
    scale = np.abs(value).max(axis=others, keepdims=True) / np.float32(127)
    scale = np.where(scale > 0, scale, np.float32(1))
    levels = np.clip(np.rint(value / scale), -127, 127)
    return levels.astype(np.int8), scale


def _prepend(model: Any, nodes: Sequence[Any]) -> None:
    rest = list(model.graph.node)
    copies = []
    for node in (*nodes, *rest):
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copies.append(copy)
    del model.graph.node[:]
    model.graph.node.extend(copies)
