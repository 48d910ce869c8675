"""From the heads of a Panoptic-DeepLab to the maps of the image, in C++."""

import ctypes
import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.errors import DeepLabEdgeError, UsageError
from deeplab2_edge.panoptic import Heads
from deeplab2_edge.runtime.heads import RawHead
from deeplab2_edge.runtime.native.library import (
    THREADS,
    check,
    head,
    load_core,
    settings_of,
)

if TYPE_CHECKING:
    from deeplab2_edge.model_file import ModelMetadata
    from deeplab2_edge.runtime.preprocess import Placement

# Quantizations that the core computes with; others become float32 before.
_SCALES = 1e-30, 1e30
_MAX_ZERO_POINT = 1 << 16

_SEGMENT = np.dtype(
    [("area", "i8"), ("id", "i4"), ("box", "i4", 4), ("score", "f4")], align=True
)
_CENTER = np.dtype([("yx", "i4", 2), ("score", "f4")])


@dataclass(frozen=True, eq=False)
class SegmentTable:
    """Lists the segments of an image by ascending id, without void.

    Attributes:
        ids: `[S]` int32, `class_id * label_divisor + number`.
        areas: `[S]` int64, in pixels of the image.
        boxes: `[S, 4]` int32: left, top, right, bottom; right and bottom lie outside.
        scores: `[S]` float64, 0 to 1, of the center of a thing; NaN for stuff.
    """

    ids: NDArray[np.int32]
    areas: NDArray[np.int64]
    boxes: NDArray[np.int32]
    scores: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class NativeResult:
    """Holds the panoptic segmentation of one image, at the image's own size.

    Attributes:
        panoptic: `[H, W]` int32, `class_id * label_divisor + number`.
        semantic: `[H, W]` int32, class ids before merging, never void.
        segments: What is in `panoptic`.
        centers_yx: `[N, 2]` int32, in canvas pixels, in raster order.
        center_scores: `[N]` float32.
    """

    panoptic: NDArray[np.int32]
    semantic: NDArray[np.int32]
    segments: SegmentTable
    centers_yx: NDArray[np.int32]
    center_scores: NDArray[np.float32]


@functools.cache
def is_available() -> bool:
    """Says whether the native library is there, and builds it if it can be.

    Never raises. The reason why not is logged, once.
    """
    try:
        load_core()
    except DeepLabEdgeError as error:
        logging.getLogger("deeplab2_edge").warning(
            "merging in Python, slower with the same result: %s",
            # Its words alone: a log that keeps the error keeps the frames that were
            # running, and with them a view of the interpreter's memory.
            str(error),
        )
        return False
    return True


def segment_panoptic(
    heads: Mapping[str, RawHead],
    placement: "Placement",
    metadata: "ModelMetadata",
    num_threads: int = 1,
) -> NativeResult:
    """Computes what `merge_heads` and then `build_result` compute, bit for bit.

    Args:
        heads: `[h, w, C]` semantic logits, `[h, w]` or `[h, w, 1]` center heatmap and
            `[h, w, 2]` offsets, by the names in `keys`.
        placement: Where the image lies on the canvas.
        metadata: Of the model: canvas, classes and how to merge.
        num_threads: How many threads work; the result does not depend on it.

    Raises:
        UsageError: If heads and settings do not fit, or as `load_core`.
        MemoryError: If there is not enough.
        MissingExtraError: As `load_core`.
    """
    settings = metadata.merge
    if settings is None:
        raise UsageError(f"{metadata.name}: a model without settings to merge")
    logits, heatmap, offsets = (
        _in_steps(heads[name])
        for name in (keys.SEMANTIC_LOGITS, keys.CENTER_HEATMAP, keys.OFFSET_MAP)
    )
    flat = heatmap.values
    Heads(
        logits.values,
        flat[..., 0] if flat.ndim == 3 and flat.shape[2] == 1 else flat,
        offsets.values,
    )
    result = _Segmentation()
    panoptic, semantic = (np.empty(placement.image_size, np.int32) for _ in range(2))
    result.panoptic, result.semantic = panoptic.ctypes.data, semantic.ctypes.data
    check(
        load_core().dle_segment_panoptic(
            THREADS.handle(num_threads),
            ctypes.byref(_described(keys.SEMANTIC_LOGITS, logits)),
            ctypes.byref(_described(keys.CENTER_HEATMAP, heatmap)),
            ctypes.byref(_described(keys.OFFSET_MAP, offsets)),
            ctypes.byref(settings_of(settings, logits.values.shape, metadata.canvas)),
            ctypes.byref(_Placement(*placement.image_size, *placement.resized_size)),
            ctypes.byref(result),
        )
    )
    segments = _copied(result.segments, result.num_segments, _SEGMENT)
    classes = segments["id"] // metadata.label_divisor
    segments = segments[classes < metadata.num_classes]
    scores = segments["score"].astype(np.float64).clip(0.0, 1.0)
    scores[~np.isin(classes[: scores.size], metadata.thing_ids)] = np.nan
    centers = _copied(result.centers, result.num_centers, _CENTER)
    return NativeResult(
        panoptic=panoptic,
        semantic=semantic,
        segments=SegmentTable(
            ids=segments["id"].copy(),
            areas=segments["area"].copy(),
            boxes=segments["box"].copy(),
            scores=scores,
        ),
        centers_yx=centers["yx"].copy(),
        center_scores=centers["score"].copy(),
    )


class _Placement(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_int32)
        for name in ("image_height", "image_width", "resized_height", "resized_width")
    )


class _Segmentation(ctypes.Structure):
    _fields_ = (
        ("panoptic", ctypes.c_void_p),
        ("semantic", ctypes.c_void_p),
        ("num_segments", ctypes.c_int32),
        ("num_centers", ctypes.c_int32),
        ("segments", ctypes.c_void_p),
        ("centers", ctypes.c_void_p),
    )


def _in_steps(given: RawHead) -> RawHead:
    """Gives a head in C order that the core can read."""
    is_float = given.values.dtype == np.float32 and not given.scale
    if not is_float and not (
        given.values.dtype.name in ("int8", "uint8", "int16")
        and _SCALES[0] < given.scale < _SCALES[1]
        and abs(given.zero_point) <= _MAX_ZERO_POINT
    ):
        given = RawHead(given.real().astype(np.float32, copy=False))
    return RawHead(
        np.ascontiguousarray(given.values), given.scale, int(given.zero_point)
    )


def _described(name: str, given: RawHead) -> Any:
    return head(name, given.values, given.scale, given.zero_point)


def _copied(address: int | None, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Copies a list of the core, which its next call overwrites."""
    if not count or not address:
        return np.empty(0, dtype)
    return np.frombuffer(ctypes.string_at(address, count * dtype.itemsize), dtype)
