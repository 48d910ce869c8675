"""ViP-DeepLab: two frames as one image."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from deeplab2_edge import keys
from deeplab2_edge.optional import require
from deeplab2_edge.panoptic.heads import MergeSettings
from deeplab2_edge.panoptic.merging import MergeSemantics
from deeplab2_edge.postprocess.centers import find_centers
from deeplab2_edge.postprocess.grouping import nearest_center
from deeplab2_edge.postprocess.heads import merge_heads, resize_offsets
from deeplab2_edge.postprocess.merging import merge_semantic_and_instance
from deeplab2_edge.postprocess.resize import resize_bilinear, upsample_argmax
from deeplab2_edge.postprocess.segments import find_instances, relabel

tf: Any = require("tensorflow", extra="train")


def merge_two_frames(
    current: Mapping[str, Any],
    next_offset_map: Any,
    next_frame: Mapping[str, Any],
    *,
    canvas: tuple[int, int],
    settings: MergeSettings,
    merge_semantics: MergeSemantics = "tf",
    id_offset: int | None = None,
) -> dict[str, Any]:
    """Computes panoptic maps of two frames that share instance ids.

    The rules are those of `deeplab2_edge.panoptic.merge_two_frames`.

    Args:
        current: Heads of the frame by the names of `keys`: `semantic_logits`
            `[h, w, C]`, `center_heatmap` `[h, w]`, `offset_map` `[h, w, 2]`.
        next_offset_map: `[h, w, 2]`, (dy, dx) from pixels of the next frame to centers
            of the current one, in pixels of the heads.
        next_frame: Heads of the next frame, from a pass with the frames swapped.
        canvas: (H, W) of the network input.
        settings: As for `merge_heads`.
        merge_semantics: Whose rules are followed where the published ones disagree.
        id_offset: See `stitch`.

    Returns:
        `panoptic`, `concat_next`, `next_before_stitching` and `next_panoptic`, each
        `[H, W]` int32.
    """
    height, width = canvas
    semantic = tf.concat(
        [
            upsample_argmax(heads[keys.SEMANTIC_LOGITS], canvas)
            for heads in (current, next_frame)
        ],
        axis=1,
    )
    centers_yx, _, num_centers = find_centers(
        resize_bilinear(current[keys.CENTER_HEATMAP][..., tf.newaxis], canvas)[..., 0],
        threshold=settings.center_score_threshold,
        nms_kernel=settings.nms_kernel,
        keep_k=settings.keep_k_centers,
    )
    now, later = (
        resize_offsets(offsets, canvas)
        for offsets in (current[keys.OFFSET_MAP], next_offset_map)
    )
    # In the published order of float32 steps, so that votes have equal bits.
    later = later - tf.constant([0.0, width])
    offsets = tf.concat([now, later], axis=1)
    num_classes = current[keys.SEMANTIC_LOGITS].shape[-1]
    is_thing = np.isin(np.arange(num_classes), settings.thing_ids)
    nearest = nearest_center(
        tf.range(height, dtype=tf.float32)[:, tf.newaxis] + offsets[..., 0],
        tf.range(2 * width, dtype=tf.float32) + offsets[..., 1],
        centers_yx,
        num_centers=num_centers,
    )
    is_grouped = tf.gather(is_thing, semantic) & (num_centers > 0)
    panoptic = merge_semantic_and_instance(
        semantic,
        tf.where(is_grouped, nearest + 1, 0),
        thing_ids=settings.thing_ids,
        label_divisor=settings.label_divisor,
        stuff_area_limit=settings.stuff_area_limit,
        void_label=settings.ignore_label,
        merge_semantics=merge_semantics,
        num_classes=num_classes,
        max_instances=centers_yx.shape[0],
    )
    alone = merge_heads(
        next_frame[keys.SEMANTIC_LOGITS],
        next_frame[keys.CENTER_HEATMAP],
        next_frame[keys.OFFSET_MAP],
        canvas=canvas,
        settings=settings,
        merge_semantics=merge_semantics,
    )["panoptic"]
    concat_next = panoptic[:, width:]
    return {
        "panoptic": panoptic[:, :width],
        "concat_next": concat_next,
        "next_before_stitching": alone,
        "next_panoptic": stitch(
            concat_next,
            alone,
            thing_ids=settings.thing_ids,
            label_divisor=settings.label_divisor,
            id_offset=id_offset,
            # The operator's rules also make an instance of what has no center.
            max_instances=centers_yx.shape[0] + 1,
        ),
    }


def stitch(
    concat_next: Any,
    next_panoptic: Any,
    *,
    thing_ids: Collection[int],
    label_divisor: int,
    id_offset: int | None = None,
    max_instances: int,
) -> Any:
    """Gives the instances of a frame the ids of another view of the same frame.

    The rules are those of `deeplab2_edge.panoptic.stitch`, but for ids that are taken:
    instances of `concat_next` must have ids of at most `id_offset`.

    Args:
        concat_next: `[H, W]` int32 panoptic ids to take.
        next_panoptic: `[H, W]` int32 panoptic ids of the same frame.
        thing_ids: Classes that have instances.
        label_divisor: The divisor the ids were made with.
        id_offset: Half of the divisor if None.
        max_instances: Most instances of a view.

    Returns:
        `[H, W]` int32.

    Raises:
        tf.errors.InvalidArgumentError: When run, if ids do not fit below the divisor;
            compilers for accelerators leave this check out.
    """
    offset = label_divisor // 2 if id_offset is None else id_offset
    first, second = (
        find_instances(
            panoptic,
            thing_ids=thing_ids,
            label_divisor=label_divisor,
            max_instances=max_instances,
            is_in_raster_order=False,
        )
        for panoptic in (concat_next, next_panoptic)
    )
    first_ids, second_ids = first.panoptic_ids, second.panoptic_ids
    is_moved = tf.where(second_ids >= 0, second_ids % label_divisor, 0)
    is_known = tf.where(first_ids >= 0, first_ids % label_divisor, 0)
    tf.debugging.assert_less(
        tf.reduce_max(is_moved) + offset,
        label_divisor,
        "instance ids moved by id_offset do not fit below label_divisor",
    )
    tf.debugging.assert_less_equal(
        tf.reduce_max(is_known), offset, "instance ids of concat_next pass id_offset"
    )
    side = max_instances + 1
    pair = tf.reshape(first.slot * side + second.slot, [-1])
    intersection = tf.math.unsorted_segment_sum(tf.ones_like(pair), pair, side * side)
    intersection = tf.reshape(intersection, [side, side])[:-1, :-1]
    union = first.area_px[:, tf.newaxis] + second.area_px - intersection
    classes = [ids[..., tf.newaxis] // label_divisor for ids in (first_ids, second_ids)]
    is_pair = (classes[0] == tf.transpose(classes[1])) & (
        (first_ids[:, tf.newaxis] >= 0) & (second_ids >= 0)
    )
    # float64, so that quotients of areas compare as they do in NumPy.
    overlap = tf.cast(intersection, tf.float64) / tf.cast(
        tf.maximum(union, 1), tf.float64
    )
    score = tf.where(is_pair, overlap, tf.constant(-1, tf.float64))
    # Of equal overlaps the last counts; argmax finds the first, hence from the end.
    best_second, best_first = (
        max_instances
        - 1
        - tf.argmax(tf.reverse(score, [axis]), axis=axis, output_type=tf.int32)
        for axis in (1, 0)
    )
    columns = tf.range(max_instances)
    is_match = tf.gather(best_second, best_first) == columns
    is_match &= tf.gather_nd(score, tf.stack([best_first, columns], -1)) >= 0
    new_ids = tf.where(is_match, tf.gather(first_ids, best_first), second_ids + offset)
    return relabel(next_panoptic, second.slot, new_ids)
