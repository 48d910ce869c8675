"""Gaussians at the centers of instances: what heads learn, and what trackers draw."""

from typing import Any

import numpy as np

from deeplab2_edge.optional import require
from deeplab2_edge.panoptic.motion import gaussian_window

tf: Any = require("tensorflow", extra="train")


def draw_centers(
    centers_yx: Any, shape: Any, sigma: float, *, is_drawn: Any = None
) -> Any:
    """Draws a Gaussian at every center; where they overlap, the larger value stays.

    A Gaussian ends at the border of a square window, at 25 pixels for sigma 8.

    Args:
        centers_yx: `[N, 2]` int32, inside the map. `N` may be 0.
        shape: Height and width of the map: two integers, or `[2]` int32.
        sigma: Standard deviation in pixels.
        is_drawn: `[N]` bool, which of the centers there are; None for all.

    Returns:
        `[H, W]` float32 in 0..1.

    Raises:
        UsageError: If sigma is not positive.
    """
    kernel = gaussian_window(sigma)
    side = len(kernel)
    # Windows are drawn on a canvas with a margin, so that none is cut by the border.
    margin_before, margin_after = round(3 * sigma + 1), round(3 * sigma + 2)
    height, width = (shape[axis] + (margin_before + margin_after) for axis in (0, 1))
    window_y, window_x = np.divmod(np.arange(side * side, dtype=np.int32), side)
    index = (centers_yx[:, :1] + window_y) * width + centers_yx[:, 1:] + window_x
    values = tf.tile(
        tf.constant(kernel.ravel())[tf.newaxis], [tf.shape(centers_yx)[0], 1]
    )
    if is_drawn is not None:
        values = tf.where(is_drawn[:, tf.newaxis], values, 0.0)
    heatmap = tf.tensor_scatter_nd_max(
        tf.zeros([height * width]),
        tf.reshape(index, [-1, 1]),
        tf.reshape(values, [-1]),
    )
    heatmap = tf.reshape(heatmap, [height, width])
    return tf.slice(heatmap, [margin_before, margin_before], shape)
