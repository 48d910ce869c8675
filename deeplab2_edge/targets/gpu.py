"""Which ops of a network the GPU delegate of TFLite takes.

It computes in float16 or float32, also what is stored as int8. The rest runs on the
CPU, and every change between the two copies tensors and waits: what counts is one
partition.

References:
    tensorflow/lite/tools/versioning/gpu_compatibility.cc and
    tensorflow/lite/delegates/gpu/common/model_builder.cc, whose conditions these are.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping

from deeplab2_edge.targets.verdict import (
    MAPS,
    Check,
    Judgement,
    falls_back,
    judge,
)
from deeplab2_edge.tflite_file.graph import Graph, Op, Tensor
from deeplab2_edge.wording import counted

_MAX_RANK = 4
_TYPES = ("float32", "float16", "int8", "uint8")
_LOGICAL = (
    "EQUAL",
    "GREATER",
    "GREATER_EQUAL",
    "LESS",
    "LESS_EQUAL",
    "NOT_EQUAL",
    "LOGICAL_AND",
)
_HINTS: Mapping[str, str] = {
    "ARG_MAX": "leave it to the host, as the last op",
    "CAST": "pixels as float32: harmless as the first op",
    "SPACE_TO_BATCH_ND": "export dilated convolutions with their dilation",
    "BATCH_TO_SPACE_ND": "export dilated convolutions with their dilation",
}


def check_gpu(graph: Graph) -> Check:
    """Predicts which ops of a network the GPU delegate takes."""
    check = Check("gpu", graph, tuple(judge(graph, _judge)))
    notes = []
    inner = len(check.inner_findings)
    if at_ends := len(check.findings) - inner:
        notes.append(
            f"{counted(at_ends, 'op')} at the ends of the graph fall back, which does "
            "not divide it"
        )
    if inner:
        notes.append(f"the GPU is entered up to {check.num_partitions} times")
    return dataclasses.replace(check, notes=tuple(notes))


def _judge(op: Op) -> Judgement:
    rule = _RULES.get(op.name)
    if op.is_custom or rule is None:
        kind = "a custom op" if op.is_custom else op.name
        return falls_back("op", f"{kind} is not supported", _HINTS.get(op.name, ""))
    for tensor in (*op.activations, *op.constants):
        if len(tensor.shape) > _MAX_RANK:
            return falls_back(
                "rank",
                f"a tensor of {len(tensor.shape)} sides; at most {_MAX_RANK}",
                "`--axial builtin` for axial attention",
            )
        if tensor.is_dynamic:
            return falls_back("shape", f"{tensor.name} has no fixed shape")
    return rule(op) or _types(op) or MAPS


def _types(op: Op) -> Judgement | None:
    allowed = {*_TYPES, *_MORE_TYPES.get(op.name, ())}
    for tensor in op.activations:
        if tensor.dtype not in allowed:
            return falls_back("type", f"works on {tensor.dtype}")
    return None


def _any(op: Op) -> Judgement | None:
    return None


def _one_input(op: Op) -> Judgement | None:
    computed = len(op.computed)
    if computed != 1 or len(op.outputs) != 1:
        return falls_back(
            "inputs",
            f"{computed} computed inputs and {len(op.outputs)} results; "
            "expected one of each",
        )
    return None


def _pair(op: Op) -> Judgement | None:
    computed = len(op.computed)
    if len(_shapes(op)) != 2 or len(op.inputs) != 2 or not computed:
        return falls_back("inputs", f"{len(op.inputs)} inputs, {computed} computed")
    return _activation(op)


def _activation(op: Op) -> Judgement | None:
    if op.options.get("activation") == "sign_bit":
        return falls_back("activation", "with a fused sign_bit")
    return None


def _shapes(op: Op) -> tuple[tuple[int, ...], ...]:
    return tuple(tensor.shape for tensor in op.inputs if tensor is not None)


def _add(op: Op) -> Judgement | None:
    return _pair(op) or _broadcast(op)


def _broadcast(op: Op) -> Judgement | None:
    left, right = _shapes(op)
    if len(left) <= 1 or len(right) <= 1 or len(left) == len(right):
        return None
    pairs = zip(reversed(left), reversed(right), strict=False)
    if all(a == b or 1 in (a, b) for a, b in pairs):
        return None
    return falls_back("broadcast", f"of {list(left)} and {list(right)}")


def _mul(op: Op) -> Judgement | None:
    if (found := _pair(op)) is not None:
        return found
    left, right = _shapes(op)
    if len(left) != len(right):
        return _broadcast(op)
    pairs = list(zip(left, right, strict=True))
    if any(a < b for a, b in pairs) and any(a > b for a, b in pairs):
        return falls_back(
            "broadcast", f"of {list(left)} and {list(right)}: neither covers the other"
        )
    return None


def _convolution(op: Op) -> Judgement | None:
    computed = len(op.computed)
    if computed > 2 or len(op.outputs) != 1:
        return falls_back("inputs", f"{computed} computed inputs")
    return _activation(op)


def _depthwise(op: Op) -> Judgement | None:
    if (found := _convolution(op)) is not None:
        return found
    source, multiplier = op.inputs[0], op.options["multiplier"]
    if source is not None and multiplier != 1 and source.shape[-1] != 1:
        return falls_back("multiplier", f"depth multiplier {multiplier}")
    return None


def _fully_connected(op: Op) -> Judgement | None:
    source, result = op.inputs[0], op.outputs[0]
    if op.options["weights_format"]:
        return falls_back("format", "shuffled weights")
    if source is None or source.is_constant:
        return falls_back("constant", "its input is constant")
    if op.options["keep_num_dims"] and len(source.shape) != len(result.shape):
        return falls_back("rank", "keeps its sides, but changes their number")
    return None


def _batch_matmul(op: Op) -> Judgement | None:
    left, right = op.input(0), op.input(1)
    if left is None or right is None or left.is_constant:
        return falls_back("constant", "its first matrix is constant")
    if right.is_constant and len(right.shape) != 2:
        return falls_back(
            "constant",
            f"its second matrix is constant and has {len(right.shape)} sides",
        )
    return None


def _cast(op: Op) -> Judgement | None:
    source, result = op.activations[0].dtype, op.outputs[0].dtype
    floats, numbers = ("float16", "float32"), ("float32", "int32")
    is_known = (
        (source == "bool" and result in floats)
        or (source in floats and result == "bool")
        or (source in numbers and result in numbers)
    )
    if not is_known:
        return falls_back("type", f"from {source} to {result}", _HINTS["CAST"])
    return None


def _block(op: Op) -> Judgement | None:
    if op.options["block_size"] <= 1:
        return falls_back("option", f"block size {op.options['block_size']}")
    return _one_input(op)


def _dequantize(op: Op) -> Judgement | None:
    source = op.input(0)
    if source is not None and source.dtype == "int16":
        return falls_back("type", "works on int16")
    return None


def _reduction(op: Op) -> Judgement | None:
    axes = op.input(1)
    if axes is None or not axes.is_constant or axes.dtype != "int32":
        return falls_back("constant", "its axes are not constant int32")
    return _one_input(op)


def _padding(op: Op) -> Judgement | None:
    if op.options.get("mode", 0) != 0:
        return falls_back("option", "mirrors with the edge itself")
    widths = op.input(1)
    if widths is None or tuple(widths.shape) not in ((3, 2), (4, 2)):
        return falls_back("shape", "pads other than 3 or 4 sides")
    return _one_input(op)


def _slice(op: Op) -> Judgement | None:
    source = op.inputs[0]
    if source is None or len(source.shape) not in (3, 4):
        return falls_back("rank", "of a tensor without 3 or 4 sides")
    return None


def _strided_slice(op: Op) -> Judgement | None:
    masks = ("ellipsis_mask", "new_axis_mask", "shrink_axis_mask")
    if any(op.options[mask] for mask in masks):
        return falls_back("mask", "changes the number of sides")
    return _slice(op)


def _resize(op: Op) -> Judgement | None:
    if op.options["align_corners"] and op.options["half_pixel"]:
        return falls_back("option", "aligned corners and half pixels at once")
    return _one_input(op)


def _softmax(op: Op) -> Judgement | None:
    if op.options["beta"] != 1:
        return falls_back("option", f"beta {op.options['beta']:g}")
    return None


def _gather(op: Op) -> Judgement | None:
    source, indices = op.input(0), op.input(1)
    if source is None or source.dtype == "int32":
        return falls_back("type", "gathers int32")
    if indices is None or indices.dtype != "int32" or len(indices.shape) != 1:
        return falls_back("rank", "its indices are not one list of int32")
    return None


def _one_hot(op: Op) -> Judgement | None:
    indices = op.input(0)
    if indices is None or indices.dtype != "int32":
        return falls_back("type", "its indices are not int32")
    if math.prod(_inner(indices)) > 1:
        return falls_back("rank", "indices along height or width")
    return None


def _inner(tensor: Tensor) -> tuple[int, ...]:
    sides = tensor.shape[:-1]
    return sides[1:] if len(tensor.shape) > 3 else sides


def _select(op: Op) -> Judgement | None:
    if len(op.inputs) != 3:
        return falls_back("inputs", f"{len(op.inputs)} inputs")
    for tensor in op.inputs[1:]:
        if tensor is None or tensor.dtype not in ("float16", "float32"):
            return falls_back("type", "chooses between other than floats")
        if tensor.num_elements != 1 and tensor.shape != op.outputs[0].shape:
            return falls_back("broadcast", "its choices have another shape")
    return None


def _add_n(op: Op) -> Judgement | None:
    if len(op.inputs) != 2:
        return falls_back("inputs", f"adds {len(op.inputs)} tensors; only two")
    return None


_RULES: Mapping[str, Callable[[Op], Judgement | None]] = {
    **dict.fromkeys(
        (
            "CONCATENATION",
            "LEAKY_RELU",
            "PACK",
            "PRELU",
            "RELU",
            "RELU6",
            "RELU_N1_TO_1",
            "SPLIT",
            "SPLIT_V",
        ),
        _any,
    ),
    **dict.fromkeys(
        (
            "ABS",
            "CEIL",
            "COS",
            "ELU",
            "EXP",
            "FLOOR",
            "GELU",
            "HARD_SWISH",
            "LOG",
            "LOGISTIC",
            "NEG",
            "QUANTIZE",
            "RESHAPE",
            "RSQRT",
            "SIGN",
            "SIN",
            "SQRT",
            "SQUARE",
            "TANH",
            "TILE",
            "TRANSPOSE",
        ),
        _one_input,
    ),
    **dict.fromkeys(
        (
            *_LOGICAL,
            "ATAN2",
            "DIV",
            "FLOOR_DIV",
            "FLOOR_MOD",
            "MAXIMUM",
            "MINIMUM",
            "POW",
            "SQUARED_DIFFERENCE",
            "SUB",
        ),
        _pair,
    ),
    "ADD": _add,
    "ADD_N": _add_n,
    "AVERAGE_POOL_2D": _one_input,
    "BATCH_MATMUL": _batch_matmul,
    "CAST": _cast,
    "CONV_2D": _convolution,
    "CUMSUM": _any,
    "DEPTHWISE_CONV_2D": _depthwise,
    "DEPTH_TO_SPACE": _block,
    "DEQUANTIZE": _dequantize,
    "FULLY_CONNECTED": _fully_connected,
    "GATHER": _gather,
    "MAX_POOL_2D": _one_input,
    "MEAN": _reduction,
    "MIRROR_PAD": _padding,
    "MUL": _mul,
    "ONE_HOT": _one_hot,
    "PAD": _padding,
    "PADV2": _padding,
    "REDUCE_MAX": _reduction,
    "REDUCE_MIN": _reduction,
    "REDUCE_PROD": _reduction,
    "RESIZE_BILINEAR": _resize,
    "RESIZE_NEAREST_NEIGHBOR": _one_input,
    "SELECT": _select,
    "SELECT_V2": _select,
    "SLICE": _slice,
    "SOFTMAX": _softmax,
    "SPACE_TO_DEPTH": _block,
    "STRIDED_SLICE": _strided_slice,
    "SUM": _reduction,
    "TRANSPOSE_CONV": _convolution,
}
# Besides floats and quantized numbers.
_MORE_TYPES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(_LOGICAL, ("bool",)),
    "CAST": ("bool", "int32"),
    "GATHER": ("int32",),
    "ONE_HOT": ("int32",),
    "SELECT": ("bool",),
    "SELECT_V2": ("bool",),
}
