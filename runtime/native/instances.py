"""Instances of maps listed, compared and renamed in C++, called on NumPy arrays.

The reference of each function is the one of its name in
`deeplab2_edge.panoptic.instances`; results have the same bits.
"""

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import UsageError
from deeplab2_edge.panoptic import instances as reference
from deeplab2_edge.panoptic.instances import (
    NUMPY_PASSES,
    InstanceTable,
    MapPasses,
)
from deeplab2_edge.runtime.native.core import is_available
from deeplab2_edge.runtime.native.library import load_core

_ID_TOO_LARGE = 4
# Instances listed at once; a map with more is read twice.
_CAPACITY = 1024
_INSTANCE = np.dtype(
    [
        ("area_px", np.int64),
        ("sum_y", np.int64),
        ("sum_x", np.int64),
        ("id", np.int32),
        ("extent_y", np.int32),
        ("extent_x", np.int32),
    ],
    align=True,
)


class _Map(ctypes.Structure):
    _fields_ = (
        ("ids", ctypes.c_void_p),
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("label_divisor", ctypes.c_int32),
    )


def list_instances(
    panoptic: NDArray[np.integer], *, label_divisor: int
) -> InstanceTable:
    """See `panoptic.instances.list_instances`.

    Raises:
        UsageError: If the map has another rank or no pixels, or as `load_core`.
        MemoryError: If there is not enough.
        MissingExtraError: As `load_core`.
    """
    ids, count = _int32(panoptic), ctypes.c_int32(_CAPACITY)
    found = np.empty(0, _INSTANCE)
    while count.value > len(found):
        found = np.empty(count.value, _INSTANCE)
        _call(
            load_core().dle_list_instances,
            _map(ids, label_divisor),
            len(found),
            _pointer(found),
            ctypes.byref(count),
        )
    found = found[: count.value]
    return InstanceTable(
        ids=found["id"].copy(),
        area_px=found["area_px"].copy(),
        sum_yx=np.stack([found["sum_y"], found["sum_x"]], axis=-1),
        extent_yx=np.stack([found["extent_y"], found["extent_x"]], axis=-1).astype(
            np.int64
        ),
    )


def instance_ids(
    panoptic: NDArray[np.integer], *, label_divisor: int
) -> NDArray[np.int32]:
    """See `panoptic.instances.instance_ids`; raises as `list_instances`."""
    return np.sort(list_instances(panoptic, label_divisor=label_divisor).ids)


def overlaps(
    first: NDArray[np.integer], second: NDArray[np.integer], *, label_divisor: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]:
    """See `panoptic.instances.overlaps`; raises as `list_instances`."""
    maps = _int32(first), _int32(second)
    ids, areas = [], []
    for ids_of_map in maps:
        table = list_instances(ids_of_map, label_divisor=label_divisor)
        order = np.argsort(table.ids)
        ids.append(table.ids[order])
        areas.append(table.area_px[order])
    intersection = np.zeros((len(ids[0]), len(ids[1])), np.int64)
    if intersection.size:
        _call(
            load_core().dle_count_overlaps,
            *(_map(ids_of_map, label_divisor) for ids_of_map in maps),
            *(
                arg
                for ascending in ids
                for arg in (_pointer(ascending), len(ascending))
            ),
            _pointer(intersection),
        )
    union = areas[0][:, None] + areas[1] - intersection
    return ids[0], ids[1], intersection / union


def rename(
    panoptic: NDArray[np.integer],
    old_ids: NDArray[np.integer],
    new_ids: NDArray[np.integer],
    *,
    label_divisor: int,
    new_divisor: int,
) -> NDArray[np.int32]:
    """See `panoptic.instances.rename`; raises as `list_instances` too."""
    ids, old, new = _int32(panoptic), _int32(old_ids), _int32(new_ids)
    renamed = np.empty(ids.shape, np.int32)
    code = load_core().dle_rename_instances(
        _map(ids, label_divisor),
        new_divisor,
        _pointer(old),
        _pointer(new),
        len(old),
        _pointer(renamed),
    )
    if code == _ID_TOO_LARGE:  # the reference says which
        return reference.rename(
            ids, old, new, label_divisor=label_divisor, new_divisor=new_divisor
        )
    _check(code)
    return renamed


NATIVE_PASSES = MapPasses(list_instances, instance_ids, overlaps, rename)


def map_passes() -> MapPasses:
    """Gives the passes of the native core, of NumPy where there is none."""
    return NATIVE_PASSES if is_available() else NUMPY_PASSES


def _int32(ids: NDArray[np.integer]) -> NDArray[np.int32]:
    return np.ascontiguousarray(ids, np.int32)


def _pointer(array: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _map(ids: NDArray[np.int32], label_divisor: int) -> Any:
    if ids.ndim != 2:
        raise UsageError(f"panoptic has shape {ids.shape}; expected [H, W]")
    return ctypes.byref(_Map(ids.ctypes.data, *ids.shape, label_divisor))


def _call(function: Callable[..., int], *arguments: Any) -> None:
    _check(function(*arguments))


def _check(code: int) -> None:
    if code == 2:
        raise MemoryError("native maps of instances: out of memory")
    if code:
        raise UsageError(
            f"native maps of instances: sizes or ids make no sense (error {code})"
        )
