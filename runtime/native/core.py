"""From the heads of a Panoptic-DeepLab to the maps of the image, in C++."""

import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.errors import DeepLabEdgeError, UsageError
from deeplab2_edge.panoptic import resize_nearest
from deeplab2_edge.runtime.heads import RawHead
from deeplab2_edge.runtime.native.merge import load_core, merge_heads

if TYPE_CHECKING:
    from deeplab2_edge.model_file import ModelMetadata
    from deeplab2_edge.runtime.preprocess import Placement


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
            "merging in Python, slower with the same result: %s", error
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
        np.asarray(heads[name].real(), np.float32)
        for name in (keys.SEMANTIC_LOGITS, keys.CENTER_HEATMAP, keys.OFFSET_MAP)
    )
    if heatmap.ndim == 3 and heatmap.shape[2] == 1:
        heatmap = heatmap[..., 0]
    maps = merge_heads(
        logits, heatmap, offsets, canvas=metadata.canvas, settings=settings
    )
    height, width = placement.resized_size

    def undo(a: NDArray[Any]) -> NDArray[Any]:
        return resize_nearest(a[:height, :width], placement.image_size)

    panoptic, scores = undo(maps.panoptic), undo(maps.instance_scores)
    ids = np.unique(panoptic)
    classes = ids // metadata.label_divisor
    ids = ids[(classes != metadata.ignore_label) & (classes < metadata.num_classes)]
    areas, boxes, means = [], [], []
    for i in ids.tolist():
        rows, columns = np.nonzero(panoptic == i)
        areas.append(rows.size)
        boxes.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
        is_thing = i // metadata.label_divisor in metadata.thing_ids
        score = float(scores[rows[0], columns[0]])
        means.append(min(max(score, 0.0), 1.0) if is_thing else np.nan)
    return NativeResult(
        panoptic=panoptic,
        semantic=undo(maps.semantic),
        segments=SegmentTable(
            ids.astype(np.int32),
            np.array(areas, np.int64),
            np.array(boxes, np.int32).reshape(-1, 4),
            np.array(means, np.float64),
        ),
        centers_yx=maps.centers_yx,
        center_scores=maps.center_scores,
    )
