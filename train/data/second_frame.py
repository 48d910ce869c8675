"""Targets that link a frame to the one before it or after it."""

from typing import Any

from deeplab2_edge import keys
from deeplab2_edge.optional import require
from deeplab2_edge.postprocess.heatmap import draw_centers
from deeplab2_edge.train.data.draws import Draws, Event
from deeplab2_edge.train.data.instances import Segments, find_in, offsets_to
from deeplab2_edge.train.data.targets import TargetSettings

tf = require("tensorflow", extra="train")


def next_frame_targets(current: Segments, following: Segments) -> dict[str, Any]:
    """Makes the targets that lead from the next frame back to this one.

    Args:
        current: The frame itself.
        following: The next frame, in which instances keep their ids.

    Returns:
        `next_instance_regression_gt` `[H, W, 2]` float32, (dy, dx) from the pixels of
        an instance in the next frame to its center in this one, 0 elsewhere and where
        this frame does not show it;
        `next_regression_loss_weight` `[H, W]` float32, 1 where that is not (0, 0).

    References:
        Qiao et al., ViP-DeepLab, CVPR 2021, arXiv:2012.05258.
    """
    index, is_there = find_in(current, following.ids)
    offsets = offsets_to(tf.gather(current.centers_yx(), index), is_there, following)
    return {
        keys.NEXT_INSTANCE_REGRESSION_GT: offsets,
        keys.NEXT_REGRESSION_LOSS_WEIGHT: _where_not_zero(offsets),
    }


def motion_targets(
    current: Segments, previous: Segments, settings: TargetSettings, draws: Draws
) -> tuple[dict[str, Any], Any]:
    """Makes the targets that lead from this frame to the one before.

    At test time the centers of the previous frame are predictions. So that the network
    learns to live with their faults, they are displaced here, and some wrong ones are
    added to the heat map.

    Args:
        current: The frame itself.
        previous: The frame before, in which instances have the same ids; the frame
            itself at the beginning of a video.
        settings: Sizes of Gaussians and faults.
        draws: Decides the faults.

    Returns:
        First the targets: `frame_offset_gt` `[H, W, 2]` float32, (dy, dx) from the
        pixels of an instance to its displaced center in the previous frame, 0
        elsewhere and where that does not show it; `frame_regression_loss_weight`
        `[H, W]` float32, 1 where that is not (0, 0).
        Second the heat map of the previous centers, `[H, W]` float32 in 0..1, which
        is an input of the network.

    References:
        Weber et al., STEP, NeurIPS 2021, arXiv:2102.11859.
    """
    extents_yx = previous.extents_yx() * settings.center_noise
    centers_yx = _displaced(
        previous.mean_yx, extents_yx, previous.shape, draws, Event.CENTER_NOISE
    )
    false_yx = _displaced(
        tf.cast(centers_yx, tf.float32),
        extents_yx,
        previous.shape,
        draws,
        Event.FALSE_CENTER_NOISE,
    )
    chance = draws.uniform(Event.FALSE_CENTER, [tf.size(previous.ids)])
    is_false = previous.is_instance & (chance < settings.false_center_rate)
    drawn_yx = [
        tf.boolean_mask(centers_yx, previous.is_instance),
        tf.boolean_mask(false_yx, is_false),
    ]
    heatmap = draw_centers(tf.concat(drawn_yx, axis=0), previous.shape, settings.sigma)

    index, is_there = find_in(previous, current.ids)
    is_tracked = is_there & current.is_instance
    offsets = offsets_to(tf.gather(centers_yx, index), is_tracked, current)
    targets = {
        keys.FRAME_OFFSET_GT: offsets,
        keys.FRAME_REGRESSION_LOSS_WEIGHT: _where_not_zero(offsets),
    }
    return targets, heatmap


def _displaced(
    points_yx: Any, deviations_yx: Any, shape: Any, draws: Draws, event: Event
) -> Any:
    """Displaces points at random, to whole pixels inside the map: `[N, 2]` int32."""
    noise = draws.normal(event, [tf.shape(points_yx)[0], 2])
    moved = tf.round(points_yx + noise * deviations_yx)
    return tf.clip_by_value(tf.cast(moved, tf.int32), 0, shape - 1)


def _where_not_zero(offsets: Any) -> Any:
    """Gives 1 where either component differs from 0: `[H, W]` float32."""
    return tf.cast(tf.reduce_any(offsets != 0, axis=-1), tf.float32)
