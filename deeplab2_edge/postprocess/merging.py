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
    on_thing = tf.gather(thing_table, classes)
    is_claimed = on_thing if is_operator else ids > 0
    void = void_label * label_divisor

    counted = tf.ones_like(is_claimed) if is_operator else ~is_claimed
    area_px = _count(counted, classes, num_classes)
    is_small = area_px < stuff_area_limit
    if is_operator:
        is_small = (stuff_area_limit > 0) & (area_px <= stuff_area_limit)
    panoptic_of_class = tf.where(
        thing_table | is_small, void, np.arange(num_classes) * label_divisor
    )
    panoptic_of_instance = _number_instances(
        classes,
        ids,
        is_claimed & on_thing,
        # Where an id first appears, claimed things or not, is its turn.
        tf.zeros_like(ids) if is_operator else tf.range(tf.size(ids)),
        shape=(max_instances + 1, num_classes),
        label_divisor=label_divisor,
        void=void,
    )
    claimed = tf.where(on_thing, tf.gather(panoptic_of_instance, ids), void)
    panoptic = tf.where(is_claimed, claimed, tf.gather(panoptic_of_class, classes))
    return tf.reshape(tf.cast(panoptic, tf.int32), semantic.shape)


def _number_instances(
    classes: Any,
    ids: Any,
    votes: Any,
    turn: Any,
    *,
    shape: tuple[int, int],
    label_divisor: int,
    void: int,
) -> Any:
    """Gives the panoptic id of every instance id.

    Args:
        classes: `[M]` classes of the pixels.
        ids: `[M]` instance ids of the pixels.
        votes: `[M]` which pixels vote for the class of their instance.
        turn: `[M]`; instances are numbered by the least of their pixels, then by id.
        shape: How many ids and classes there are.
        label_divisor: No class numbers more than `label_divisor - 1` instances.
        void: Panoptic id of instances without a number.
    """
    num_ids, num_classes = shape
    histogram = tf.reshape(
        _count(votes, ids * num_classes + classes, num_ids * num_classes), shape
    )
    winner = tf.argmax(histogram, axis=1, output_type=tf.int32)
    has_votes = tf.reduce_any(histogram > 0, axis=1)
    order = tf.argsort(tf.math.unsorted_segment_min(turn, ids, num_ids), stable=True)
    member = tf.one_hot(winner, num_classes, dtype=tf.int32)
    member = tf.gather(tf.where(has_votes[:, tf.newaxis], member, 0), order)
    number = tf.reduce_sum(tf.cumsum(member, axis=0) * member, axis=1)
    number = tf.gather(number, tf.argsort(order))
    return tf.where(
        has_votes & (number < label_divisor), winner * label_divisor + number, void
    )


def _count(is_counted: Any, bins: Any, num_bins: int) -> Any:
    """Counts pixels per bin: `[num_bins]` int32."""
    return tf.math.unsorted_segment_sum(tf.cast(is_counted, tf.int32), bins, num_bins)
