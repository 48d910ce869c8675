"""Resizing with aligned corners, with the bits of `deeplab2_edge.panoptic`."""

from collections.abc import Callable
from typing import Any

import numpy as np

from deeplab2_edge.optional import require
from deeplab2_edge.panoptic.resize import source_positions

tf: Any = require("tensorflow", extra="train")


def resize_bilinear(x: Any, size: tuple[int, int]) -> Any:
    """Resizes an array bilinearly with aligned corners.

    Args:
        x: `[h, w, C]`, static sizes; computed in float32.
        size: (H, W) of the result.

    Returns:
        `[H, W, C]` float32.
    """
    source = tf.cast(x, tf.float32)
    for axis in range(2):
        if source.shape[axis] != size[axis]:
            lower, upper, weight = source_positions(source.shape[axis], size[axis])
            a, b = (tf.gather(source, i, axis=axis) for i in (lower, upper))
            source = a + (b - a) * weight.reshape([(-1, 1, 1), (1, -1, 1)][axis])
    return source


def map_rows(
    function: Callable[[Any], Any], x: Any, size: tuple[int, int], signature: Any
) -> Any:
    """Computes a function of every row of `resize_bilinear(x, size)`.

    For maps of many channels, which at full size would not fit into memory.

    Args:
        function: From a row `[W, C]` to tensors.
        x: `[h, w, C]`, static sizes; computed in float32.
        size: (H, W).
        signature: Types of what `function` gives, as in `tf.map_fn`.

    Returns:
        What `function` gives, stacked along a first axis of size H.
    """
    source = tf.cast(x, tf.float32)
    top, bottom, weight = source_positions(source.shape[0], size[0])

    def compute(row: Any) -> Any:
        above, below, share = row
        a, b = tf.gather(source, above), tf.gather(source, below)
        line = a + (b - a) * share
        return function(resize_bilinear(line[tf.newaxis], (1, size[1]))[0])

    rows = top.astype(np.int32), bottom.astype(np.int32), weight
    return tf.map_fn(compute, rows, fn_output_signature=signature)


def upsample_argmax(logits: Any, size: tuple[int, int]) -> Any:
    """Finds the best class per pixel of the resized logits, row by row.

    Args:
        logits: `[h, w, C]`, static sizes.
        size: (H, W) of the result.

    Returns:
        `[H, W]` int32 class ids; the lowest wins a tie.
    """
    return map_rows(
        lambda row: tf.argmax(row, axis=-1, output_type=tf.int32),
        logits,
        size,
        tf.TensorSpec([size[1]], tf.int32),
    )
