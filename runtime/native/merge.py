"""Panoptic merging in C++, called on NumPy arrays."""

import ctypes
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import UsageError
from deeplab2_edge.panoptic import Heads, MergeSettings, PanopticMaps
from deeplab2_edge.runtime.native.library import (
    THREADS,
    check,
    head,
    load_core,
    settings_of,
)


class _Maps(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_void_p)
        for name in (
            "panoptic",
            "semantic",
            "instance",
            "instance_scores",
            "centers_yx",
            "center_scores",
        )
    )


def merge_heads(
    semantic_logits: NDArray[np.float32] | NDArray[np.int8],
    center_heatmap: NDArray[np.float32],
    offset_map: NDArray[np.float32],
    *,
    canvas: tuple[int, int],
    settings: MergeSettings,
    quantization: Mapping[str, tuple[float, int]] | None = None,
    num_threads: int = 1,
    votes_from: int = 0,
) -> PanopticMaps:
    """Computes what `deeplab2_edge.panoptic.merge_heads` computes, bit for bit.

    Args:
        semantic_logits: `[h, w, C]` float32, int8, uint8 or int16.
        center_heatmap: `[h, w]`, likewise.
        offset_map: `[h, w, 2]`, likewise.
        canvas: (H, W) of the network input.
        settings: How to merge, with `keep_k_centers` above 0.
        quantization: Scale and zero point of heads of integers, by the names of the
            arguments; 1 and 0 where missing.
        num_threads: How many threads work; the result does not depend on it.
        votes_from: Columns to the left of a wider image of which this is a part: votes
            are rounded as there, though they are for centers of the canvas.

    Raises:
        UsageError: If shapes, types or settings do not fit, or as `load_core`.
        MemoryError: If there is not enough.
    """
    Heads(semantic_logits, center_heatmap, offset_map)  # type: ignore[arg-type]
    if settings.keep_k_centers < 1:
        raise UsageError(
            f"keep_k_centers is {settings.keep_k_centers}; it must be at least 1 here"
        )
    arrays = {
        "semantic_logits": np.ascontiguousarray(semantic_logits),
        "center_heatmap": np.ascontiguousarray(center_heatmap),
        "offset_map": np.ascontiguousarray(offset_map),
    }
    heads = [
        head(name, array, *(quantization or {}).get(name, (1.0, 0)))
        for name, array in arrays.items()
    ]
    count = settings.keep_k_centers
    maps: dict[str, NDArray[Any]] = {
        "panoptic": np.empty(canvas, np.int32),
        "semantic": np.empty(canvas, np.int32),
        "instance": np.empty(canvas, np.int32),
        "instance_scores": np.empty(canvas, np.float32),
        "centers_yx": np.empty((count, 2), np.int32),
        "center_scores": np.empty(count, np.float32),
    }
    check(
        load_core().dle_panoptic_merge(
            THREADS.handle(num_threads),
            *(ctypes.byref(each) for each in heads),
            ctypes.byref(
                settings_of(settings, semantic_logits.shape, canvas, votes_from)
            ),
            ctypes.byref(
                _Maps(**{name: array.ctypes.data for name, array in maps.items()})
            ),
        )
    )
    is_center = maps["centers_yx"][:, 0] >= 0
    for name in ("centers_yx", "center_scores"):
        maps[name] = maps[name][is_center]
    return PanopticMaps(**maps)
