"""What passes over whole maps of instances: listing, comparing and renaming them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.panoptic.encoding import change_divisor, decode_panoptic, relabel


@dataclass(frozen=True, eq=False)
class InstanceTable:
    """Lists the `N` instances of a map in the order of their first pixels.

    Attributes:
        ids: `[N]` int32 panoptic ids.
        area_px: `[N]` int64.
        sum_yx: `[N, 2]` int64, sums of the positions of their pixels.
        extent_yx: `[N, 2]` int64, from the first to the last row, and column.
    """

    ids: NDArray[np.int32]
    area_px: NDArray[np.int64]
    sum_yx: NDArray[np.int64]
    extent_yx: NDArray[np.int64]


def list_instances(
    panoptic: NDArray[np.integer], *, label_divisor: int
) -> InstanceTable:
    """Finds all instances of a map.

    Args:
        panoptic: `[H, W]` panoptic ids; those with instance 0 are no instances.
        label_divisor: The divisor the ids were made with.
    """
    _, instance = decode_panoptic(panoptic, label_divisor=label_divisor)
    pixels = np.flatnonzero(instance)
    ids, first, index = np.unique(
        panoptic.reshape(-1)[pixels], return_index=True, return_inverse=True
    )
    index = index.reshape(-1)
    order = np.argsort(first)
    sums, extents = [], []
    for places in np.divmod(pixels, panoptic.shape[1]):
        low = np.full(len(ids), max(panoptic.shape))
        high = np.zeros(len(ids), np.int64)
        np.minimum.at(low, index, places)
        np.maximum.at(high, index, places)
        extents.append((high - low)[order])
        # Sums of float64 are exact here.
        sums.append(np.bincount(index, weights=places, minlength=len(ids))[order])
    return InstanceTable(
        ids=ids[order].astype(np.int32),
        area_px=np.bincount(index, minlength=len(ids))[order].astype(np.int64),
        sum_yx=np.stack(sums, axis=-1).astype(np.int64),
        extent_yx=np.stack(extents, axis=-1).astype(np.int64),
    )


def instance_ids(
    panoptic: NDArray[np.integer], *, label_divisor: int
) -> NDArray[np.int32]:
    """Lists the panoptic ids with an instance, ascending.

    Args:
        panoptic: `[H, W]` panoptic ids.
        label_divisor: The divisor the ids were made with.
    """
    _, instance = decode_panoptic(panoptic, label_divisor=label_divisor)
    return np.unique(panoptic[instance > 0]).astype(np.int32)


def overlaps(
    first: NDArray[np.integer], second: NDArray[np.integer], *, label_divisor: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]:
    """Computes intersection over union of the instances of two maps.

    Args:
        first: `[H, W]` panoptic ids.
        second: `[H, W]` panoptic ids.
        label_divisor: The divisor the ids were made with.

    Returns:
        `[N]` and `[M]` ascending panoptic ids of the instances of each map, and
        `[N, M]` overlaps.
    """
    all_ids, indices, areas = [], [], []
    for panoptic in (first, second):
        ids = instance_ids(panoptic, label_divisor=label_divisor)
        # What is no instance is collected beyond the last.
        index = np.full(panoptic.size, len(ids), np.intp)
        pixels = np.flatnonzero(panoptic.reshape(-1) % label_divisor)
        index[pixels] = np.searchsorted(ids, panoptic.reshape(-1)[pixels])
        all_ids.append(ids)
        indices.append(index)
        areas.append(np.bincount(index, minlength=len(ids) + 1)[: len(ids)])
    columns = len(all_ids[1]) + 1
    intersection = np.bincount(
        indices[0] * columns + indices[1], minlength=(len(all_ids[0]) + 1) * columns
    ).reshape(-1, columns)[:-1, :-1]
    union = areas[0][:, None] + areas[1] - intersection
    return all_ids[0], all_ids[1], intersection / union


def rename(
    panoptic: NDArray[np.integer],
    old_ids: NDArray[np.integer],
    new_ids: NDArray[np.integer],
    *,
    label_divisor: int,
    new_divisor: int,
) -> NDArray[np.int32]:
    """Replaces ids, all at once, and encodes the others with another divisor.

    Args:
        panoptic: `[H, W]` panoptic ids.
        old_ids: `[N]`, each once.
        new_ids: `[N]` what they become, made with `new_divisor`.
        label_divisor: The divisor the ids were made with.
        new_divisor: Larger than every instance id of the map.

    Raises:
        UsageError: If an instance id does not fit below `new_divisor`.
    """
    divisors = {"label_divisor": label_divisor, "new_divisor": new_divisor}
    return relabel(
        change_divisor(panoptic, **divisors),
        change_divisor(old_ids, **divisors),
        new_ids,
    )


@dataclass(frozen=True)
class MapPasses:
    """Holds the functions of this file, for others with the same results to stand in.

    They are most of what tracking and stitching cost.
    """

    list_instances: Callable[..., InstanceTable] = list_instances
    instance_ids: Callable[..., NDArray[np.int32]] = instance_ids
    overlaps: Callable[
        ..., tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]
    ] = overlaps
    rename: Callable[..., NDArray[np.int32]] = rename


NUMPY_PASSES = MapPasses()
