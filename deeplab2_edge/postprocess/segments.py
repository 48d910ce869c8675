"""Instances of a panoptic map in tensors of static shape."""

from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np

from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="train")


class Slots(NamedTuple):
    """Gives every instance of a panoptic map a place in a list of static length.

    Attributes:
        slot: `[H, W]` int32, place of the instance of each pixel, `max_instances`
            where there is none.
        panoptic_ids: `[K]` int32, -1 beyond the last.
        area_px: `[K]` int32, 0 beyond the last.
        num_instances: int32, those beyond `max_instances` not counted.
    """

    slot: Any
    panoptic_ids: Any
    area_px: Any
    num_instances: Any


def find_instances(
    panoptic: Any,
    *,
    thing_ids: Collection[int],
    label_divisor: int,
    max_instances: int,
    is_in_raster_order: bool,
) -> Slots:
    """Lists the instances of a panoptic map.

    Args:
        panoptic: `[H, W]` int32 panoptic ids.
        thing_ids: Classes that have instances. A thing with instance 0 is none.
        label_divisor: The divisor the ids were made with.
        max_instances: Length `K` of the list; more than that are left out.
        is_in_raster_order: Whether the order is that of first appearance, else that
            of ascending ids.
    """
    things = sorted(thing_ids)
    flat = tf.reshape(tf.cast(panoptic, tf.int32), [-1])
    classes, instance = flat // label_divisor, flat % label_divisor
    table = np.full(max(things, default=0) + 2, -1, np.int32)
    table[things] = np.arange(len(things))
    thing = tf.gather(table, tf.clip_by_value(classes, 0, len(table) - 1))
    # Ids of things in ascending order, without gaps between the classes.
    num_keys = max(len(things), 1) * label_divisor
    key = tf.where((thing >= 0) & (instance > 0), thing * label_divisor + instance, -1)
    area_px = tf.math.unsorted_segment_sum(tf.ones_like(key), key, num_keys)
    turn = tf.range(num_keys)
    if is_in_raster_order:
        turn = tf.math.unsorted_segment_min(tf.range(tf.size(key)), key, num_keys)
    turn = tf.where(area_px > 0, turn, tf.int32.max)
    order = tf.argsort(turn, stable=True)
    length = min(max_instances, num_keys)
    listed = tf.pad(order[:length], [[0, max_instances - length]])
    num_instances = tf.minimum(
        tf.math.count_nonzero(area_px, dtype=tf.int32), max_instances
    )
    is_listed = tf.range(max_instances) < num_instances
    place = tf.minimum(tf.argsort(order), max_instances)
    class_of_thing = np.array(things or [0], np.int32)
    panoptic_ids = (
        tf.gather(class_of_thing, listed // label_divisor) * label_divisor
        + listed % label_divisor
    )
    slot = tf.where(key >= 0, tf.gather(place, tf.maximum(key, 0)), max_instances)
    return Slots(
        slot=tf.reshape(slot, panoptic.shape),
        panoptic_ids=tf.where(is_listed, panoptic_ids, -1),
        area_px=tf.where(is_listed, tf.gather(area_px, listed), 0),
        num_instances=num_instances,
    )


def relabel(panoptic: Any, slot: Any, new_ids: Any) -> Any:
    """Gives every instance its new id.

    Args:
        panoptic: `[H, W]` int32 ids.
        slot: `[H, W]`, see `Slots`.
        new_ids: `[K]` int32, what the instances become.
    """
    num_slots = new_ids.shape[0]
    found = tf.gather(new_ids, tf.minimum(slot, num_slots - 1))
    return tf.where(slot < num_slots, found, tf.cast(panoptic, tf.int32))
