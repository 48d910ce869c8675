"""Motion-DeepLab: tracks instances by the offsets of their centers."""

from collections.abc import Collection
from typing import Any, NamedTuple

from deeplab2_edge.errors import UsageError
from deeplab2_edge.optional import require
from deeplab2_edge.panoptic.motion import MotionSettings
from deeplab2_edge.postprocess.heads import resize_offsets
from deeplab2_edge.postprocess.heatmap import draw_centers
from deeplab2_edge.postprocess.segments import Slots, find_instances, relabel

tf: Any = require("tensorflow", extra="train")

# Columns of a list of centers.
_X, _Y, _ID, _RADIUS, _AGE = range(5)


class MotionState(NamedTuple):
    """Is what a tracker remembers between frames.

    Attributes:
        heatmap: `[H, W]` float32, channel 7 of the network's next input.
        tracks: `[M, 5]` int32 (x, y, panoptic id, radius, age), id -1 beyond the last.
        next_id: int32.
    """

    heatmap: Any
    tracks: Any
    next_id: Any


def initial_motion_state(size: tuple[int, int], *, max_tracks: int) -> MotionState:
    """Gives the state at the start of a scene.

    Args:
        size: (H, W) of the canvas.
        max_tracks: Length of the list of tracks.
    """
    return MotionState(
        heatmap=tf.zeros(size),
        tracks=tf.tile(tf.constant([[0, 0, -1, 0, 0]]), [max_tracks, 1]),
        next_id=tf.constant(1),
    )


def track_instances(
    panoptic: Any,
    frame_offset_map: Any,
    state: MotionState,
    *,
    settings: MotionSettings,
    max_instances: int,
) -> tuple[Any, MotionState]:
    """Tracks the instances of the next frame.

    The rules are those of `deeplab2_edge.panoptic.MotionTracker`. Instances beyond
    `max_instances` keep the ids they came with. If the list of tracks is full, those
    missed longest in the list go first.

    Args:
        panoptic: `[H, W]` int32 ids of the frame, static sizes.
        frame_offset_map: `[h, w, 2]`, (dy, dx) to where the center was in the last
            frame, in pixels of this map.
        state: Of the last frame.
        settings: How to track, without a `track_divisor`.
        max_instances: Most instances of a frame.

    Returns:
        `[H, W]` int32 panoptic ids of the tracks, and the state for the next frame.

    Raises:
        UsageError: If the settings have another divisor for tracks.
        tf.errors.InvalidArgumentError: When run, if there is no id left below the
            divisor; compilers for accelerators leave this check out.
    """
    divisor = settings.label_divisor
    if settings.track_divisor not in (None, divisor):
        raise UsageError(
            f"MotionSettings.track_divisor is {settings.track_divisor}; the traced "
            f"tracker keeps label_divisor, {divisor}"
        )
    heatmap, centers, slots = render_centers(
        panoptic,
        thing_ids=settings.thing_ids,
        label_divisor=divisor,
        sigma=settings.heatmap_sigma,
        max_instances=max_instances,
    )
    is_center = centers[:, _ID] >= 0
    places = tf.stack([centers[:, _Y], centers[:, _X]], axis=-1)
    peaks = tf.where(is_center, tf.gather_nd(heatmap, places), -1.0)
    visit = tf.argsort(peaks, direction="DESCENDING", stable=True)
    offsets = resize_offsets(frame_offset_map, heatmap.shape)
    moved = tf.cast(places, tf.float32) + tf.gather_nd(offsets, places)
    old = state.tracks
    old_y, old_x = (tf.cast(old[:, c], tf.float32) for c in (_Y, _X))

    def step(turn: Any, is_free: Any, track_ids: Any, next_id: Any) -> Any:
        index = visit[turn]
        class_id = centers[index, _ID] // divisor
        squared = tf.square(moved[index, 1] - old_x)
        squared += tf.square(moved[index, 0] - old_y)
        is_candidate = is_free & (old[:, _ID] // divisor == class_id)
        # Also of what is not a number nothing is nearest.
        is_candidate &= squared < float("inf")
        squared = tf.where(is_candidate, squared, float("inf"))
        nearest = tf.argmin(squared, output_type=tf.int32)
        is_match = squared[nearest] < tf.cast(old[nearest, _RADIUS], tf.float32)
        new_id = class_id * divisor + next_id
        track_id = tf.where(is_match, old[nearest, _ID], new_id)
        is_taken = is_match & (tf.range(old.shape[0]) == nearest)
        is_now = tf.range(max_instances) == index
        return (
            turn + 1,
            is_free & ~is_taken,
            tf.where(is_now, track_id, track_ids),
            next_id + tf.cast(~is_match, tf.int32),
        )

    _, is_free, track_ids, next_id = tf.while_loop(
        lambda turn, *_: turn < slots.num_instances,
        step,
        (tf.constant(0), old[:, _ID] >= 0, centers[:, _ID], state.next_id),
        maximum_iterations=max_instances,
    )
    tf.debugging.assert_less_equal(
        next_id, divisor, "track ids do not fit below label_divisor; reset the tracker"
    )
    now = tf.gather(
        tf.concat(
            [centers[:, :_ID], track_ids[:, tf.newaxis], centers[:, _RADIUS:]], 1
        ),
        visit,
    )
    before = tf.where(is_free[:, tf.newaxis], old, [[0, 0, -1, 0, 0]])
    tracks = tf.concat([now, before], 0) + [[0, 0, 0, 0, 1]]
    is_kept = (tracks[:, _ID] >= 0) & (tracks[:, _AGE] < settings.keep_frames)
    tracks = tf.where(is_kept[:, tf.newaxis], tracks, [[0, 0, -1, 0, 0]])
    first = tf.argsort(tf.cast(~is_kept, tf.int32), stable=True)[: old.shape[0]]
    length = old.shape[0] - first.shape[0]
    return relabel(panoptic, slots.slot, track_ids), MotionState(
        heatmap=heatmap,
        tracks=tf.pad(tf.gather(tracks, first), [[0, length], [0, 0]]),
        next_id=next_id,
    )


def render_centers(
    panoptic: Any,
    *,
    thing_ids: Collection[int],
    label_divisor: int,
    sigma: float = 8.0,
    max_instances: int,
) -> tuple[Any, Any, Slots]:
    """Draws the centers of all instances of a panoptic map.

    The rules are those of `deeplab2_edge.panoptic.render_centers`.

    Args:
        panoptic: `[H, W]` int32 panoptic ids, static sizes.
        thing_ids: Classes that have instances.
        label_divisor: The divisor the ids were made with.
        sigma: Standard deviation in pixels.
        max_instances: Length `K` of the list of centers.

    Returns:
        `[H, W]` float32 heatmap, `[K, 5]` int32 centers (x, y, panoptic id, radius,
        age 0) with id -1 beyond the last, and the instances.
    """
    height, width = panoptic.shape
    slots = find_instances(
        panoptic,
        thing_ids=thing_ids,
        label_divisor=label_divisor,
        max_instances=max_instances,
        is_in_raster_order=True,
    )
    is_center = slots.panoptic_ids >= 0
    # Pixels of no instance fall into one more segment, which is cut off.
    segments, count = tf.reshape(slots.slot, [-1]), max_instances + 1
    area_px = tf.cast(tf.maximum(slots.area_px, 1), tf.float64)
    means, extents = [], []
    for axis, side in enumerate((height, width)):
        line = tf.reshape(tf.range(side), [[-1, 1], [1, -1]][axis])
        places = tf.reshape(tf.broadcast_to(line, [height, width]), [-1])
        # In float64 sums of positions are exact.
        total = tf.math.unsorted_segment_sum(
            tf.cast(places, tf.float64), segments, count
        )[:max_instances]
        means.append(tf.cast(tf.round(total / area_px), tf.int32))
        low = tf.math.unsorted_segment_min(places, segments, count)
        high = tf.math.unsorted_segment_max(places, segments, count)
        extents.append((high - low)[:max_instances])
    centers = tf.stack(
        [
            means[1],
            means[0],
            slots.panoptic_ids,
            tf.where(is_center, extents[0] * extents[1], 0),
            tf.zeros_like(means[0]),
        ],
        axis=-1,
    )
    heatmap = draw_centers(
        tf.stack(means, axis=-1), (height, width), sigma, is_drawn=is_center
    )
    return heatmap, centers, slots
