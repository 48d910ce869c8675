"""Names of ops and types of the TFLite schema, and the options that `graph` reads.

References:
    tensorflow/compiler/mlir/lite/schema/schema.fbs, version 3 of the format. Fields and
    codes are only ever added to it.
"""

from collections.abc import Mapping
from typing import NamedTuple

CUSTOM = 32

# By code.
OPS = tuple(
    """
    ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE
    DEQUANTIZE EMBEDDING_LOOKUP FLOOR FULLY_CONNECTED HASHTABLE_LOOKUP
    L2_NORMALIZATION L2_POOL_2D LOCAL_RESPONSE_NORMALIZATION LOGISTIC LSH_PROJECTION
    LSTM MAX_POOL_2D MUL RELU RELU_N1_TO_1 RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX
    SPACE_TO_DEPTH SVDF TANH CONCAT_EMBEDDINGS SKIP_GRAM CALL CUSTOM
    EMBEDDING_LOOKUP_SPARSE PAD UNIDIRECTIONAL_SEQUENCE_RNN GATHER BATCH_TO_SPACE_ND
    SPACE_TO_BATCH_ND TRANSPOSE MEAN SUB DIV SQUEEZE UNIDIRECTIONAL_SEQUENCE_LSTM
    STRIDED_SLICE BIDIRECTIONAL_SEQUENCE_RNN EXP TOPK_V2 SPLIT LOG_SOFTMAX DELEGATE
    BIDIRECTIONAL_SEQUENCE_LSTM CAST PRELU MAXIMUM ARG_MAX MINIMUM LESS NEG PADV2
    GREATER GREATER_EQUAL LESS_EQUAL SELECT SLICE SIN TRANSPOSE_CONV SPARSE_TO_DENSE
    TILE EXPAND_DIMS EQUAL NOT_EQUAL LOG SUM SQRT RSQRT SHAPE POW ARG_MIN FAKE_QUANT
    REDUCE_PROD REDUCE_MAX PACK LOGICAL_OR ONE_HOT LOGICAL_AND LOGICAL_NOT UNPACK
    REDUCE_MIN FLOOR_DIV REDUCE_ANY SQUARE ZEROS_LIKE FILL FLOOR_MOD RANGE
    RESIZE_NEAREST_NEIGHBOR LEAKY_RELU SQUARED_DIFFERENCE MIRROR_PAD ABS SPLIT_V
    UNIQUE CEIL REVERSE_V2 ADD_N GATHER_ND COS WHERE RANK ELU REVERSE_SEQUENCE
    MATRIX_DIAG QUANTIZE MATRIX_SET_DIAG ROUND HARD_SWISH IF WHILE
    NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 SCATTER_ND SELECT_V2 DENSIFY
    SEGMENT_SUM BATCH_MATMUL PLACEHOLDER_FOR_GREATER_OP_CODES CUMSUM CALL_ONCE
    BROADCAST_TO RFFT2D CONV_3D IMAG REAL COMPLEX_ABS HASHTABLE HASHTABLE_FIND
    HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL CONV_3D_TRANSPOSE VAR_HANDLE
    READ_VARIABLE ASSIGN_VARIABLE BROADCAST_ARGS RANDOM_STANDARD_NORMAL BUCKETIZE
    RANDOM_UNIFORM MULTINOMIAL GELU DYNAMIC_UPDATE_SLICE RELU_0_TO_1
    UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_SUM ATAN2
    UNSORTED_SEGMENT_MIN SIGN BITCAST BITWISE_XOR RIGHT_SHIFT STABLEHLO_LOGISTIC
    STABLEHLO_ADD STABLEHLO_DIVIDE STABLEHLO_MULTIPLY STABLEHLO_MAXIMUM
    STABLEHLO_RESHAPE STABLEHLO_CLAMP STABLEHLO_CONCATENATE
    STABLEHLO_BROADCAST_IN_DIM STABLEHLO_CONVOLUTION STABLEHLO_SLICE
    STABLEHLO_CUSTOM_CALL STABLEHLO_REDUCE STABLEHLO_ABS STABLEHLO_AND
    STABLEHLO_COSINE STABLEHLO_EXPONENTIAL STABLEHLO_FLOOR STABLEHLO_LOG
    STABLEHLO_MINIMUM STABLEHLO_NEGATE STABLEHLO_OR STABLEHLO_POWER
    STABLEHLO_REMAINDER STABLEHLO_RSQRT STABLEHLO_SELECT STABLEHLO_SUBTRACT
    STABLEHLO_TANH STABLEHLO_SCATTER STABLEHLO_COMPARE STABLEHLO_CONVERT
    STABLEHLO_DYNAMIC_SLICE STABLEHLO_DYNAMIC_UPDATE_SLICE STABLEHLO_PAD
    STABLEHLO_IOTA STABLEHLO_DOT_GENERAL STABLEHLO_REDUCE_WINDOW STABLEHLO_SORT
    STABLEHLO_WHILE STABLEHLO_GATHER STABLEHLO_TRANSPOSE DILATE
    STABLEHLO_RNG_BIT_GENERATOR REDUCE_WINDOW STABLEHLO_COMPOSITE
    STABLEHLO_SHIFT_LEFT STABLEHLO_CBRT STABLEHLO_CASE
    """.split()
)
DTYPES = tuple(
    """
    float32 float16 int32 uint8 int64 string bool int16 complex64 int8 float64
    complex128 uint64 resource variant uint32 uint16 int4 bfloat16 int2 uint4
    float8_e4m3fn float8_e5m2
    """.split()
)
# Of one value; what is missing has 32.
BITS: Mapping[str, int] = {
    **dict.fromkeys(("int2",), 2),
    **dict.fromkeys(("int4", "uint4"), 4),
    **dict.fromkeys(("int8", "uint8", "bool", "float8_e4m3fn", "float8_e5m2"), 8),
    **dict.fromkeys(("int16", "uint16", "float16", "bfloat16"), 16),
    **dict.fromkeys(("int64", "uint64", "float64", "complex64"), 64),
}
ACTIVATIONS: Mapping[int, str] = {
    0: "none",
    1: "relu",
    2: "relu_n1_to_1",
    3: "relu6",
    4: "tanh",
    5: "sign_bit",
}
PADDINGS: Mapping[int, str] = {0: "same", 1: "valid"}


class Option(NamedTuple):
    """Is a field of an op's options; `kind` is its character in `struct`."""

    name: str
    field: int
    kind: str = "i"
    default: int = 0


class Options(NamedTuple):
    """Is the table of options of an op: its number among all tables, its fields."""

    kind: int
    fields: tuple[Option, ...] = ()


def _fused(kind: int) -> Options:
    return Options(kind, (Option("activation", 0, "b"),))


def _resize(kind: int, first: int) -> Options:
    return Options(
        kind,
        (Option("align_corners", first, "?"), Option("half_pixel", first + 1, "?")),
    )


def _strides(kind: int, *more: Option) -> Options:
    sides = Option("stride_width", 1), Option("stride_height", 2)
    return Options(kind, (Option("padding", 0, "b"), *sides, *more))


def _dilations(first: int) -> tuple[Option, Option]:
    return (
        Option("dilation_width", first, default=1),
        Option("dilation_height", first + 1, default=1),
    )


_POOL = _strides(
    5,
    Option("filter_width", 3),
    Option("filter_height", 4),
    Option("activation", 5, "b"),
)
_REDUCE = Options(27, (Option("keep_dims", 0, "?"),))

OPTIONS: Mapping[str, Options] = {
    "ADD": _fused(11),
    "ARG_MAX": Options(40, (Option("output_type", 0, "b"),)),
    "AVERAGE_POOL_2D": _POOL,
    "BATCH_MATMUL": Options(101, (Option("adj_x", 0, "?"), Option("adj_y", 1, "?"))),
    "CONCATENATION": Options(10, (Option("axis", 0), Option("activation", 1, "b"))),
    "CONV_2D": _strides(1, Option("activation", 3, "b"), *_dilations(4)),
    "DEPTHWISE_CONV_2D": _strides(
        2, Option("multiplier", 3), Option("activation", 4, "b"), *_dilations(5)
    ),
    "DEPTH_TO_SPACE": Options(94, (Option("block_size", 0),)),
    "DIV": _fused(29),
    "FULLY_CONNECTED": Options(
        8,
        (
            Option("activation", 0, "b"),
            Option("weights_format", 1, "b"),
            Option("keep_num_dims", 2, "?"),
        ),
    ),
    "GATHER": Options(23, (Option("axis", 0), Option("batch_dims", 1))),
    "L2_NORMALIZATION": _fused(12),
    "MAX_POOL_2D": _POOL,
    "MEAN": _REDUCE,
    "MIRROR_PAD": Options(77, (Option("mode", 0, "b"),)),
    "MUL": _fused(21),
    "PACK": Options(59, (Option("count", 0), Option("axis", 1))),
    "REDUCE_MAX": _REDUCE,
    "REDUCE_MIN": _REDUCE,
    "RESIZE_BILINEAR": _resize(15, 2),
    "RESIZE_NEAREST_NEIGHBOR": _resize(74, 0),
    "SOFTMAX": Options(9, (Option("beta", 0, "f"),)),
    "SPACE_TO_DEPTH": Options(19, (Option("block_size", 0),)),
    "STRIDED_SLICE": Options(
        32,
        (
            Option("begin_mask", 0),
            Option("end_mask", 1),
            Option("ellipsis_mask", 2),
            Option("new_axis_mask", 3),
            Option("shrink_axis_mask", 4),
        ),
    ),
    "SUB": _fused(28),
    "SUM": _REDUCE,
    "TRANSPOSE_CONV": _strides(49, Option("activation", 3, "b")),
    "UNPACK": Options(64, (Option("count", 0), Option("axis", 1))),
}
