"""What a panoptic label map says about its segments.

The map is reduced to its distinct ids once; classes, areas and centers are then
worked out per id and handed back to the pixels, so the cost hardly depends on the
number of instances.
"""

from dataclasses import dataclass
from typing import Any

from deeplab2_edge.datasets.registry import DatasetInfo
from deeplab2_edge.optional import require

tf = require("tensorflow", extra="train")


@dataclass(frozen=True)
class Segments:
    """Holds the segments of one label map; U is their number.

    Attributes:
        shape: `[2]` int32, height and width.
        ids: `[U]` int32 panoptic ids in the order of their first pixel.
        pixel_to_segment: `[H * W]` int32, index into `ids`.
        area_px: `[U]` int32.
        classes: `[U]` int32.
        is_thing: `[U]` bool, crowds included.
        is_crowd: `[U]` bool, a thing class without instance id.
        is_ignored: `[U]` bool.
        is_instance: `[U]` bool, has an instance id and is not ignored.
        mean_yx: `[U, 2]` float32, mean position of the pixels.
    """

    shape: Any
    ids: Any
    pixel_to_segment: Any
    area_px: Any
    classes: Any
    is_thing: Any
    is_crowd: Any
    is_ignored: Any
    is_instance: Any
    mean_yx: Any

    def centers_yx(self) -> Any:
        """Gives the mean positions rounded half to even: `[U, 2]` int32."""
        return tf.cast(tf.round(self.mean_yx), tf.int32)

    def extents_yx(self) -> Any:
        """Gives the last minus the first row and column: `[U, 2]` float32."""
        positions = pixels_yx(self.shape)
        num_ids = tf.size(self.ids)
        last = tf.math.unsorted_segment_max(positions, self.pixel_to_segment, num_ids)
        first = tf.math.unsorted_segment_min(positions, self.pixel_to_segment, num_ids)
        return tf.cast(last - first, tf.float32)

    def to_pixels(self, per_segment: Any, dtype: Any = tf.float32) -> Any:
        """Hands `[U, ...]` to the pixels: `[H, W, ...]`."""
        values = tf.gather(tf.cast(per_segment, dtype), self.pixel_to_segment)
        return tf.reshape(values, tf.concat([self.shape, tf.shape(values)[1:]], 0))


def find_segments(panoptic: Any, info: DatasetInfo) -> Segments:
    """Reduces a label map to its segments.

    Args:
        panoptic: `[H, W]` int32, `class * label_divisor + instance_id`.
        info: Gives divisor, ignored label and thing classes.
    """
    shape = tf.shape(panoptic)
    ids, pixel_to_segment = tf.unique(tf.reshape(panoptic, [-1]))
    area_px = tf.math.bincount(pixel_to_segment, minlength=tf.size(ids))
    classes = ids // info.label_divisor
    instance = ids % info.label_divisor
    is_thing = is_any_of(classes, info.thing_ids)
    is_ignored = classes == info.ignore_label
    return Segments(
        shape=shape,
        ids=ids,
        pixel_to_segment=pixel_to_segment,
        area_px=area_px,
        classes=classes,
        is_thing=is_thing,
        is_crowd=is_thing & (instance == 0),
        is_ignored=is_ignored,
        is_instance=~is_ignored & (instance != 0),
        mean_yx=_mean_positions(pixel_to_segment, area_px, shape),
    )


def find_in(others: Segments, ids: Any) -> tuple[Any, Any]:
    """Looks panoptic ids up among the instances of another map.

    Args:
        others: The other map.
        ids: `[N]` int32.

    Returns:
        `[N]` int32 indices into `others.ids`, and `[N]` bool, whether the id is an
        instance there; where it is not, the index means nothing.
    """
    order = tf.argsort(others.ids)
    place = tf.searchsorted(tf.gather(others.ids, order), ids)
    index = tf.gather(order, tf.minimum(place, tf.size(order) - 1))
    is_there = tf.gather(others.ids, index) == ids
    return index, is_there & tf.gather(others.is_instance, index)


def offsets_to(targets_yx: Any, has_target: Any, segments: Segments) -> Any:
    """Gives (dy, dx) from every pixel to the target of its segment.

    Args:
        targets_yx: `[U, 2]` int32, a target for every segment.
        has_target: `[U]` bool; pixels of the others get zeros.
        segments: The segments.

    Returns:
        `[H, W, 2]` float32, whole pixels.
    """
    # Two values per pixel throughout: to broadcast a mask would take twice the time.
    is_given = tf.repeat(tf.cast(has_target, tf.float32)[:, tf.newaxis], 2, axis=1)
    to_target = tf.gather(
        tf.cast(targets_yx, tf.float32), segments.pixel_to_segment
    ) - tf.cast(pixels_yx(segments.shape), tf.float32)
    offsets = to_target * tf.gather(is_given, segments.pixel_to_segment)
    return tf.reshape(offsets, tf.concat([segments.shape, [2]], 0))


def pixels_yx(shape: Any) -> Any:
    """Gives the positions of all pixels, row by row: `[H * W, 2]` int32."""
    y, x = tf.meshgrid(tf.range(shape[0]), tf.range(shape[1]), indexing="ij")
    return tf.reshape(tf.stack([y, x], axis=-1), [-1, 2])


def is_any_of(classes: Any, thing_ids: tuple[int, ...]) -> Any:
    """Tells which of `[U]` classes are among the given ones: `[U]` bool."""
    things = tf.constant(thing_ids, tf.int32, shape=[1, len(thing_ids)])
    return tf.reduce_any(classes[:, tf.newaxis] == things, axis=1)


def _mean_positions(pixel_to_segment: Any, area_px: Any, shape: Any) -> Any:
    """Gives the mean position of every segment: `[U, 2]` float32."""
    # In float64 the sums are exact for any image that fits into memory.
    height, width = tf.unstack(shape)
    y = tf.repeat(tf.range(tf.cast(height, tf.float64), dtype=tf.float64), width)
    x = tf.tile(tf.range(tf.cast(width, tf.float64), dtype=tf.float64), [height])
    num_segments = tf.size(area_px)
    sums = [
        tf.math.bincount(pixel_to_segment, positions, minlength=num_segments)
        for positions in (y, x)
    ]
    mean = tf.stack(sums, axis=1) / tf.cast(area_px, tf.float64)[:, tf.newaxis]
    return tf.cast(mean, tf.float32)
