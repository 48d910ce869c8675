"""Instance centers: the local maxima of the center heatmap."""

from typing import Any

import numpy as np

from deeplab2_edge.errors import UsageError
from deeplab2_edge.optional import require
from deeplab2_edge.postprocess.raster import number_pixels

tf: Any = require("tensorflow", extra="train")

# Loops of a file must end. A plateau of this many turns is a labyrinth.
_MOST_ROUNDS = 1024


def find_centers(
    center_heatmap: Any,
    *,
    threshold: float,
    nms_kernel: int,
    keep_k: int,
    merge_plateaus: bool = False,
) -> tuple[Any, Any, Any]:
    """Finds the pixels that are the largest in their window of the heatmap.

    The rules are those of `deeplab2_edge.panoptic.find_centers`.

    Args:
        center_heatmap: `[H, W]`, static sizes, at most 2^24 pixels.
        threshold: Scores up to this are no centers.
        nms_kernel: Side of the window, in pixels.
        keep_k: Keep the best this many; above 0, since shapes are static.
        merge_plateaus: Whether a plateau gives one center. Only with a kernel of 3 or
            more, so that adjacent centers are equal.

    Returns:
        `[K, 2]` int32 centers (y, x) in raster order, -1 beyond the last; `[K]` their
        scores, 0 beyond the last; and how many there are. `K` is `keep_k`, or all
        pixels if they are fewer.

    Raises:
        UsageError: If `keep_k` or the kernel is too small.
    """
    for name, value, smallest, where in (
        ("keep_k", keep_k, 1, "a graph"),
        ("nms_kernel", nms_kernel, 1, "a graph"),
        ("nms_kernel", nms_kernel, 3 * merge_plateaus, "a graph that merges plateaus"),
    ):
        if value < smallest:
            raise UsageError(
                f"{name} is {value}; it must be at least {smallest} in {where}"
            )
    height, width = center_heatmap.shape
    num_pixels = height * width
    # As float32, and with "not above" so that NaN is no center.
    heat = tf.cast(center_heatmap, tf.float32)
    floor = max(np.float32(threshold), np.float32(0))
    heat = tf.where(heat > floor, heat, 0.0)
    is_center = tf.logical_and(
        tf.equal(_largest_around(heat, nms_kernel), heat), heat > 0.0
    )
    if merge_plateaus:
        is_center = _first_of_each_plateau(is_center)
    peaks = tf.where(is_center, heat, 0.0)
    # Of equal scores top_k takes the first.
    count = min(keep_k, num_pixels)
    scores, pixels = tf.math.top_k(tf.reshape(peaks, [-1]), count)
    # In raster order; what is no center comes last.
    place = tf.where(scores > 0.0, tf.cast(pixels, tf.float32), float(num_pixels))
    backwards, order = tf.math.top_k(-place, count)
    scores = tf.gather(scores, order)
    is_listed = scores > 0.0
    pixels = tf.cast(-backwards, tf.int32)
    centers_yx = tf.stack([pixels // width, pixels % width], axis=-1)
    return (
        tf.where(is_listed[:, tf.newaxis], centers_yx, -1),
        scores,
        tf.reduce_sum(tf.cast(is_listed, tf.int32)),
    )


def _largest_around(x: Any, kernel: int) -> Any:
    """Finds the largest value in the window of each pixel, `[H, W]`.

    Along one axis, then along the other: the same, and less work. Padding is below all
    values, which are 0 or more.
    """
    largest = x[tf.newaxis, ..., tf.newaxis]
    for window in ((kernel, 1), (1, kernel)):
        largest = tf.nn.max_pool2d(largest, window, 1, "SAME")
    return tf.reshape(largest, x.shape)


def _first_of_each_plateau(is_center: Any) -> Any:
    """Keeps of each group of adjacent centers the first in raster order.

    Every center takes the best label around it, then the label of the pixel that this
    label names, until nothing changes. The rounds for a plain plateau grow with the
    logarithm of its diameter.
    """
    num_pixels = float(is_center.shape[0] * is_center.shape[1])
    mask = tf.cast(is_center, tf.float32)
    # The first pixel has the largest label; float32 counts exactly up to 2^24.
    own = number_pixels(is_center.shape, tf.minimum(mask[0, 0], 0.0))
    own = (num_pixels - own) * mask

    def spread(labels: Any, _: Any) -> Any:
        around = _largest_around(labels, 3) * mask
        # Where there is no center the label 0 names no pixel; any will do.
        named = tf.cast(tf.minimum(num_pixels - around, num_pixels - 1), tf.int32)
        further = tf.gather(tf.reshape(around, [-1]), named) * mask
        return further, tf.reduce_max(further - labels) > 0.0

    labels, _ = tf.while_loop(
        lambda _, has_changed: has_changed,
        spread,
        (own, tf.reduce_max(mask) >= 0.0),
        maximum_iterations=_MOST_ROUNDS,
    )
    return tf.logical_and(is_center, tf.equal(labels, own))
