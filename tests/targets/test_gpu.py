"""What the GPU delegate takes, by rules."""

from typing import Any

import pytest

from deeplab2_edge.targets import check_graph
from tests.targets.one_op import (
    OpSpec,
    TensorSpec,
    constant,
    model,
    one_op,
    options,
    weights,
)

pytest.importorskip("ai_edge_litert.schema_py_generated")


def tensor(*shape: int, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(shape or (1, 8, 8, 4), dtype)


def matmul(left: TensorSpec, right: TensorSpec) -> bytes:
    made = options("BatchMatMulOptions")
    return one_op("BATCH_MATMUL", left, right, tensor(1, 8, 8, 6), options=made)


def resize(**made: bool) -> bytes:
    return one_op(
        "RESIZE_BILINEAR",
        tensor(),
        constant([15, 15]),
        tensor(1, 15, 15, 4),
        options=options("ResizeBilinearOptions", **made),
    )


def padding(sides: int) -> bytes:
    shape = (4,) * sides
    return one_op("PAD", tensor(*shape), constant([[0, 1]] * sides), tensor(*shape))


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (one_op("ADD", tensor(), tensor(), tensor()), ""),
        (one_op("ADD", *[tensor(dtype="int8")] * 3), ""),
        (one_op("ADD", *[tensor(dtype="int32")] * 3), "type"),
        (one_op("ADD", *[tensor(1, 2, 8, 8, 4)] * 3), "rank"),
        (one_op("ADD", tensor(), tensor(8, 4), tensor()), ""),
        (one_op("ADD", tensor(), tensor(3, 4), tensor()), "broadcast"),
        (one_op("MUL", tensor(1, 8, 1, 4), tensor(1, 1, 8, 4), tensor()), "broadcast"),
        (one_op("MUL", tensor(), tensor(1, 1, 1, 4), tensor()), ""),
        (one_op("HARD_SWISH", tensor(), tensor()), ""),
        (one_op("ARG_MAX", tensor(), constant(3), tensor(1, 8, 8)), "op"),
        (one_op("CAST", tensor(dtype="uint8"), tensor()), "type"),
        (one_op("CAST", tensor(dtype="int32"), tensor()), ""),
        (matmul(tensor(), tensor(1, 8, 4, 6)), ""),
        (matmul(tensor(), weights(4, 6, dtype="float32")), ""),
        (matmul(tensor(), weights(1, 1, 4, 6, dtype="float32")), "constant"),
        (matmul(weights(1, 8, 8, 4, dtype="float32"), tensor(1, 8, 4, 6)), "constant"),
        (resize(alignCorners=True), ""),
        (resize(halfPixelCenters=True), ""),
        (resize(alignCorners=True, halfPixelCenters=True), "option"),
        (padding(4), ""),
        (padding(2), "shape"),
        (
            one_op("MEAN", tensor(), TensorSpec([2], "int32"), tensor(1, 1, 1, 4)),
            "constant",
        ),
        (one_op("MEAN", tensor(), constant([1, 2]), tensor(1, 1, 1, 4)), ""),
    ],
)
def test_each_rule(content: bytes, rule: str) -> None:
    (judged,) = check_graph(content, "gpu").ops
    assert judged.judgement.rule == rule


def chain(*ops: tuple[str, Any, Any]) -> bytes:
    tensors = [ops[0][1], *(op[2] for op in ops)]
    specs = [OpSpec(name, [i], [i + 1]) for i, (name, _, _) in enumerate(ops)]
    return model(tensors, specs, [0], [len(ops)])


def test_ops_at_the_ends_do_not_divide_a_network() -> None:
    pixels, real = tensor(dtype="uint8"), tensor()
    check = check_graph(
        chain(("CAST", pixels, real), ("TANH", real, real), ("EXP", real, real)), "gpu"
    )
    assert len(check.findings) == 1 and check.inner_findings == () and check.is_clean
    assert check.notes == (
        "1 op at the ends of the graph fall back, which does not divide it",
    )
    check = check_graph(
        chain(("TANH", real, real), ("SHAPE", real, real), ("EXP", real, real)), "gpu"
    )
    assert len(check.inner_findings) == 1 and not check.is_clean
    assert "the GPU is entered up to 2 times" in check.notes
