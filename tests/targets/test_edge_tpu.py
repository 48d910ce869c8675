"""Every rule of the Edge TPU, on both sides of its condition."""

from typing import Any

import pytest

from deeplab2_edge.targets import Check, Verdict, check_graph, read_graph
from deeplab2_edge.targets.edge_tpu import compiler_command, nearest_canvas
from tests.targets.one_op import (
    ACTIVATIONS,
    OpSpec,
    TensorSpec,
    constant,
    conv,
    model,
    one_op,
    options,
    weights,
)

pytest.importorskip("ai_edge_litert.schema_py_generated")

SIDES = (1, 8, 8, 4)


def tensor(*shape: int, dtype: str = "int8", **more: Any) -> TensorSpec:
    return TensorSpec(shape or SIDES, dtype, **more)


def rule_of(content: bytes) -> str:
    """Returns the rule that keeps the only op off the Edge TPU, "" if none does."""
    (judged,) = check_graph(content, "edgetpu").ops
    return judged.judgement.rule


def convolution(dilation: tuple[int, int] = (1, 1), version: int = 3) -> bytes:
    return one_op(
        "CONV_2D",
        tensor(),
        weights(4, 3, 3, 4),
        constant([0] * 4),
        tensor(),
        options=conv(dilation=dilation, activation="relu6"),
        version=version,
    )


def pool(activation: str) -> bytes:
    made = options("Pool2DOptions", fusedActivationFunction=ACTIVATIONS[activation])
    return one_op("AVERAGE_POOL_2D", tensor(), tensor(1, 7, 7, 4), options=made)


def concatenation(*inputs: TensorSpec, activation: str = "none") -> bytes:
    made = options(
        "ConcatenationOptions", axis=3, fusedActivationFunction=ACTIVATIONS[activation]
    )
    return one_op("CONCATENATION", *inputs, tensor(1, 8, 8, 8), options=made)


def mean(axes: list[int], channels: int = 4) -> bytes:
    shape = [1, 8, 8, channels]
    kept = [1 if i in axes else side for i, side in enumerate(shape)]
    made = options("ReducerOptions", keepDims=True)
    return one_op(
        "MEAN", tensor(*shape), constant(axes), tensor(*kept), options=made, version=2
    )


def resize(
    size: tuple[int, int], name: str = "RESIZE_BILINEAR", ratio: int = 2
) -> bytes:
    small = tuple((side + 1) // ratio for side in size)
    return one_op(
        name, tensor(1, *small, 4), constant(size), tensor(1, *size, 4), version=2
    )


def split(axis: int) -> bytes:
    result = tensor(1, 8, 8, 2)
    made = options("SplitOptions", numSplits=2)
    return one_op(
        "SPLIT", constant(axis), tensor(), result, result, options=made, num_outputs=2
    )


def strided_slice(stride: int, new_axis: int = 0) -> bytes:
    return one_op(
        "STRIDED_SLICE",
        tensor(),
        constant([0] * 4),
        constant([1, 4, 4, 4]),
        constant([1, stride, 1, 1]),
        tensor(1, 4, 4, 4),
        options=options("StridedSliceOptions", newAxisMask=new_axis),
    )


def softmax(*shape: int) -> bytes:
    made = options("SoftmaxOptions", beta=1.0)
    return one_op("SOFTMAX", tensor(*shape), tensor(*shape), options=made)


def fully_connected(rows: int, weights_format: int = 0) -> bytes:
    return one_op(
        "FULLY_CONNECTED",
        tensor(rows, 4),
        weights(6, 4),
        tensor(rows, 6),
        options=options("FullyConnectedOptions", weightsFormat=weights_format),
    )


def padding(batch: int) -> bytes:
    widths = constant([[batch, 0], [1, 1], [1, 1], [0, 0]])
    return one_op("PAD", tensor(), widths, tensor(1 + batch, 10, 10, 4))


def pack(axis: int) -> bytes:
    made = options("PackOptions", valuesCount=2, axis=axis)
    result = tensor(2, 1, 8, 8) if axis == 0 else tensor(1, 2, 8, 8)
    return one_op("PACK", tensor(1, 8, 8), tensor(1, 8, 8), result, options=made)


def quantize(source: str) -> bytes:
    return one_op("QUANTIZE", tensor(dtype=source), tensor())


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (one_op("ADD", tensor(), tensor(), tensor()), ""),
        (one_op("ADD", tensor(dtype="uint8"), tensor(), tensor()), ""),
        (one_op("ADD", *[tensor(dtype="float32")] * 3), "type"),
        (one_op("ADD", *[tensor(dtype="int16")] * 3), "type"),
        (one_op("ADD", tensor(scales=0), tensor(), tensor()), "type"),
        (one_op("ADD", tensor(is_dynamic=True), tensor(), tensor()), "shape"),
        (one_op("ADD", *[tensor(2, 8, 8, 4)] * 3), "rank"),
        (one_op("ADD", *[tensor(1, 1, 8, 8, 4)] * 3), ""),
        (one_op("ADD", *[tensor(1, 2, 8, 8, 4)] * 3), "rank"),
        (one_op("HARD_SWISH", tensor(), tensor()), "op"),
        (one_op("RELU6", tensor(), tensor()), ""),
        (one_op("LOGISTIC", tensor(), tensor()), ""),
        (convolution(), ""),
        (convolution(dilation=(2, 2)), ""),
        (convolution(dilation=(1, 2)), "dilation"),
        (convolution(version=5), ""),
        (convolution(version=6), "version"),
        (one_op("CONV_2D", *[tensor()] * 3, options=conv()), "constant"),
        (pool("none"), ""),
        (pool("relu"), "activation"),
        (concatenation(tensor(), tensor()), ""),
        (concatenation(tensor(), tensor(), activation="relu"), "activation"),
        (concatenation(tensor(), weights(1, 8, 8, 4)), "constant"),
        (concatenation(tensor(), constant([[[[0] * 4]]], "int8")), ""),
        (mean([1, 2]), ""),
        (mean([0]), "batch"),
        (mean([3], channels=8), ""),
        (mean([3], channels=6), "channels"),
        (resize((128, 128)), ""),
        (resize((129, 257)), "resize-size"),
        (resize((512, 512)), "resize-size"),
        (resize((33, 65), ratio=33), "resize-ratio"),
        (resize((16, 16), "RESIZE_NEAREST_NEIGHBOR"), ""),
        (split(3), ""),
        (split(0), "batch"),
        (strided_slice(1), ""),
        (strided_slice(2), "stride"),
        (strided_slice(1, new_axis=1), "mask"),
        (softmax(1, 100), ""),
        (softmax(8, 100), "rank"),
        (softmax(1, 16_001), "size"),
        (fully_connected(1), ""),
        (fully_connected(3), "rank"),
        (fully_connected(1, weights_format=1), "format"),
        (padding(0), ""),
        (padding(1), "rank"),
        (pack(1), ""),
        (pack(0), "rank"),
        (quantize("uint8"), ""),
        (quantize("float32"), "type"),
        (one_op("RESHAPE", tensor(), constant([1, 64, 4]), tensor(1, 64, 4)), ""),
        (one_op("BATCH_MATMUL", *[tensor()] * 3), "op"),
    ],
)
def test_each_rule(content: bytes, rule: str) -> None:
    assert rule_of(content) == rule


def test_what_only_the_compiler_knows_is_unknown() -> None:
    transpose = one_op(
        "TRANSPOSE", tensor(), constant([0, 2, 1, 3]), tensor(), version=2
    )
    for content in (transpose, resize((129, 257))):
        check = check_graph(content, "edgetpu")
        assert check.num_unknown == 1 and check.is_clean
        assert (check.mapped_share, check.possible_share) == (0.0, 1.0)
    assert check_graph(resize((512, 512)), "edgetpu").first_cut == 0


def chain(*names: str) -> Check:
    """Checks a chain of ops, each on a tensor of its own."""
    tensors = [tensor() for _ in range(len(names) + 1)]
    ops = []
    for index, name in enumerate(names):
        if name == "CONV_2D":
            tensors += [weights(4, 3, 3, 4)]
            inputs = [index, len(tensors) - 1]
            ops.append(OpSpec(name, inputs, [index + 1], conv(), version=3))
        else:
            ops.append(OpSpec(name, [index], [index + 1]))
        if name == "DEQUANTIZE":
            tensors[index + 1] = tensor(dtype="float32")
        if name == "QUANTIZE":
            tensors[index] = tensor(dtype="float32")
    return check_graph(model(tensors, ops, [0], [len(names)]), "edgetpu")


def test_everything_behind_the_first_cut_runs_on_the_cpu() -> None:
    check = chain("CONV_2D", "HARD_SWISH", "CONV_2D", "HARD_SWISH", "CONV_2D", "TANH")
    assert [judged.verdict.value for judged in check.ops] == [
        *("maps", "falls back", "behind the cut", "falls back"),
        *("behind the cut", "behind the cut"),
    ]
    assert check.first_cut == 1 and not check.is_clean
    assert check.mapped_share == pytest.approx(1 / 3)
    assert "behind op 1" in check.ops[2].judgement.reason
    assert [judged.op.index for judged in check.findings] == [1, 3]


def test_conversions_at_the_ends_cut_nothing() -> None:
    check = chain("QUANTIZE", "CONV_2D", "DEQUANTIZE")
    assert [judged.verdict for judged in check.ops] == [
        Verdict.FALLS_BACK,
        Verdict.MAPS,
        Verdict.FALLS_BACK,
    ]
    assert check.first_cut is None and check.is_clean and check.mapped_share == 1


def test_what_is_behind_an_op_of_unknown_fate_depends_on_it() -> None:
    tensors = [tensor() for _ in range(4)] + [constant([0, 2, 1, 3])]
    ops = [
        OpSpec("TANH", [0], [1]),
        OpSpec("TRANSPOSE", [1, 4], [2]),
        OpSpec("TANH", [2], [3]),
    ]
    check = check_graph(model(tensors, ops, [0], [3]), "edgetpu")
    assert [judged.verdict.value for judged in check.ops] == [
        *("maps", "unknown", "depends")
    ]
    assert check.ops[2].judgement.reason == "if op 1 maps"
    assert check.mapped_share == pytest.approx(1 / 3) and check.possible_share == 1
    assert len(check.findings) == 1 and check.is_clean


def test_parameters_are_measured_against_the_chip() -> None:
    def notes(outputs: int) -> str:
        content = one_op(
            "CONV_2D",
            tensor(1, 8, 8, 1024),
            weights(outputs, 1, 1, 1024),
            tensor(1, 8, 8, outputs),
            options=conv(),
        )
        return " ".join(check_graph(content, "edgetpu").notes)

    assert "1.00 MiB of 8 MiB, cached" in notes(1024)
    assert "some may be sent again" in notes(7 * 1024)
    assert "at least 2.0 MiB are sent again" in notes(10 * 1024)


def test_the_nearest_canvas_keeps_its_shape() -> None:
    tensors = [
        tensor(1, 513, 1025, 3),
        weights(4, 3, 3, 3),
        tensor(1, 65, 129, 4),
        constant([129, 257]),
        tensor(1, 129, 257, 4),
    ]
    ops = [
        OpSpec("CONV_2D", [0, 1], [2], conv()),
        OpSpec("RESIZE_BILINEAR", [2, 3], [4]),
    ]
    graph = read_graph(model(tensors, ops, [0], [4]))
    canvas = nearest_canvas(graph, output_stride=16)
    assert canvas == (353, 705)
    assert (352 // 4 + 1) * (704 // 4 + 1) <= 128 * 128
    assert nearest_canvas(graph, output_stride=16, limit=10**6) is None


def test_the_command_quotes_its_paths() -> None:
    assert compiler_command("my models/street.tflite") == (
        "edgetpu_compiler -s -o 'my models' 'my models/street.tflite'"
    )
