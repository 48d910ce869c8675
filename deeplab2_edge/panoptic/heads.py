"""From the raw heads of a Panoptic-DeepLab network to panoptic maps."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import UsageError
from deeplab2_edge.panoptic.centers import find_centers
from deeplab2_edge.panoptic.grouping import nearest_center
from deeplab2_edge.panoptic.merging import (
    MergeSemantics,
    merge_semantic_and_instance,
)
from deeplab2_edge.panoptic.resize import (
    resize_bilinear,
    source_positions,
    upsample_argmax,
)

# Thing pixels whose logits are interpolated at once.
_PIXELS_PER_CHUNK = 16384


@dataclass(frozen=True, eq=False)
class Heads:
    """Holds what the network says about one image, at the stride of its decoder.

    Attributes:
        semantic_logits: `[h, w, C]` float32, or int8 as a quantized head gives them.
        center_heatmap: `[h, w]` float32, linear.
        offset_map: `[h, w, 2]` float32, (dy, dx) to the instance center in pixels of
            the heads.

    Raises:
        UsageError: On creation, if a shape does not fit the others.
    """

    semantic_logits: NDArray[np.float32] | NDArray[np.int8]
    center_heatmap: NDArray[np.float32]
    offset_map: NDArray[np.float32]

    def __post_init__(self) -> None:
        _check_heads(self.semantic_logits, self.center_heatmap, self.offset_map)


@dataclass(frozen=True)
class MergeSettings:
    """Says how heads become panoptic maps. Pixels are those of the canvas.

    Attributes:
        thing_ids: Classes that have instances.
        label_divisor: Panoptic ids are `class * label_divisor + number`.
        ignore_label: Void is `ignore_label * label_divisor`.
        center_score_threshold: Scores up to this are no centers.
        nms_kernel: Side of the window in which a center is the largest.
        keep_k_centers: Most centers of an image; 0 or less for no limit.
        stuff_area_limit: Smallest area of a stuff class.
        merge_plateaus: Whether adjacent equal centers are one. For heatmaps of
            integer heads, which have plateaus.

    Raises:
        UsageError: On creation, if a value is out of range.
    """

    thing_ids: tuple[int, ...]
    label_divisor: int
    ignore_label: int
    center_score_threshold: float = 0.1
    nms_kernel: int = 13
    keep_k_centers: int = 400
    stuff_area_limit: int = 0
    merge_plateaus: bool = False

    def __post_init__(self) -> None:
        # JSON has lists only.
        object.__setattr__(self, "thing_ids", tuple(int(c) for c in self.thing_ids))
        for name, smallest in (
            ("label_divisor", 2),
            ("ignore_label", 0),
            ("nms_kernel", 1),
            ("stuff_area_limit", 0),
        ):
            if getattr(self, name) < smallest:
                raise UsageError(
                    f"MergeSettings.{name} is {getattr(self, name)}; "
                    f"it must be at least {smallest}"
                )
        if min(self.thing_ids, default=0) < 0:
            raise UsageError(
                f"MergeSettings.thing_ids is {self.thing_ids}; ids must be 0 or more"
            )


@dataclass(frozen=True, eq=False)
class PanopticMaps:
    """Holds the panoptic segmentation of one canvas.

    Attributes:
        panoptic: `[H, W]` int32, `class * label_divisor + number`.
        semantic: `[H, W]` int32 class ids before merging; never void.
        instance: `[H, W]` int32, `n + 1` where the pixel joins `centers_yx[n]`, else 0.
            Not the numbers within `panoptic`.
        instance_scores: `[H, W]` float32, score of the center of the pixel, else 0.
        centers_yx: `[N, 2]` int32, in canvas pixels, in raster order.
        center_scores: `[N]` float32.
    """

    panoptic: NDArray[np.int32]
    semantic: NDArray[np.int32]
    instance: NDArray[np.int32]
    instance_scores: NDArray[np.float32]
    centers_yx: NDArray[np.int32]
    center_scores: NDArray[np.float32]


def merge_heads(
    semantic_logits: NDArray[np.float32] | NDArray[np.int8],
    center_heatmap: NDArray[np.float32],
    offset_map: NDArray[np.float32],
    *,
    canvas: tuple[int, int],
    settings: MergeSettings,
    merge_semantics: MergeSemantics = "tf",
) -> PanopticMaps:
    """Computes the panoptic segmentation of a canvas from the heads of the network.

    The heads are resized to the canvas with aligned corners; offsets grow by
    (H - 1) / (h - 1) and (W - 1) / (w - 1). Class scores are interpolated only where
    classes meet and offsets only on things, with the same result as on full maps.

    Args:
        semantic_logits: `[h, w, C]` float32, or int8 of a quantized head.
        center_heatmap: `[h, w]`.
        offset_map: `[h, w, 2]`, (dy, dx) in pixels of the heads.
        canvas: (H, W) of the network input.
        settings: How to merge.
        merge_semantics: Whose rules are followed where the published ones disagree;
            see `merge_semantic_and_instance`.

    Raises:
        UsageError: If the shapes of the heads do not fit each other.
    """
    _check_heads(semantic_logits, center_heatmap, offset_map)
    semantic = upsample_argmax(semantic_logits, canvas)
    centers_yx, center_scores = find_centers(
        resize_bilinear(center_heatmap, canvas),
        threshold=settings.center_score_threshold,
        nms_kernel=settings.nms_kernel,
        keep_k=settings.keep_k_centers,
        merge_plateaus=settings.merge_plateaus,
    )
    instance = np.zeros(canvas, np.int32)
    instance_scores = np.zeros(canvas, np.float32)
    if len(centers_yx):
        is_thing = np.isin(np.arange(semantic_logits.shape[-1]), settings.thing_ids)
        pixels = np.flatnonzero(is_thing[semantic])
        dy, dx = offsets_at(offset_map, canvas, pixels)
        rows, columns = np.divmod(pixels, canvas[1])
        nearest = nearest_center(
            rows.astype(np.float32) + dy, columns.astype(np.float32) + dx, centers_yx
        )
        instance.reshape(-1)[pixels] = nearest + 1
        instance_scores.reshape(-1)[pixels] = center_scores[nearest]
    panoptic = merge_semantic_and_instance(
        semantic,
        instance,
        thing_ids=settings.thing_ids,
        label_divisor=settings.label_divisor,
        stuff_area_limit=settings.stuff_area_limit,
        void_label=settings.ignore_label,
        merge_semantics=merge_semantics,
    )
    return PanopticMaps(
        panoptic=panoptic,
        semantic=semantic,
        instance=instance,
        instance_scores=instance_scores,
        centers_yx=centers_yx,
        center_scores=center_scores,
    )


def offsets_at(
    offset_map: NDArray[np.float32], canvas: tuple[int, int], pixels: NDArray[np.intp]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Gives the offsets of a few canvas pixels without resizing the whole map.

    Args:
        offset_map: `[h, w, 2]`, (dy, dx) in pixels of this map.
        canvas: (H, W) to which the map is resized; offsets grow with it.
        pixels: `[M]` raster indices into the canvas.

    Returns:
        `[M]` dy and `[M]` dx in canvas pixels.
    """
    height, width = offset_map.shape[:2]
    rows, columns = np.divmod(pixels, canvas[1])
    top, bottom, y_weight = (a[rows] for a in source_positions(height, canvas[0]))
    left, right, x_weight = (a[columns] for a in source_positions(width, canvas[1]))
    offsets = []
    for axis in range(2):
        growth = (canvas[axis] - 1) / max(offset_map.shape[axis] - 1, 1)
        plane = (offset_map[:, :, axis] * np.float32(growth)).reshape(-1)
        # The same float32 steps as resize_bilinear: along y, then along x.
        on_left = plane[top * width + left]
        on_left += (plane[bottom * width + left] - on_left) * y_weight
        on_right = plane[top * width + right]
        on_right += (plane[bottom * width + right] - on_right) * y_weight
        offsets.append(on_left + (on_right - on_left) * x_weight)
    return offsets[0], offsets[1]


def class_probabilities(
    semantic_logits: NDArray[np.float32],
    classes: NDArray[np.int32],
    *,
    thing_ids: Collection[int],
) -> NDArray[np.float32]:
    """Gives the probability of the class of each thing pixel.

    Logits are interpolated on things only, a few pixels at a time: the cost grows with
    the pixels of things times all classes.

    Args:
        semantic_logits: `[h, w, C]` float32; of int8 values the scale is not known.
        classes: `[H, W]` class of each canvas pixel.
        thing_ids: Classes that have instances.

    Returns:
        `[H, W]` float32: softmax over the resized logits at the class, 0 elsewhere.
    """
    height, width, channels = semantic_logits.shape
    is_thing = np.isin(classes, list(thing_ids))
    pixels = np.flatnonzero(is_thing)
    flat = semantic_logits.reshape(-1, channels)
    tops, bottoms, y_weights = source_positions(height, classes.shape[0])
    lefts, rights, x_weights = source_positions(width, classes.shape[1])
    result = np.zeros(classes.size, np.float32)
    for start in range(0, pixels.size, _PIXELS_PER_CHUNK):
        chunk = pixels[start : start + _PIXELS_PER_CHUNK]
        rows, columns = np.divmod(chunk, classes.shape[1])
        above, below = tops[rows] * width, bottoms[rows] * width
        left, right = lefts[columns], rights[columns]
        down, across = y_weights[rows, None], x_weights[columns, None]
        # The same float32 steps as resize_bilinear: along y, then along x.
        on_left = flat[above + left]
        on_left += (flat[below + left] - on_left) * down
        on_right = flat[above + right]
        on_right += (flat[below + right] - on_right) * down
        on_left += (on_right - on_left) * across
        on_left -= on_left.max(axis=-1, keepdims=True)
        np.exp(on_left, out=on_left)
        chosen = classes.reshape(-1)[chunk]
        result[chunk] = on_left[np.arange(chunk.size), chosen] / on_left.sum(axis=-1)
    return result.reshape(classes.shape)


def _check_heads(
    semantic_logits: NDArray[np.float32] | NDArray[np.int8],
    center_heatmap: NDArray[np.float32],
    offset_map: NDArray[np.float32],
) -> None:
    if semantic_logits.ndim != 3 or 0 in semantic_logits.shape:
        raise UsageError(
            f"semantic_logits has shape {semantic_logits.shape}; expected [h, w, C]"
        )
    size = semantic_logits.shape[:2]
    for name, head, expected in (
        ("center_heatmap", center_heatmap, size),
        ("offset_map", offset_map, (*size, 2)),
    ):
        if head.shape != expected:
            raise UsageError(
                f"{name} has shape {head.shape}; expected {expected} beside "
                f"semantic_logits of shape {semantic_logits.shape}"
            )
