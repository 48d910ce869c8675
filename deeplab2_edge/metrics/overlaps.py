"""How the segments of a true and a predicted panoptic map overlap.

Every panoptic metric is a function of this small table: it is counted once, in time
proportional to the pixels, and nothing after it looks at a pixel again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import DataError

# Ids up to this are looked up in a table; sorting larger ones costs less memory.
_MAX_TABLE_ID = 1 << 22


@dataclass(frozen=True)
class Overlaps:
    """Holds areas and common areas of segments; a segment is one panoptic id.

    Areas are pixels, or sums of weights where pixels were weighted.

    Attributes:
        true_ids: `[T]`, ascending.
        true_area: `[T]`.
        pred_ids: `[P]`, ascending.
        pred_area: `[P]`.
        true_at: `[N]` for every pair that overlaps its place in `true_ids`.
        pred_at: `[N]` its place in `pred_ids`.
        shared: `[N]` the common area.
    """

    true_ids: NDArray[np.int64]
    true_area: NDArray[Any]
    pred_ids: NDArray[np.int64]
    pred_area: NDArray[Any]
    true_at: NDArray[np.intp]
    pred_at: NDArray[np.intp]
    shared: NDArray[Any]


def count_overlaps(
    groundtruth: NDArray[np.integer],
    prediction: NDArray[np.integer],
    *,
    weights: NDArray[np.floating] | None = None,
) -> Overlaps:
    """Counts the pixels that segments of two maps share.

    Args:
        groundtruth: `[H, W]` panoptic ids.
        prediction: `[H, W]` panoptic ids.
        weights: `[H, W]` what a pixel counts; by default 1.

    Raises:
        DataError: If the shapes differ or a weight is negative or not finite.
    """
    _check_shape(prediction, groundtruth, "prediction")
    flat_weights = None
    if weights is not None:
        _check_shape(weights, groundtruth, "weights")
        flat_weights = weights.reshape(-1).astype(np.float64)
        if not np.isfinite(flat_weights).all() or (flat_weights < 0).any():
            raise DataError("weights of pixels must be finite and not negative")
    true_ids, true_index = number_ids(groundtruth)
    pred_ids, pred_index = number_ids(prediction)
    pairs, pair_index = number_ids(true_index * max(pred_ids.size, 1) + pred_index)
    shared = np.bincount(pair_index, flat_weights, minlength=pairs.size)
    true_at, pred_at = np.divmod(pairs, max(pred_ids.size, 1))
    return _with_areas(true_ids, pred_ids, true_at, pred_at, shared)


def join_overlaps(parts: Sequence[Overlaps]) -> Overlaps:
    """Joins the tables of several frames, as if the frames lay side by side.

    A segment with the same id in two frames becomes one segment.
    """
    if len(parts) == 1:
        return parts[0]
    true_ids, true_at = _joined([part.true_ids for part in parts])
    pred_ids, pred_at = _joined([part.pred_ids for part in parts])
    true_pairs = np.concatenate(
        [at[part.true_at] for at, part in zip(true_at, parts, strict=True)]
    )
    pred_pairs = np.concatenate(
        [at[part.pred_at] for at, part in zip(pred_at, parts, strict=True)]
    )
    pairs, index = np.unique(
        true_pairs * max(pred_ids.size, 1) + pred_pairs, return_inverse=True
    )
    shared = np.concatenate([part.shared for part in parts])
    total = np.zeros(pairs.size, shared.dtype)
    np.add.at(total, index.reshape(-1), shared)
    first, second = np.divmod(pairs, max(pred_ids.size, 1))
    return _with_areas(true_ids, pred_ids, first, second, total)


def number_ids(
    ids: NDArray[np.integer],
) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """Gives the distinct ids, ascending, and for every pixel the place of its id."""
    flat = ids.reshape(-1).astype(np.int64)
    if flat.size and not 0 <= flat.min() <= flat.max() <= _MAX_TABLE_ID:
        values, index = np.unique(flat, return_inverse=True)
        return values, index.reshape(-1)
    # 32-bit processors count what is as wide as their addresses, nothing wider.
    values = np.flatnonzero(np.bincount(flat.astype(np.intp, copy=False)))
    table = np.zeros(values[-1] + 1 if values.size else 0, np.intp)
    table[values] = np.arange(values.size)
    return values.astype(np.int64), table[flat]


def _with_areas(
    true_ids: NDArray[np.int64],
    pred_ids: NDArray[np.int64],
    true_at: NDArray[np.intp],
    pred_at: NDArray[np.intp],
    shared: NDArray[Any],
) -> Overlaps:
    true_area = np.zeros(true_ids.size, shared.dtype)
    pred_area = np.zeros(pred_ids.size, shared.dtype)
    np.add.at(true_area, true_at, shared)
    np.add.at(pred_area, pred_at, shared)
    return Overlaps(true_ids, true_area, pred_ids, pred_area, true_at, pred_at, shared)


def _joined(
    parts: Sequence[NDArray[np.int64]],
) -> tuple[NDArray[np.int64], list[NDArray[np.intp]]]:
    """Gives all ids of the parts, and for each part the places of its ids."""
    values = np.unique(np.concatenate(parts))
    return values, [np.searchsorted(values, part) for part in parts]


def _check_shape(array: NDArray[Any], groundtruth: NDArray[Any], name: str) -> None:
    if array.shape != groundtruth.shape:
        raise DataError(
            f"panoptic {name} has shape {array.shape}; expected "
            f"{groundtruth.shape}, the shape of the ground truth"
        )
