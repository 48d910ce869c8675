"""Grouping: every thing pixel joins the instance center it votes for."""

from typing import Any

import numpy as np

from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="train")

# A step of the loop hands whole maps on, so each step tries several centers.
_CENTERS_PER_STEP = 8
# Where centers are that are none: the squared distance to them is infinite.
_NOWHERE = np.float32(1e30)


def group_pixels(
    centers_yx: Any, offsets: Any, thing_mask: Any, *, num_centers: Any
) -> Any:
    """Gives every thing pixel the id of the instance center it votes for.

    The rules are those of `deeplab2_edge.panoptic.group_pixels`.

    Args:
        centers_yx: `[K, 2]`, in canvas pixels.
        offsets: `[H, W, 2]` float32, (dy, dx) in canvas pixels, static sizes.
        thing_mask: `[H, W]` bool.
        num_centers: How many of the centers there are.

    Returns:
        `[H, W]` int32 instance ids, 0 on stuff and everywhere without centers.
    """
    height, width = thing_mask.shape
    votes_y = tf.range(height, dtype=tf.float32)[:, tf.newaxis] + offsets[..., 0]
    votes_x = tf.range(width, dtype=tf.float32) + offsets[..., 1]
    nearest = nearest_center(votes_y, votes_x, centers_yx, num_centers=num_centers)
    is_grouped = tf.logical_and(thing_mask, num_centers > 0)
    return tf.where(is_grouped, nearest + 1, 0)


def nearest_center(
    votes_y: Any, votes_x: Any, centers_yx: Any, *, num_centers: Any
) -> Any:
    """Finds the nearest center of every vote, on a tie the first.

    A few centers at a time, so memory is that of the votes.

    Args:
        votes_y: float32 of any shape, y coordinates in canvas pixels.
        votes_x: As `votes_y`, x coordinates.
        centers_yx: `[K, 2]`, in canvas pixels; -1 beyond the last.
        num_centers: How many of the centers there are.

    Returns:
        int32 indices into `centers_yx`, of the shape of the votes; 0 without centers.
    """
    count = centers_yx.shape[0]
    centers = tf.where(centers_yx >= 0, tf.cast(centers_yx, tf.float32), _NOWHERE)
    centers = tf.pad(
        centers, [[0, -count % _CENTERS_PER_STEP], [0, 0]], constant_values=_NOWHERE
    )
    num_centers = tf.convert_to_tensor(num_centers)

    def step(start: Any, shortest: Any, winner: Any) -> Any:
        block = tf.slice(centers, [start, 0], [_CENTERS_PER_STEP, 2])
        for place in range(_CENTERS_PER_STEP):
            distance = tf.math.squared_difference(votes_y, block[place, 0])
            distance += tf.math.squared_difference(votes_x, block[place, 1])
            # As float32, exact here: kernels for devices select no integers.
            index = tf.cast(start + place, tf.float32)
            winner = tf.where(distance < shortest, index, winner)
            shortest = tf.minimum(shortest, distance)
        return start + _CENTERS_PER_STEP, shortest, winner

    # Computed, so that they do not become constants as large as a map.
    far, first = (
        tf.where(num_centers < 0, -1.0, tf.constant(value, tf.float32))
        for value in (np.inf, 0)
    )
    _, _, winner = tf.while_loop(
        lambda start, *_: start < num_centers,
        step,
        (
            tf.constant(0),
            tf.fill(votes_y.shape, far),
            tf.fill(votes_y.shape, first),
        ),
        maximum_iterations=-(-count // _CENTERS_PER_STEP),
    )
    return tf.cast(winner, tf.int32)
