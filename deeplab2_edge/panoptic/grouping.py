"""Grouping: every thing pixel joins the instance center it votes for."""

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import UsageError

# Votes compared with all centers at once; the few arrays of this length stay in cache.
_VOTES_PER_CHUNK = 16384


def group_pixels(
    centers_yx: NDArray[np.int32],
    offsets: NDArray[np.float32],
    thing_mask: NDArray[np.bool_],
) -> NDArray[np.int32]:
    """Gives every thing pixel the id of the instance center it votes for.

    A pixel at (y, x) with offset (dy, dx) votes for the point (y + dy, x + dx)
    and joins the nearest center. On a tie the center that comes first wins.

    Args:
        centers_yx: `[N, 2]`, in canvas pixels. `N` may be 0.
        offsets: `[H, W, 2]`, predicted (dy, dx) in canvas pixels.
        thing_mask: `[H, W]`, True where the semantic class is a thing.

    Returns:
        `[H, W]` instance ids: `n + 1` for `centers_yx[n]`, 0 on stuff and
        everywhere when there are no centers.

    Raises:
        UsageError: If the spatial sizes of `offsets` and `thing_mask` differ.

    Example:
        >>> offsets = np.zeros((1, 4, 2), np.float32)
        >>> things = np.array([[True, True, False, True]])
        >>> group_pixels(np.array([[0, 0], [0, 3]], np.int32), offsets, things)
        array([[1, 1, 0, 2]], dtype=int32)

    References:
        Cheng et al., Panoptic-DeepLab, CVPR 2020, arXiv:1911.10194. Memory here
        is O(H * W): the votes of all pixels for all centers are never stored.
    """
    if offsets.shape != (*thing_mask.shape, 2):
        raise UsageError(
            f"offsets have shape {offsets.shape}; expected {(*thing_mask.shape, 2)}, "
            "the shape of thing_mask with (dy, dx) last"
        )
    instance = np.zeros(thing_mask.shape, np.int32)
    if len(centers_yx):
        rows, columns = np.nonzero(thing_mask)
        votes_y = rows.astype(np.float32) + offsets[rows, columns, 0]
        votes_x = columns.astype(np.float32) + offsets[rows, columns, 1]
        instance[rows, columns] = nearest_center(votes_y, votes_x, centers_yx) + 1
    return instance


def nearest_center(
    votes_y: NDArray[np.float32],
    votes_x: NDArray[np.float32],
    centers_yx: NDArray[np.int32],
) -> NDArray[np.int32]:
    """Finds the nearest center of every vote.

    Distances are squared and summed in float32, y first; on a tie the first center
    wins, and so it does for a vote that is not a number.

    Args:
        votes_y: `[M]`, y coordinates in canvas pixels.
        votes_x: `[M]`, x coordinates in canvas pixels.
        centers_yx: `[N, 2]`, in canvas pixels, `N` at least 1.

    Returns:
        `[M]` indices into `centers_yx`.
    """
    nearest = np.zeros(votes_y.size, np.int32)
    centers = centers_yx.astype(np.float32)
    for start in range(0, votes_y.size, _VOTES_PER_CHUNK):
        chunk = slice(start, start + _VOTES_PER_CHUNK)
        y, x, winner = votes_y[chunk], votes_x[chunk], nearest[chunk]
        shortest = np.full(y.size, np.inf, np.float32)
        for index, (center_y, center_x) in enumerate(centers):
            distance = np.square(y - center_y)
            distance += np.square(x - center_x)
            winner[distance < shortest] = index
            np.minimum(shortest, distance, out=shortest)
    return nearest
