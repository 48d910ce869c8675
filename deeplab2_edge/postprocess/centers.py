"""Instance centers: the local maxima of the center heatmap."""

from typing import Any

from deeplab2_edge.errors import UsageError
from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="train")


def find_centers(
    center_heatmap: Any, *, threshold: float, nms_kernel: int, keep_k: int
) -> tuple[Any, Any, Any]:
    """Finds the pixels that are the largest in their window of the heatmap.

    The rules are those of `deeplab2_edge.panoptic.find_centers`; plateaus stay.

    Args:
        center_heatmap: `[H, W]`, static sizes.
        threshold: Scores up to this are no centers.
        nms_kernel: Side of the window, in pixels.
        keep_k: Keep the best this many; above 0, since shapes are static.

    Returns:
        `[K, 2]` int32 centers (y, x) in raster order, -1 beyond the last; `[K]` their
        scores, 0 beyond the last; and how many there are. `K` is `keep_k`, or all
        pixels if they are fewer.

    Raises:
        UsageError: If `keep_k` or the kernel is below 1.
    """
    for name, value in (("keep_k", keep_k), ("nms_kernel", nms_kernel)):
        if value < 1:
            raise UsageError(f"{name} is {value}; it must be at least 1")
    height, width = center_heatmap.shape
    # As float32, and with "not above" so that NaN is no center.
    heat = tf.cast(center_heatmap, tf.float32)
    heat = tf.where(heat > max(threshold, 0.0), heat, 0.0)
    before = (nms_kernel - 1) // 2
    margins = [[before, nms_kernel - 1 - before]] * 2
    pooled = tf.nn.max_pool2d(
        tf.pad(heat, margins)[tf.newaxis, ..., tf.newaxis], nms_kernel, 1, "VALID"
    )
    peaks = tf.where(pooled[0, ..., 0] == heat, heat, 0.0)
    # Of equal scores top_k takes the first.
    scores, pixels = tf.math.top_k(tf.reshape(peaks, [-1]), min(keep_k, height * width))
    pixels = tf.where(scores > 0, pixels, height * width)
    in_raster_order = tf.argsort(pixels, stable=True)
    pixels, scores = (tf.gather(x, in_raster_order) for x in (pixels, scores))
    is_center = pixels < height * width
    centers_yx = tf.stack([pixels // width, pixels % width], axis=-1)
    return (
        tf.where(is_center[:, tf.newaxis], centers_yx, -1),
        scores,
        tf.reduce_sum(tf.cast(is_center, tf.int32)),
    )
