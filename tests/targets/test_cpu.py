"""What XNNPACK takes: the rules beside the runtime itself."""

import collections
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from deeplab2_edge.stderr import hidden_stderr
from deeplab2_edge.targets import Verdict, check_graph
from tests.targets.one_op import (
    ACTIVATIONS,
    TensorSpec,
    constant,
    conv,
    one_op,
    options,
    weights,
)

litert: Any = pytest.importorskip("ai_edge_litert.interpreter")
version = pytest.importorskip("importlib.metadata").version("ai-edge-litert")

SHAPE = (1, 8, 8, 4)
TYPES = ("float32", "int8", "uint8")
UNARY = "EXP GELU HARD_SWISH LEAKY_RELU NEG RELU RELU6 RSQRT SQRT TANH".split()
BINARY = "ADD DIV MAXIMUM MINIMUM MUL SQUARED_DIFFERENCE SUB".split()
FUSED = {"ADD": "Add", "DIV": "Div", "MUL": "Mul", "SUB": "Sub"}


def tensor(dtype: str, *shape: int) -> TensorSpec:
    return TensorSpec(shape or SHAPE, dtype)


def bias(dtype: str) -> TensorSpec:
    kind = "float32" if dtype == "float32" else "int32"
    return TensorSpec([4], kind, np.zeros(4, kind), scales=int(kind == "int32"))


def unary(name: str) -> Callable[[str], bytes]:
    made = {
        "LEAKY_RELU": options("LeakyReluOptions", alpha=0.1),
        "GELU": options("GeluOptions"),
    }
    return lambda dtype: one_op(
        name,
        tensor(dtype),
        tensor(dtype),
        options=made.get(name),
        version=1 if name in ("HARD_SWISH", "EXP") else 2,
    )


def binary(name: str, activation: str = "none") -> Callable[[str], bytes]:
    def make(dtype: str) -> bytes:
        made = None
        if name in FUSED:
            fused = ACTIVATIONS[activation]
            made = options(f"{FUSED[name]}Options", fusedActivationFunction=fused)
        return one_op(
            name, tensor(dtype), weights(4, dtype=dtype), tensor(dtype), options=made
        )

    return make


def depthwise(dtype: str, kernel: str = "") -> bytes:
    return one_op(
        "DEPTHWISE_CONV_2D",
        tensor(dtype),
        weights(1, 3, 3, 4, dtype=kernel or dtype),
        bias(dtype),
        tensor(dtype),
        options=options(
            "DepthwiseConv2DOptions", strideH=1, strideW=1, depthMultiplier=1
        ),
        version=6 if kernel else 3,
    )


def concatenation(count: int) -> Callable[[str], bytes]:
    return lambda dtype: one_op(
        "CONCATENATION",
        *[tensor(dtype) for _ in range(count)],
        tensor(dtype, 1, 8, 8, 4 * count),
        options=options("ConcatenationOptions", axis=3),
    )


def strided_slice(stride: int) -> Callable[[str], bytes]:
    return lambda dtype: one_op(
        "STRIDED_SLICE",
        tensor(dtype),
        constant([0, 0, 0, 0]),
        constant([1, 4 * stride, 4, 4]),
        constant([1, stride, 1, 1]),
        tensor(dtype, 1, 4, 4, 4),
        options=options("StridedSliceOptions"),
    )


def pool(name: str) -> Callable[[str], bytes]:
    return lambda dtype: one_op(
        name,
        tensor(dtype),
        tensor(dtype, 1, 7, 7, 4),
        options=options(
            "Pool2DOptions",
            padding=1,
            strideH=1,
            strideW=1,
            filterHeight=2,
            filterWidth=2,
        ),
    )


CASES: dict[str, Callable[[str], bytes]] = {
    **{name: unary(name) for name in UNARY},
    **{name: binary(name) for name in BINARY},
    "ADD tanh": binary("ADD", "tanh"),
    "AVERAGE_POOL_2D": pool("AVERAGE_POOL_2D"),
    "MAX_POOL_2D": pool("MAX_POOL_2D"),
    "CONCATENATION 5": concatenation(5),
    "CONCATENATION 6": concatenation(6),
    "CONV_2D": lambda dtype: one_op(
        "CONV_2D",
        tensor(dtype),
        weights(4, 3, 3, 4, dtype=dtype),
        bias(dtype),
        tensor(dtype),
        options=conv(dilation=(2, 2), activation="relu6"),
    ),
    "CONV_2D computed": lambda dtype: one_op(
        "CONV_2D",
        tensor(dtype),
        tensor(dtype, 4, 3, 3, 4),
        bias(dtype),
        tensor(dtype),
        options=conv(),
    ),
    "DEPTHWISE_CONV_2D": depthwise,
    "MEAN": lambda dtype: one_op(
        "MEAN",
        tensor(dtype),
        constant([1, 2]),
        tensor(dtype, 1, 1, 1, 4),
        options=options("ReducerOptions", keepDims=True),
    ),
    "MEAN computed": lambda dtype: one_op(
        "MEAN",
        tensor(dtype),
        TensorSpec([2], "int32"),
        tensor(dtype, 1, 1, 1, 4),
        options=options("ReducerOptions", keepDims=True),
    ),
    "RESIZE_BILINEAR": lambda dtype: one_op(
        "RESIZE_BILINEAR",
        tensor(dtype),
        constant([15, 15]),
        tensor(dtype, 1, 15, 15, 4),
        options=options("ResizeBilinearOptions", alignCorners=True),
    ),
    "RESIZE_NEAREST_NEIGHBOR": lambda dtype: one_op(
        "RESIZE_NEAREST_NEIGHBOR",
        tensor(dtype),
        constant([15, 15]),
        tensor(dtype, 1, 15, 15, 4),
        options=options("ResizeNearestNeighborOptions", alignCorners=True),
    ),
    "STRIDED_SLICE 1": strided_slice(1),
    "STRIDED_SLICE 2": strided_slice(2),
    "TRANSPOSE": lambda dtype: one_op(
        "TRANSPOSE", tensor(dtype), constant([0, 3, 1, 2]), tensor(dtype, 1, 4, 8, 8)
    ),
}


def is_delegated(content: bytes) -> bool | None:
    """Asks the runtime; None if it has no such kernel at all."""
    try:
        with hidden_stderr():
            interpreter = litert.Interpreter(model_content=content, num_threads=1)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError):
        return None
    ops = collections.Counter(op["op_name"] for op in interpreter._get_ops_details())
    return ops["DELEGATE"] == 1


@pytest.mark.skipif(
    not version.startswith("2.3."), reason="the rules are those of LiteRT 2.3"
)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", CASES)
def test_rules_agree_with_the_runtime(name: str, dtype: str) -> None:
    content = CASES[name](dtype)
    taken = is_delegated(content)
    if taken is None:
        pytest.skip("the runtime has no such kernel")
    (judged,) = check_graph(content, "cpu").ops
    assert (judged.verdict is Verdict.MAPS) == taken, judged.judgement


def test_depthwise_convolutions_of_dynamic_range_fall_back() -> None:
    content = depthwise("float32", "int8")
    (judged,) = check_graph(content, "cpu").ops
    assert judged.judgement.reason == "float32 with int8 weights"
    assert is_delegated(content) is False


@pytest.mark.parametrize(
    ("source", "result", "is_taken"),
    [
        ("uint8", "int8", False),
        ("float32", "int8", True),
        ("int8", "int8", True),
    ],
)
def test_conversions(source: str, result: str, is_taken: bool) -> None:
    content = one_op("QUANTIZE", tensor(source), tensor(result))
    (judged,) = check_graph(content, "cpu").ops
    assert (judged.verdict is Verdict.MAPS) == is_taken == is_delegated(content)
