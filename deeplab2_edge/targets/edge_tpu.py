"""What the compiler of the Coral Edge TPU will make of a network.

The compiler is closed and runs on x86-64 alone. This is what its documentation and its
logs say, as rules. The first op it cannot take, in the order of execution, ends the one
partition it makes: that op and all behind it run on the CPU.

References:
    https://coral.ai/docs/edgetpu/models-intro: requirements, table of ops.
    https://coral.ai/docs/edgetpu/compiler: options, memory.
    https://github.com/google-coral/edgetpu/issues: 31 (sizes of resizing), 272 and 353
    (hard-swish), 342 and 356 (one partition), 433 (transposing), 490 and 659 (float
    input and output).
"""

import dataclasses
import math
import shlex
from collections.abc import Callable, Mapping
from pathlib import PurePath

from deeplab2_edge.config.sizes import fits_stride
from deeplab2_edge.targets.verdict import (
    MAPS,
    Check,
    JudgedOp,
    Judgement,
    Verdict,
    falls_back,
    judge,
    unknown,
)
from deeplab2_edge.tflite_file.graph import Graph, Op, Tensor, unique_constants

COMPILER_VERSION = "16.0.384591198"
CUSTOM_OP = "edgetpu-custom-op"  # the partition in a compiled file
# On the chip, for program, activations and parameters. Logs show 6 to 7 MiB of it for
# parameters; the rest of them is sent again for every image.
CACHE_BYTES = 8 << 20
USUAL_CACHE_BYTES = 6 << 20
_INTEGERS = ("int8", "uint8")

# Pixels after RESIZE_BILINEAR of a network of which the compiler took it, and of the
# same at four times the side, of which it did not (issue 31).
RESIZE_MAPS_PIXELS = 128 * 128
RESIZE_REFUSED_PIXELS = 512 * 512
_RESIZE_RATIO = 4
_SOFTMAX_ELEMENTS = 16_000
# No limit is published; DeepLabv3 of 513x513 pixels maps, with tensors of this size.
_LARGE_TENSOR_BYTES = 8 << 20

_RELU6_ADVICE = (
    "train a minimalistic MobileNetV3 (ReLU6), or convert with `--target edgetpu`, "
    "which writes hard-swish as ADD and MUL"
)
# The latest versions of ops in TensorFlow 2.5, of the time of the last compiler.
_VERSIONS: Mapping[str, int] = {
    "ADD": 4,
    "AVERAGE_POOL_2D": 3,
    "CONCATENATION": 3,
    "CONV_2D": 5,
    "DEPTHWISE_CONV_2D": 6,
    "FULLY_CONNECTED": 9,
    "LOGISTIC": 3,
    "MAX_POOL_2D": 3,
    "MEAN": 2,
    "MUL": 4,
    "PAD": 2,
    "QUANTIZE": 2,
    "RELU6": 2,
    "RESHAPE": 1,
    "RESIZE_BILINEAR": 3,
    "RESIZE_NEAREST_NEIGHBOR": 3,
    "SLICE": 3,
    "SOFTMAX": 3,
    "SPLIT": 4,
    "STRIDED_SLICE": 4,
    "SUB": 5,
    "TRANSPOSE": 5,
    "TRANSPOSE_CONV": 3,
}
_HINTS: Mapping[str, str] = {
    "ARG_MAX": "leave it to the host, as the last op",
    "BATCH_MATMUL": "attention does not map; choose a convolutional network",
    "CAST": "convert with `--quantize int8`: no cast is left",
    "HARD_SWISH": _RELU6_ADVICE,
    "SPACE_TO_BATCH_ND": "export dilated convolutions with their dilation",
    "BATCH_TO_SPACE_ND": "export dilated convolutions with their dilation",
}


def check_edge_tpu(graph: Graph) -> Check:
    """Predicts which ops of a network the Edge TPU takes."""
    ops = judge(graph, _judge)
    cut = next((j.op.index for j in ops if _cuts(j, ops, graph)), None)
    if cut is not None:
        ops = [_behind(j, cut) if j.op.index > cut else j for j in ops]
    doubt = next((j.op.index for j in ops if j.verdict is Verdict.UNKNOWN), None)
    if doubt is not None:
        ops = [_in_doubt(j, doubt) if j.op.index > doubt else j for j in ops]
    return Check("edgetpu", graph, tuple(ops), _notes(graph, ops), cut)


def compiler_command(path: str) -> str:
    """Writes the command of the vendor's compiler for a file.

    `-s` shows what became of each op; without `-a`, since several partitions are slower
    than one in all reports.
    """
    folder = str(PurePath(path).parent)
    return f"edgetpu_compiler -s -o {shlex.quote(folder)} {shlex.quote(path)}"


def compiled_path(path: str) -> str:
    """Returns the file that the compiler writes; its log has `.log` as its end."""
    return str(PurePath(path).with_suffix("")) + "_edgetpu.tflite"


def nearest_canvas(
    graph: Graph, *, output_stride: int = 32, limit: int = RESIZE_MAPS_PIXELS
) -> tuple[int, int] | None:
    """Finds the largest canvas of this shape at which every resize surely maps.

    Args:
        graph: A network whose first input is an image.
        output_stride: Sides become `k * output_stride + 1`.
        limit: Pixels that a resize may make.

    Returns:
        (height, width), None where the present canvas is no larger, or nothing fits.
    """
    image = graph.inputs[0].shape if graph.inputs else ()
    largest = max((_pixels(op.outputs[0]) for op in _resizes(graph)), default=0)
    if len(image) != 4 or largest <= limit:
        return None
    height, width = image[1:3]
    for steps in range((height - 1) // output_stride, 0, -1):
        smaller = steps * output_stride + 1
        scale = (smaller - 1) / (height - 1)
        across = round((width - 1) * scale / output_stride) * output_stride + 1
        share = (smaller / height) * (across / width)
        canvas = smaller, across
        if largest * share <= limit and fits_stride(canvas, output_stride):
            return canvas
    return None


def _judge(op: Op) -> Judgement:
    rule = _RULES.get(op.name)
    if op.is_custom and op.name == CUSTOM_OP:
        return MAPS
    if rule is None:
        kind = "a custom op" if op.is_custom else op.name
        return falls_back("op", f"{kind} is not supported", _HINTS.get(op.name, ""))
    return _judge_tensors(op) or rule(op) or _judge_version(op) or MAPS


def _judge_tensors(op: Op) -> Judgement | None:
    for tensor in op.activations:
        if tensor.is_dynamic:
            return falls_back("shape", f"{tensor.name} has no fixed shape")
        if tensor.dtype not in _INTEGERS:
            advice = "convert with `--quantize int8`, which has integers at both ends"
            if op.name not in ("QUANTIZE", "DEQUANTIZE"):
                advice = "convert with `--quantize int8`"
            return falls_back("type", f"works on {tensor.dtype}", advice)
        if tensor.num_scales != 1:
            return falls_back("type", f"{tensor.name} is not quantized")
        if math.prod(tensor.shape[:-3]) > 1:
            return falls_back(
                "rank",
                f"{_sides(tensor)}: only the three innermost sides may exceed 1",
            )
    for tensor in op.constants:
        if tensor.dtype not in (*_INTEGERS, "int32", "int64"):
            return falls_back(
                "type", f"its constant is {tensor.dtype}", "convert with int8 weights"
            )
    if op.name in _WITH_WEIGHTS and not all(
        tensor.is_constant for tensor in op.inputs[1:2] if tensor is not None
    ):
        return falls_back("constant", "its weights are computed, not constant")
    return None


def _judge_version(op: Op) -> Judgement | None:
    latest = _VERSIONS.get(op.name)
    if latest is not None and op.version > latest:
        return falls_back(
            "version", f"version {op.version}; the compiler knows up to {latest}"
        )
    return None


def _any(op: Op) -> Judgement | None:
    return None


def _no_activation(op: Op) -> Judgement | None:
    if (activation := op.options.get("activation", "none")) != "none":
        return falls_back("activation", f"with a fused {activation}")
    return None


def _concatenation(op: Op) -> Judgement | None:
    if (found := _no_activation(op)) is not None or not op.constants:
        return found
    is_padding = len(op.inputs) == 2 and not any(op.constants[0].data)
    if not is_padding:
        return falls_back(
            "constant", "joins a constant that is not zero, or more than one tensor"
        )
    return None


def _dilation(op: Op) -> Judgement | None:
    height, width = op.options["dilation_height"], op.options["dilation_width"]
    if height != width:
        return falls_back("dilation", f"dilations {height} and {width} differ")
    return None


def _fully_connected(op: Op) -> Judgement | None:
    if op.options["weights_format"]:
        return falls_back("format", "shuffled weights")
    if sum(side > 1 for side in op.outputs[0].shape) > 1:
        return falls_back(
            "rank", f"gives {_sides(op.outputs[0])}; only one side may exceed 1"
        )
    return None


def _axes(op: Op) -> tuple[int, ...] | None:
    """Returns constant axes of a reduction or padding, counted from the front."""
    tensor, source = op.input(1), op.input(0)
    if tensor is None or source is None or (values := tensor.integers()) is None:
        return None
    return tuple(value % max(len(source.shape), 1) for value in values)


def _reduction(op: Op) -> Judgement | None:
    source, axes = op.inputs[0], _axes(op)
    if source is None or axes is None:
        return falls_back("constant", "its axes are computed")
    if len(source.shape) == 4 and 0 in axes:
        return falls_back("batch", "reduces over the batch")
    if op.name == "MEAN" and len(source.shape) - 1 in axes and source.shape[-1] % 4:
        return falls_back(
            "channels", f"mean over {source.shape[-1]} channels, no multiple of 4"
        )
    return None


def _padding(op: Op) -> Judgement | None:
    tensor, source = op.input(1), op.input(0)
    values = tensor.integers() if tensor is not None else None
    if source is None or not values:
        return falls_back("constant", "its widths are computed")
    if len(source.shape) == 4 and any(values[:2]):
        return falls_back("batch", "pads the batch")
    return None


def _not_over_batch(op: Op) -> Judgement | None:
    axis = op.options.get("axis")
    if axis is None:  # of SPLIT: the first input
        first = op.inputs[0]
        values = first.integers() if first is not None else None
        axis = values[0] if values else None
    rank = len(op.outputs[0].shape)
    if axis is not None and rank == 4 and axis % rank == 0:
        return falls_back("batch", "works along the batch")
    return None


def _reshape(op: Op) -> Judgement | None:
    size = op.outputs[0].num_bytes
    if size > _LARGE_TENSOR_BYTES:
        return unknown("size", f"{size / 2**20:.1f} MiB; large tensors may not map")
    return None


def _resize(op: Op) -> Judgement | None:
    before, after = op.inputs[0], op.outputs[0]
    if before is None or len(before.shape) != 4 or len(after.shape) != 4:
        return falls_back("rank", "not an image")
    pixels, ratio = _pixels(after), _ratio(before, after)
    text = f"{before.shape[1]}x{before.shape[2]} to {after.shape[1]}x{after.shape[2]}"
    advice = "a smaller canvas, or leave it to the host"
    if pixels >= RESIZE_REFUSED_PIXELS:
        return falls_back("resize-size", f"{text}: refused at such sizes", advice)
    if pixels > RESIZE_MAPS_PIXELS:
        return unknown(
            "resize-size", f"{text}: known to map up to 128x128 pixels", advice
        )
    if ratio > _RESIZE_RATIO:
        return unknown(
            "resize-ratio",
            f"{text}: known to map up to {_RESIZE_RATIO} times the side",
            "convert with `--target edgetpu`, which spreads a single pixel by MUL",
        )
    return None


def _ratio(before: Tensor, after: Tensor) -> float:
    """Returns how much larger the side that grows most becomes."""
    pairs = zip(after.shape[1:3], before.shape[1:3], strict=True)
    # Corners lie on corners: 5 pixels become 9, 17, ...
    return max((large - 1) / max(small - 1, 1) for large, small in pairs)


def _softmax(op: Op) -> Judgement | None:
    source = op.outputs[0]
    if sum(side > 1 for side in source.shape) > 1:
        return falls_back("rank", f"{_sides(source)}: only one side may exceed 1")
    if source.num_elements > _SOFTMAX_ELEMENTS:
        return falls_back("size", f"{source.num_elements} elements; at most 16,000")
    return None


def _strided_slice(op: Op) -> Judgement | None:
    strides = op.input(3)
    values = strides.integers() if strides is not None else None
    if values is None or any(value != 1 for value in values):
        return falls_back("stride", "strides other than 1")
    if op.options["ellipsis_mask"] or op.options["new_axis_mask"]:
        return falls_back("mask", "with an ellipsis or a new axis")
    return None


def _transpose(op: Op) -> Judgement | None:
    return unknown("transpose", "often refused without a reason", "avoid it")


def _prelu(op: Op) -> Judgement | None:
    alpha = op.input(1)
    if alpha is None or sum(side > 1 for side in alpha.shape) > 1:
        return falls_back("rank", "its slopes differ within the image")
    return None


_WITH_WEIGHTS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
_RULES: Mapping[str, Callable[[Op], Judgement | None]] = {
    **dict.fromkeys(
        (
            "ADD",
            "EXPAND_DIMS",
            "L2_NORMALIZATION",
            "LOGISTIC",
            "MAXIMUM",
            "MINIMUM",
            "MUL",
            "RELU",
            "RELU6",
            "RELU_N1_TO_1",
            "RSQRT",
            "SLICE",
            "SPACE_TO_DEPTH",
            "SQUARED_DIFFERENCE",
            "SQUEEZE",
            "SUB",
            "TANH",
            "TRANSPOSE_CONV",
            "UNIDIRECTIONAL_SEQUENCE_LSTM",
        ),
        _any,
    ),
    "AVERAGE_POOL_2D": _no_activation,
    "MAX_POOL_2D": _no_activation,
    "CONCATENATION": _concatenation,
    "CONV_2D": _dilation,
    "DEPTHWISE_CONV_2D": _dilation,
    "FULLY_CONNECTED": _fully_connected,
    "MEAN": _reduction,
    "PACK": _not_over_batch,
    "PAD": _padding,
    "PRELU": _prelu,
    "QUANTIZE": _any,  # between integers: others are refused by their type
    "REDUCE_MAX": _reduction,
    "REDUCE_MIN": _reduction,
    "RESHAPE": _reshape,
    "RESIZE_BILINEAR": _resize,
    "RESIZE_NEAREST_NEIGHBOR": _resize,
    "SOFTMAX": _softmax,
    "SPLIT": _not_over_batch,
    "STRIDED_SLICE": _strided_slice,
    "SUM": _reduction,
    "TRANSPOSE": _transpose,
}
# Also taken, but not between floats and integers: those stay at the ends of the graph.
_AT_ENDS = ("QUANTIZE", "DEQUANTIZE", "CAST")


def _cuts(judged: JudgedOp, ops: list[JudgedOp], graph: Graph) -> bool:
    """Whether an op ends the partition; conversions at the ends of the graph do not."""
    if judged.verdict is not Verdict.FALLS_BACK:
        return False
    op = judged.op
    if op.name not in _AT_ENDS:
        return True
    is_first = all(
        other.verdict is Verdict.FALLS_BACK and other.op.name in _AT_ENDS
        for other in ops[: op.index]
    )
    ends = {id(tensor) for tensor in graph.outputs}
    return not is_first and not all(id(tensor) in ends for tensor in op.outputs)


def _behind(judged: JudgedOp, cut: int) -> JudgedOp:
    if judged.verdict is Verdict.FALLS_BACK:
        return judged
    judgement = Judgement(
        Verdict.BEHIND, "partition", f"behind op {cut}, where the partition ends"
    )
    return dataclasses.replace(judged, judgement=judgement)


def _in_doubt(judged: JudgedOp, doubt: int) -> JudgedOp:
    if judged.verdict is not Verdict.MAPS:
        return judged
    judgement = Judgement(Verdict.DEPENDS, "partition", f"if op {doubt} maps")
    return dataclasses.replace(judged, judgement=judgement)


def _notes(graph: Graph, ops: list[JudgedOp]) -> tuple[str, ...]:
    notes = []
    mapped = tuple(
        judged.op for judged in ops if judged.verdict in (Verdict.MAPS, Verdict.UNKNOWN)
    )
    parameters = parameter_bytes(mapped)
    text = f"parameters on the chip: {parameters / 2**20:.2f} MiB"
    if parameters > CACHE_BYTES:
        text += (
            f"; its memory is 8 MiB: at least {(parameters - CACHE_BYTES) / 2**20:.1f} "
            "MiB are sent again for every image"
        )
    elif parameters > USUAL_CACHE_BYTES:
        text += "; of 8 MiB, logs show 6 to 7 for parameters: some may be sent again"
    else:
        text += " of 8 MiB, cached"
    notes.append(text)
    largest = max(
        (tensor for op in mapped for tensor in op.activations),
        key=lambda tensor: tensor.num_bytes,
        default=None,
    )
    if largest is not None and largest.num_bytes > _LARGE_TENSOR_BYTES:
        notes.append(
            f"largest tensor {_sides(largest)}, {largest.num_bytes / 2**20:.1f} MiB; "
            "no limit is published, but large ones end in `Internal compiler error`: "
            "try a smaller canvas"
        )
    if graph.num_subgraphs > 1:
        notes.append("branches and loops are not supported")
    return tuple(notes)


def parameter_bytes(ops: tuple[Op, ...]) -> int:
    """Sums the constants that ops read, each once."""
    return sum(len(tensor.data) for tensor in unique_constants(ops))


def _resizes(graph: Graph) -> list[Op]:
    return [
        op
        for op in graph.ops
        if op.name.startswith("RESIZE_") and len(op.outputs[0].shape) == 4
    ]


def _pixels(tensor: Tensor) -> int:
    return math.prod(tensor.shape[1:3])


def _sides(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"
