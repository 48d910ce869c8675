"""Gaussians at the centers of instances."""

from typing import Any

import numpy as np

from deeplab2_edge.optional import require
from deeplab2_edge.panoptic import gaussian_window

tf = require("tensorflow", extra="train")


def draw_centers(centers_yx: Any, shape: Any, sigma: float) -> Any:
    """Draws a Gaussian at every center; where they overlap, the larger value stays.

    A Gaussian ends at the border of a square window, at 25 pixels for sigma 8.

    Args:
        centers_yx: `[N, 2]` int32, inside the map. `N` may be 0.
        shape: `[2]` int32, height and width of the map.
        sigma: Standard deviation in pixels.

    Returns:
        `[H, W]` float32 in 0..1.
    """
    kernel = gaussian_window(sigma)
    side = len(kernel)
    # Windows are drawn on a canvas with a margin, so that none is cut by the border.
    margin_before, margin_after = round(3 * sigma + 1), round(3 * sigma + 2)
    canvas = shape + (margin_before + margin_after)
    window_y, window_x = np.divmod(np.arange(side * side, dtype=np.int32), side)
    index = (centers_yx[:, :1] + window_y) * canvas[1] + centers_yx[:, 1:] + window_x
    heatmap = tf.tensor_scatter_nd_max(
        tf.zeros([canvas[0] * canvas[1]]),
        tf.reshape(index, [-1, 1]),
        tf.tile(tf.constant(kernel.ravel()), [tf.shape(centers_yx)[0]]),
    )
    heatmap = tf.reshape(heatmap, canvas)
    return tf.slice(heatmap, [margin_before, margin_before], shape)
