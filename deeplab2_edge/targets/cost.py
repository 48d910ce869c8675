"""Multiply-adds of TFLite ops."""

import math

from deeplab2_edge.tflite_file.graph import Op

_MATRIX_OPS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")


def multiply_adds(op: Op) -> int:
    """Counts the multiply-adds of an op; 0 for those without products of sums."""
    if not op.outputs:
        return 0
    output = op.outputs[0].num_elements
    if op.name == "BATCH_MATMUL":
        left = op.input(0)
        if left is None or len(left.shape) < 2:
            return 0
        return output * left.shape[-2 if op.options["adj_x"] else -1]
    if op.name not in _MATRIX_OPS:
        return 0
    kernel = op.input(1)
    if kernel is None or not kernel.shape:
        return 0
    if op.name == "TRANSPOSE_CONV":  # every input pixel meets the whole kernel
        pixels = op.input(2)
        if pixels is None or len(pixels.shape) != 4:
            return 0
        return math.prod(pixels.shape[:3]) * kernel.num_elements
    if op.name == "DEPTHWISE_CONV_2D":
        return output * math.prod(kernel.shape[1:3])
    return output * math.prod(kernel.shape[1:])
