"""Merging: one panoptic map from the semantic and the instance map."""

from collections.abc import Collection
from typing import Any, get_args

import numpy as np

from deeplab2_edge.errors import UsageError
from deeplab2_edge.optional import require
from deeplab2_edge.panoptic.merging import MergeSemantics

tf: Any = require("tensorflow", extra="train")


def merge_semantic_and_instance(
    semantic: Any,
    instance: Any,
    *,
    thing_ids: Collection[int],
    label_divisor: int,
    stuff_area_limit: int,
    void_label: int,
    merge_semantics: MergeSemantics = "tf",
    num_classes: int,
    max_instances: int,
) -> Any:
    """Merges a semantic and an instance map into a panoptic map.

    The rules are those of `deeplab2_edge.panoptic.merge_semantic_and_instance`. All
    shapes are static; time is O(H * W + N * C).

    Args:
        semantic: `[H, W]` int32 class ids below `num_classes`.
        instance: `[H, W]` int32 instance ids up to `max_instances`, 0 for none.
        thing_ids: Classes that have instances.
        label_divisor: Panoptic ids are `class * label_divisor + number`.
        stuff_area_limit: Smallest area of a stuff class, in pixels.
        void_label: Void is `void_label * label_divisor`.
        merge_semantics: Whose rules are followed where the published ones disagree.
        num_classes: Above every class.
        max_instances: Largest instance id that can occur.

    Returns:
        `[H, W]` int32 panoptic ids.

    Raises:
        UsageError: If there are no such rules.
    """
    if merge_semantics not in get_args(MergeSemantics):
        raise UsageError(
            f"merge_semantics is {merge_semantics!r}; expected 'tf' or 'op'"
        )
    is_operator = merge_semantics == "op"
    classes = tf.reshape(tf.cast(semantic, tf.int32), [-1])
    ids = tf.reshape(tf.cast(instance, tf.int32), [-1])
    thing_table = np.isin(np.arange(num_classes), list(thing_ids))
    num_ids = max_instances + 1
    void = void_label * label_divisor

    bins = ids * num_classes + classes
    histogram = tf.reshape(_count(bins, num_ids * num_classes), [num_ids, num_classes])
    if is_operator:
        area_px = tf.reduce_sum(histogram, axis=0)
        is_stuff = area_px > max(stuff_area_limit, 0)
        first = tf.range(num_ids)
    else:
        area_px = histogram[0]
        is_stuff = area_px >= stuff_area_limit
        # On things or not.
        first = _first_pixels(tf.reshape(ids, semantic.shape), num_ids)
    panoptic_of_class = tf.where(
        tf.logical_and(is_stuff, ~thing_table),
        np.arange(num_classes, dtype=np.int32) * np.int32(label_divisor),
        void,
    )
    votes = histogram * thing_table.astype(np.int32)
    if not is_operator:
        votes *= (np.arange(num_ids, dtype=np.int32) > 0)[:, np.newaxis].astype(
            np.int32
        )
    panoptic_of_instance = _number_instances(votes, first, label_divisor, void)
    on_thing = tf.gather(thing_table, classes)
    is_claimed = on_thing if is_operator else ids > 0
    claimed = tf.where(on_thing, tf.gather(panoptic_of_instance, ids), void)
    panoptic = tf.where(is_claimed, claimed, tf.gather(panoptic_of_class, classes))
    return tf.reshape(panoptic, semantic.shape)


def _number_instances(votes: Any, first: Any, label_divisor: int, void: int) -> Any:
    """Gives the panoptic id of every instance id: `[N]` int32.

    Args:
        votes: `[N, C]` int32 pixels of each class.
        first: `[N]` int32; the instances of a class are numbered in this order.
        label_divisor: No class numbers more than `label_divisor - 1` instances.
        void: Panoptic id of instances without votes, or without a number.
    """
    winner = tf.argmax(votes, axis=1, output_type=tf.int32)
    has_votes = tf.reduce_max(votes, axis=1) > 0
    is_before = tf.logical_and(
        tf.equal(winner[:, tf.newaxis], winner), first <= first[:, tf.newaxis]
    )
    is_before = tf.logical_and(is_before, has_votes)
    number = tf.reduce_sum(tf.cast(is_before, tf.int32), axis=1)
    return tf.where(
        tf.logical_and(has_votes, number < label_divisor),
        winner * label_divisor + number,
        void,
    )


def _first_pixels(ids: Any, num_ids: int) -> Any:
    """Finds the first pixel of each id in raster order; of absent ids it is any.

    By counting per row, since a smallest value per segment is no standard op of ONNX
    below opset 18.

    Args:
        ids: `[H, W]` int32 below `num_ids`.
        num_ids: How many.

    Returns:
        `[num_ids]` int32.
    """
    height, width = ids.shape
    bins = ids * height + np.arange(height, dtype=np.int32)[:, np.newaxis]
    per_row = _count(tf.reshape(bins, [-1]), num_ids * height)
    per_row = tf.reshape(per_row, [num_ids, height])
    row = _first_true(per_row > 0)
    is_there = tf.equal(
        tf.gather(ids, row), np.arange(num_ids, dtype=np.int32)[:, np.newaxis]
    )
    return row * width + _first_true(is_there)


def _first_true(x: Any) -> Any:
    """Gives the first column of each row that is true: `[N]` int32."""
    return tf.argmax(tf.cast(x, tf.float32), axis=1, output_type=tf.int32)


def _count(bins: Any, num_bins: int) -> Any:
    """Counts pixels per bin: `[num_bins]` int32."""
    # Not ones_like, which would become a constant as large as a map.
    return tf.math.unsorted_segment_sum(tf.cast(bins >= 0, tf.int32), bins, num_bins)
