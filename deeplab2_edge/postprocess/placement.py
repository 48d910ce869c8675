"""Images of any size to the canvas of a model, and its maps back, as TensorFlow."""

from typing import Any

import numpy as np

from deeplab2_edge.model_file import ResizeRule
from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="train")

# As `runtime.preprocess`; what a network reads as 0.
_PADDING_VALUE = 128


def place_on_canvas(
    image: Any, canvas: tuple[int, int], rule: ResizeRule
) -> tuple[Any, Any]:
    """Resizes an image by the rule and pads it to the canvas.

    The rules are those of `deeplab2_edge.runtime.preprocess`, and so are the bits.

    Args:
        image: uint8 `[h, w, 3]`, of any size.
        canvas: (H, W) of the result.
        rule: The model's resize rule.

    Returns:
        uint8 `[H, W, 3]`, and `[2]` int32, the height and width of the image there.

    Raises:
        tf.errors.InvalidArgumentError: When run, if the rule does not fit the canvas.
    """
    size = _resized_size(tf.shape(image)[:2], canvas, rule)
    top, bottom, y_weight = _positions(tf.shape(image)[0], size[0])
    left, right, x_weight = _positions(tf.shape(image)[1], size[1])

    def on_row(rows: Any) -> Any:
        start, end = (
            tf.cast(tf.gather(tf.gather(image, rows), columns, axis=1), tf.float32)
            for columns in (left, right)
        )
        return (end - start) * x_weight[:, tf.newaxis] + start

    # Along x, then along y: the same float32 steps as in the runtime.
    upper, lower = on_row(top), on_row(bottom)
    resized = (lower - upper) * y_weight[:, tf.newaxis, tf.newaxis] + upper
    padded = tf.pad(
        tf.cast(resized + 0.5, tf.uint8),
        [[0, canvas[0] - size[0]], [0, canvas[1] - size[1]], [0, 0]],
        constant_values=tf.constant(_PADDING_VALUE, tf.uint8),
    )
    return tf.ensure_shape(padded, (*canvas, 3)), size


def undo(canvas_map: Any, size: Any, image_size: Any) -> Any:
    """Brings a map of the canvas to the size of the image, by nearest pixels.

    Args:
        canvas_map: `[H, W]`.
        size: `[2]` int32, of `place_on_canvas`.
        image_size: `[2]` int32, height and width of the image.
    """
    for axis in range(2):
        position = _scaled(size[axis], image_size[axis]) + 0.5
        nearest = tf.minimum(tf.cast(position, tf.int32), size[axis] - 1)
        canvas_map = tf.gather(canvas_map, nearest, axis=axis)
    return canvas_map


def undo_bilinear(canvas_map: Any, size: Any, image_size: Any) -> Any:
    """Brings a float32 map of the canvas to the size of the image; see `undo`."""
    for axis in range(2):
        lower, upper, weight = _positions(size[axis], image_size[axis])
        a, b = (tf.gather(canvas_map, i, axis=axis) for i in (lower, upper))
        weight = tf.reshape(weight, [(-1, 1), (1, -1)][axis])
        # Of the same size nothing is computed, and so it is here: all weights are 0.
        canvas_map = (b - a) * weight + a
    return canvas_map


def _resized_size(image_size: Any, canvas: tuple[int, int], rule: ResizeRule) -> Any:
    size = image_size
    if rule.min is not None:
        size = _scale(size, tf.reduce_max(_ratios(rule.min, size)))
    limit = rule.max or canvas
    if rule.factor:
        limit = (
            limit[0] - (limit[0] - 1) % rule.factor,
            limit[1] - (limit[1] - 1) % rule.factor,
        )
    ratio = tf.minimum(tf.reduce_min(_ratios(limit, size)), 1.0)
    size = _scale(size, ratio)
    if rule.factor:
        size += -(size - 1) % rule.factor
    with tf.control_dependencies(
        [
            tf.debugging.assert_less_equal(
                size, tf.constant(canvas), "the resize rule does not fit the canvas"
            )
        ]
    ):
        return tf.identity(size)


def _ratios(limit: tuple[int, int], size: Any) -> Any:
    return np.array(limit, np.float64) / tf.cast(size, tf.float64)


def _scale(size: Any, ratio: Any) -> Any:
    product = tf.cast(size, tf.float32) * tf.cast(ratio, tf.float32)
    return tf.maximum(tf.cast(tf.floor(product), tf.int32), 1)


def _positions(n_in: Any, n_out: Any) -> tuple[Any, Any, Any]:
    position = _scaled(n_in, n_out)
    lower = tf.minimum(tf.cast(position, tf.int32), n_in - 1)
    upper = tf.minimum(lower + 1, n_in - 1)
    return lower, upper, position - tf.cast(lower, tf.float32)


def _scaled(n_in: Any, n_out: Any) -> Any:
    scale = tf.cast(n_in - 1, tf.float32) / tf.cast(
        tf.maximum(n_out - 1, 1), tf.float32
    )
    return tf.cast(tf.range(n_out), tf.float32) * scale
