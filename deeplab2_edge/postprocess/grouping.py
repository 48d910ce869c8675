"""Grouping: every thing pixel joins the instance center it votes for."""

from typing import Any

from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="train")


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
    return tf.where(thing_mask & (num_centers > 0), nearest + 1, 0)


def nearest_center(
    votes_y: Any, votes_x: Any, centers_yx: Any, *, num_centers: Any
) -> Any:
    """Finds the nearest center of every vote, on a tie the first.

    One center after the other, so memory is that of the votes.

    Args:
        votes_y: float32 of any shape, y coordinates in canvas pixels.
        votes_x: As `votes_y`, x coordinates.
        centers_yx: `[K, 2]`, in canvas pixels.
        num_centers: How many of the centers there are.

    Returns:
        int32 indices into `centers_yx`, of the shape of the votes; 0 without centers.
    """
    centers = tf.cast(centers_yx, tf.float32)

    def step(index: Any, shortest: Any, winner: Any) -> Any:
        distance = tf.square(votes_y - centers[index, 0])
        distance += tf.square(votes_x - centers[index, 1])
        winner = tf.where(distance < shortest, index, winner)
        return index + 1, tf.minimum(shortest, distance), winner

    _, _, winner = tf.while_loop(
        lambda index, *_: index < num_centers,
        step,
        (
            tf.constant(0),
            tf.fill(votes_y.shape, tf.constant(float("inf"))),
            tf.zeros(votes_y.shape, tf.int32),
        ),
        maximum_iterations=centers_yx.shape[0],
    )
    return winner
