"""Grouping: every thing pixel joins the instance center it votes for."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import UsageError

# Side of the tiles by which votes are sorted, in pixels: few centers can be the nearest
# of a tile. Smaller tiles have fewer centers but cost more steps.
_TILE = 128


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
    # Votes may be infinite or not numbers; comparisons then keep the first center.
    with np.errstate(invalid="ignore", over="ignore"):
        for votes in _by_tile(votes_y, votes_x):
            y, x = votes_y[votes], votes_x[votes]
            winner = np.zeros(votes.size, np.int32)
            shortest = np.full(votes.size, np.inf, np.float32)
            for index in _candidates(y, x, centers):
                distance = np.square(y - centers[index, 0])
                distance += np.square(x - centers[index, 1])
                winner[distance < shortest] = index
                np.minimum(shortest, distance, out=shortest)
            nearest[votes] = winner
    return nearest


def _by_tile(
    y: NDArray[np.float32], x: NDArray[np.float32]
) -> Iterator[NDArray[np.intp]]:
    """Yields the indices of the votes in each tile; border tiles reach to infinity."""
    row, column = (
        np.clip(a * np.float32(1 / _TILE), 0, 255).astype(np.uint8) for a in (y, x)
    )
    tile = row.astype(np.uint16) << 8 | column
    order = np.argsort(tile, kind="stable")
    ends = np.flatnonzero(np.diff(tile[order])) + 1
    yield from np.split(order, ends) if order.size else ()


def _candidates(
    y: NDArray[np.float32], x: NDArray[np.float32], centers: NDArray[np.float32]
) -> NDArray[np.intp]:
    """Lists the centers that can be the nearest of one of the votes.

    A center cannot if even the nearest point of the box around the votes is farther
    from it than the farthest point of the box is from some other center.
    """
    low = np.array([y.min(), x.min()], np.float64)
    high = np.array([y.max(), x.max()], np.float64)
    to_low, to_high = low - centers, centers - high
    near = np.square(np.maximum(np.maximum(to_low, to_high), 0)).sum(axis=1)
    far = np.square(np.minimum(to_low, to_high)).sum(axis=1)
    # The margin is far above what rounding to float32 does to a squared distance.
    return np.flatnonzero(~(near > far.min() * 1.001 + 1))
