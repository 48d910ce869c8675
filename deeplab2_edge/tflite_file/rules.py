"""Which ops of TFLite are run, and what each may look like.

These are the ops that `deeplab2-edge convert` writes, over all families, forms and
modes. None has a state, reads a file or takes a value that is no tensor.
"""

from collections.abc import Mapping
from typing import NamedTuple

from deeplab2_edge.tflite_file import shapes
from deeplab2_edge.tflite_file.shapes import Rule

WHILE = "WHILE"
MERGE_OP = "DeepLabEdgePanopticMerge"
EDGE_TPU_OP = "edgetpu-custom-op"  # what edgetpu_compiler writes
CUSTOM_OPS = frozenset({MERGE_OP, EDGE_TPU_OP})
_MANY = 1 << 16


class OpRule(NamedTuple):
    """Says what an op may look like.

    Attributes:
        shapes: Gives the shapes of its outputs.
        inputs: The least and the most of them.
        options: Number of its table of options in the schema, which may be missing
            only if it says nothing; 0 if there is none.
        alike: Inputs with the type of the first output.
        has_defaults: Whether it may come without options.
    """

    shapes: Rule
    inputs: tuple[int, int] = (1, 1)
    options: int = 0
    alike: tuple[int, ...] = (0,)
    has_defaults: bool = False


def _unary(options: int = 0, *, alike: tuple[int, ...] = (0,)) -> OpRule:
    return OpRule(shapes.same, (1, 1), options, alike, has_defaults=True)


def _binary(options: int = 0, *, alike: tuple[int, ...] = (0, 1)) -> OpRule:
    return OpRule(shapes.broadcast, (2, 2), options, alike, options not in _FUSED)


# Additions and the like hold an activation in their options.
_FUSED = frozenset({11, 21, 28, 29})
_REDUCE = OpRule(shapes.reduce, (2, 2), 27)
_SEGMENTS = OpRule(shapes.segments, (3, 3), 121, has_defaults=True)

RULES: Mapping[str, OpRule] = {
    "ABS": _unary(78),
    "ADD": _binary(11),
    "ADD_N": OpRule(shapes.all_same, (1, _MANY), 82, has_defaults=True),
    "ARG_MAX": OpRule(shapes.arg_max, (2, 2), 40, ()),
    "AVERAGE_POOL_2D": OpRule(shapes.pool, (1, 1), 5),
    "BATCH_MATMUL": OpRule(shapes.matmul, (2, 2), 101),
    "CAST": _unary(37, alike=()),
    "CONCATENATION": OpRule(shapes.concatenation, (1, _MANY), 10),
    "CONV_2D": OpRule(shapes.convolution, (2, 3), 1),
    "DEPTHWISE_CONV_2D": OpRule(shapes.depthwise_convolution, (2, 3), 2),
    "DEQUANTIZE": _unary(38, alike=()),
    "DIV": _binary(29),
    "EQUAL": _binary(53, alike=()),
    "EXP": _unary(33),
    "FILL": OpRule(shapes.fill, (2, 2), 68, (1,), has_defaults=True),
    "FLOOR": _unary(),
    "FLOOR_DIV": _binary(65),
    "FLOOR_MOD": _binary(72),
    "FULLY_CONNECTED": OpRule(shapes.fully_connected, (2, 3), 8),
    "GATHER": OpRule(shapes.gather, (2, 2), 23),
    "GREATER": _binary(44, alike=()),
    "GREATER_EQUAL": _binary(45, alike=()),
    "HARD_SWISH": _unary(91),
    "L2_NORMALIZATION": _unary(12),
    "LESS": _binary(41, alike=()),
    "LESS_EQUAL": _binary(46, alike=()),
    "LOGICAL_AND": _binary(62),
    "LOGICAL_NOT": _unary(63),
    "LOGICAL_OR": _binary(60),
    "LOGISTIC": _unary(),
    "MAXIMUM": _binary(39),
    "MAX_POOL_2D": OpRule(shapes.pool, (1, 1), 5),
    "MEAN": _REDUCE,
    "MINIMUM": _binary(39),
    "MUL": _binary(21),
    "NEG": _unary(42),
    "NOT_EQUAL": _binary(54, alike=()),
    "PACK": OpRule(shapes.pack, (1, _MANY), 59),
    "PAD": OpRule(shapes.pad, (2, 2), 22, has_defaults=True),
    "QUANTIZE": _unary(89, alike=()),
    "REDUCE_ANY": _REDUCE,
    "REDUCE_MAX": _REDUCE,
    "REDUCE_MIN": _REDUCE,
    "RELU": _unary(),
    "RELU6": _unary(),
    "RESHAPE": OpRule(shapes.reshape, (1, 2), 17, has_defaults=True),
    "RESIZE_BILINEAR": OpRule(shapes.resize, (2, 2), 15),
    "RESIZE_NEAREST_NEIGHBOR": OpRule(shapes.resize, (2, 2), 74),
    "RSQRT": _unary(),
    "SELECT": OpRule(shapes.select, (3, 3), 47, (1, 2), has_defaults=True),
    "SELECT_V2": OpRule(shapes.broadcast, (3, 3), 98, (1, 2), has_defaults=True),
    "SLICE": OpRule(shapes.cut, (3, 3), 48, has_defaults=True),
    "SOFTMAX": _unary(9)._replace(has_defaults=False),
    "SPLIT": OpRule(shapes.split_evenly, (2, 2), 35, (1,)),
    "SPLIT_V": OpRule(shapes.split, (3, 3), 79),
    "SQRT": _unary(),
    "SQUARED_DIFFERENCE": _binary(76),
    "STRIDED_SLICE": OpRule(shapes.strided_cut, (4, 4), 32),
    "SUB": _binary(28),
    "SUM": _REDUCE,
    "TOPK_V2": OpRule(shapes.top_k, (2, 2), 34, has_defaults=True),
    "TRANSPOSE": OpRule(shapes.transpose, (2, 2), 26, has_defaults=True),
    "UNSORTED_SEGMENT_MAX": _SEGMENTS._replace(options=119),
    "UNSORTED_SEGMENT_MIN": _SEGMENTS._replace(options=120),
    "UNSORTED_SEGMENT_SUM": _SEGMENTS,
    WHILE: OpRule(shapes.unknown, (1, 64), 93, ()),
}
# Inputs that may be left out: biases.
OPTIONAL = {
    "CONV_2D": frozenset({2}),
    "DEPTHWISE_CONV_2D": frozenset({2}),
    "FULLY_CONNECTED": frozenset({2}),
}
NUM_OUTPUTS = {"TOPK_V2": 2}
ANY_NUMBER_OF_OUTPUTS = frozenset({"SPLIT", "SPLIT_V", WHILE})
# Inputs of indices and sizes. What they hold must be integers where it is constant.
