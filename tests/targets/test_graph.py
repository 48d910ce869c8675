"""Networks read from TFLite files, whole and damaged."""

import random
from typing import Any

import numpy as np
import pytest

from deeplab2_edge.errors import ModelFileError
from deeplab2_edge.targets import read_graph
from deeplab2_edge.targets.cost import multiply_adds
from deeplab2_edge.tflite_file import schema
from tests.runtime.tiny_model import INT8_MODEL
from tests.targets.one_op import (
    OpSpec,
    TensorSpec,
    constant,
    conv,
    model,
    one_op,
    options,
    weights,
)

litert_schema: Any = pytest.importorskip("ai_edge_litert.schema_py_generated")

CONV = one_op(
    "CONV_2D",
    TensorSpec([1, 9, 9, 4], name="pixels"),
    weights(8, 3, 3, 4),
    constant([0] * 8),
    TensorSpec([1, 9, 9, 8]),
    options=conv(dilation=(2, 3), activation="relu6"),
    version=3,
)


def test_an_op_is_read_with_its_tensors_and_options() -> None:
    (op,) = read_graph(CONV).ops
    assert (op.name, op.version, op.is_custom) == ("CONV_2D", 3, False)
    pixels, kernel, _ = op.inputs
    assert pixels is not None and kernel is not None
    assert (pixels.name, pixels.shape, pixels.dtype) == ("pixels", (1, 9, 9, 4), "int8")
    assert (pixels.num_scales, pixels.is_constant) == (1, False)
    assert (kernel.is_constant, kernel.num_bytes) == (True, 8 * 9 * 4)
    assert op.options["activation"] == "relu6"
    assert (op.options["dilation_height"], op.options["dilation_width"]) == (2, 3)
    assert multiply_adds(op) == 9 * 9 * 8 * 9 * 4


def test_a_file_of_ours_is_read_before_its_archive() -> None:
    graph = read_graph(INT8_MODEL.read_bytes())
    assert sum(op.name == "CONV_2D" for op in graph.ops) == 4
    assert graph.inputs[0].shape == (1, 65, 129, 3)
    assert len(graph.outputs) == 3


def test_left_out_inputs_and_custom_ops_are_read() -> None:
    tensors = [TensorSpec([1, 4]), TensorSpec([1, 4])]
    content = model(tensors, [OpSpec("", [0, -1], [1], custom="merge")], [0], [1])
    (op,) = read_graph(content).ops
    assert (op.name, op.is_custom, op.inputs[1]) == ("merge", True, None)


def test_what_is_unpacked_of_constants_counts_as_constant() -> None:
    tensors = [
        TensorSpec([1, 8, 8, 4], "float32"),
        weights(6, 3, 3, 4, dtype="float16"),
        TensorSpec([6, 3, 3, 4], "float32"),
        TensorSpec([1, 8, 8, 6], "float32"),
    ]
    ops = [OpSpec("DEQUANTIZE", [1], [2]), OpSpec("CONV_2D", [0, 2], [3], conv())]
    unpack, convolution = read_graph(model(tensors, ops, [0], [3])).ops
    assert unpack.computed == () and len(convolution.computed) == 1


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("AVERAGE_POOL_2D", "Pool2DOptions"),
        ("BATCH_MATMUL", "BatchMatMulOptions"),
        ("DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions"),
        ("FULLY_CONNECTED", "FullyConnectedOptions"),
        ("MIRROR_PAD", "MirrorPadOptions"),
        ("PACK", "PackOptions"),
        ("RESIZE_BILINEAR", "ResizeBilinearOptions"),
        ("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions"),
        ("STRIDED_SLICE", "StridedSliceOptions"),
        ("TRANSPOSE_CONV", "TransposeConvOptions"),
    ],
)
def test_every_option_is_found_where_the_schema_has_it(name: str, table: str) -> None:
    """Sets the fields of an options table one by one, and looks which one changes."""
    empty = options(table)
    fields = [
        field for field, value in vars(empty).items() if isinstance(value, int | float)
    ]
    plain = read_one(name, empty)
    changed = set()
    for field in fields:
        setattr(
            empty, field, 2 if not isinstance(getattr(empty, field), bool) else True
        )
        found = read_one(name, empty)
        setattr(empty, field, getattr(options(table), field))
        changed |= {option for option in plain if found[option] != plain[option]}
    assert changed == set(plain)


def read_one(name: str, table: Any) -> dict[str, Any]:
    content = one_op(name, TensorSpec([1, 4]), TensorSpec([1, 4]), options=table)
    return dict(read_graph(content).ops[0].options)


def test_names_and_numbers_are_those_of_the_schema() -> None:
    ops = vars(litert_schema.BuiltinOperator)
    assert [ops[name] for name in schema.OPS] == list(range(len(schema.OPS)))
    dtypes = vars(litert_schema.TensorType)
    assert [dtypes[name.upper()] for name in schema.DTYPES] == list(
        range(len(schema.DTYPES))
    )
    kinds = {
        number: name for name, number in vars(litert_schema.BuiltinOptions).items()
    }
    for name, known in schema.OPTIONS.items():
        words = kinds[known.kind].removesuffix("Options").lower()
        assert words in {
            name.replace("_", "").lower(),
            *("pool2d", "reducer", "l2norm"),
        }, name


def test_every_damaged_byte_is_an_error_or_harmless() -> None:
    draw = random.Random(0)
    for _ in range(2000):
        content = bytearray(CONV)
        for _ in range(draw.choice((1, 2, 8))):
            content[draw.randrange(len(content))] = draw.choice((0, 255, 127, 128, 1))
        _read_or_refuse(bytes(content))


def test_every_cut_is_an_error_or_harmless() -> None:
    for length in range(len(CONV)):
        _read_or_refuse(CONV[:length])


def _read_or_refuse(content: bytes) -> None:
    try:
        graph = read_graph(content)
    except ModelFileError:
        return
    for op in graph.ops:
        multiply_adds(op)


def test_hostile_counts_are_refused_at_once() -> None:
    tensors = [TensorSpec([1, 4]), TensorSpec([1, 4])]
    many = OpSpec("ADD", [0] * 5000, [1])
    with pytest.raises(ModelFileError, match="its ops have over"):
        read_graph(model(tensors, [many] * 60, [0], [1]))
    with pytest.raises(ModelFileError, match="a tensor of shape"):
        read_graph(one_op("ADD", TensorSpec([-5, 4]), TensorSpec([1, 4])))
    with pytest.raises(ModelFileError, match="refers to tensor 9 of 2"):
        read_graph(model(tensors, [OpSpec("ADD", [9], [1])], [0], [1]))


def test_other_files_are_no_tflite() -> None:
    for content in (b"", b"hello", np.zeros(64, np.uint8).tobytes()):
        with pytest.raises(ModelFileError, match="not a TFLite file"):
            read_graph(content)
