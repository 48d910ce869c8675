"""Which ops of a network XNNPACK runs, the fast kernels of TFLite on a CPU.

What it leaves is run by TFLite's own kernels: right, but slower, and each change
between the two costs time. Found by giving files of one op to LiteRT 2.3; other
releases differ in a few ops.
"""

import dataclasses
from collections.abc import Callable, Mapping

from deeplab2_edge.targets.verdict import (
    MAPS,
    Check,
    Judgement,
    falls_back,
    judge,
)
from deeplab2_edge.tflite_file.graph import Graph, Op

RUNTIME = "LiteRT 2.3"
_FLOAT = ("float32",)
_QUANTIZED = ("int8", "uint8")
_ALL = (*_FLOAT, *_QUANTIZED)
_MAX_RANK = 6
_MAX_CONCATENATED = 5

_TYPES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(
        (
            "ABS",
            "AVERAGE_POOL_2D",
            "CEIL",
            "COS",
            "DIV",
            "EXP",
            "FLOOR",
            "GELU",
            "HARD_SWISH",
            "LOG",
            "MAXIMUM",
            "MINIMUM",
            "NEG",
            "PRELU",
            "RELU",
            "RELU6",
            "RELU_N1_TO_1",
            "ROUND",
            "RSQRT",
            "SIN",
            "SOFTMAX",
            "SQRT",
            "SQUARE",
            "SQUARED_DIFFERENCE",
        ),
        _FLOAT,
    ),
    **dict.fromkeys(("BATCH_MATMUL", "ELU"), ("float32", "int8")),
    **dict.fromkeys(
        (
            "ADD",
            "CONCATENATION",
            "CONV_2D",
            "DEPTHWISE_CONV_2D",
            "DEPTH_TO_SPACE",
            "DEQUANTIZE",
            "FULLY_CONNECTED",
            "LEAKY_RELU",
            "LOGISTIC",
            "MAX_POOL_2D",
            "MEAN",
            "MUL",
            "PAD",
            "QUANTIZE",
            "REDUCE_MAX",
            "REDUCE_MIN",
            "RESHAPE",
            "RESIZE_BILINEAR",
            "SLICE",
            "SPACE_TO_DEPTH",
            "SPLIT",
            "STRIDED_SLICE",
            "SUB",
            "SUM",
            "TANH",
            "TRANSPOSE",
            "TRANSPOSE_CONV",
        ),
        _ALL,
    ),
}
_WITH_WEIGHTS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
_ACTIVATIONS = ("none", "relu", "relu_n1_to_1", "relu6")
_HINTS: Mapping[str, str] = {
    "AVERAGE_POOL_2D": "`--quantize int8` pools in two depthwise convolutions",
    "HARD_SWISH": "write it as ADD and MUL: `--quantize int8` does",
    "RELU": "let it fuse into the op before",
    "RELU6": "let it fuse into the op before",
    "SOFTMAX": "keep it in float: `--quantize int8-mixed`",
    "SPLIT_V": "split into equal parts",
}


def check_cpu(graph: Graph) -> Check:
    """Predicts which ops of a network XNNPACK takes."""
    check = Check("cpu", graph, tuple(judge(graph, _judge)))
    notes = [f"as in {RUNTIME}; what falls back runs on TFLite's own kernels"]
    if check.inner_findings:
        notes.append(f"XNNPACK is entered up to {check.num_partitions} times")
    return dataclasses.replace(check, notes=tuple(notes))


def _judge(op: Op) -> Judgement:
    if op.is_custom or op.name not in _TYPES:
        kind = "custom op" if op.is_custom else op.name
        return falls_back("op", f"XNNPACK has no {kind}", _HINTS.get(op.name, ""))
    if op.name == "DEQUANTIZE" and op.constants:
        return MAPS  # weights of float16, unpacked once
    for tensor in op.activations:
        if tensor.is_dynamic:
            return falls_back("shape", f"{tensor.name} has no fixed shape")
        if len(tensor.shape) > _MAX_RANK:
            return falls_back("rank", f"{len(tensor.shape)} sides; at most {_MAX_RANK}")
    kinds = {t.dtype for t in op.activations if t.dtype not in ("int32", "int64")}
    allowed = _TYPES[op.name]
    if op.name in ("QUANTIZE", "DEQUANTIZE"):
        return _conversion(op)
    for kind in sorted(kinds - set(allowed)):
        return falls_back(
            "type", f"XNNPACK has no {op.name} of {kind}", _HINTS.get(op.name, "")
        )
    rule = _RULES.get(op.name)
    return (rule(op) if rule is not None else None) or _activation(op) or MAPS


def _activation(op: Op) -> Judgement | None:
    if (activation := op.options.get("activation", "none")) not in _ACTIVATIONS:
        return falls_back("activation", f"with a fused {activation}")
    return None


def _conversion(op: Op) -> Judgement:
    """Judges QUANTIZE and DEQUANTIZE: not between two kinds of integers."""
    source, result = op.inputs[0], op.outputs[0]
    if source is None:
        return MAPS
    known = (*_ALL, "float16")
    for tensor in (source, result):
        if tensor.dtype not in known:
            return falls_back("type", f"XNNPACK has no {op.name} of {tensor.dtype}")
    pair = {source.dtype, result.dtype}
    if pair == set(_QUANTIZED):
        return falls_back(
            "type", f"from {source.dtype} to {result.dtype}", "int8 at both ends"
        )
    return MAPS


def _weights(op: Op) -> Judgement | None:
    kernel, source = op.input(1), op.activations[0]
    if kernel is None or not (kernel.is_constant or kernel.is_folded):
        return falls_back("constant", "its weights are computed")
    is_dynamic_range = source.dtype == "float32" and kernel.dtype == "int8"
    if op.name == "DEPTHWISE_CONV_2D" and is_dynamic_range:
        return falls_back(
            "type",
            "float32 with int8 weights",
            "`--quantize int8`, or `none` for depthwise convolutions",
        )
    return None


def _concatenation(op: Op) -> Judgement | None:
    if len(op.inputs) > _MAX_CONCATENATED:
        return falls_back(
            "count", f"joins {len(op.inputs)} tensors; at most {_MAX_CONCATENATED}"
        )
    return None


def _constant_second(op: Op) -> Judgement | None:
    second = op.input(1)
    if second is not None and not second.is_constant:
        return falls_back("constant", "its axes or sizes are computed")
    return None


def _strided_slice(op: Op) -> Judgement | None:
    strides = op.input(3)
    values = strides.integers() if strides is not None else None
    if values is None or any(value != 1 for value in values):
        return falls_back("stride", "strides other than 1")
    return None


def _softmax(op: Op) -> Judgement | None:
    if op.options["beta"] != 1:
        return falls_back("option", f"beta {op.options['beta']:g}")
    return None


_RULES: Mapping[str, Callable[[Op], Judgement | None]] = {
    **dict.fromkeys(_WITH_WEIGHTS[:-1], _weights),
    **dict.fromkeys(
        (
            "MEAN",
            "PAD",
            "REDUCE_MAX",
            "REDUCE_MIN",
            "RESIZE_BILINEAR",
            "SUM",
            "TRANSPOSE",
        ),
        _constant_second,
    ),
    "CONCATENATION": _concatenation,
    "SOFTMAX": _softmax,
    "STRIDED_SLICE": _strided_slice,
}
