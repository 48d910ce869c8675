"""What the network is trained towards, made from one panoptic label map.

Everything is TensorFlow and traces into the input pipeline. The label map is reduced
to its distinct ids once; classes, areas and centers are then worked out per id and
handed back to the pixels, so the cost hardly depends on the number of instances.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.config import DatasetOptions
from deeplab2_edge.datasets.registry import DatasetInfo
from deeplab2_edge.optional import require

tf = require("tensorflow", extra="train")


@dataclass(frozen=True)
class TargetSettings:
    """Says how targets are made.

    Attributes:
        sigma: Standard deviation of the center Gaussians, in pixels.
        small_instance_threshold: Instances with fewer visible pixels than this get
            `small_instance_weight` in the semantic loss; 0 switches it off.
        small_instance_weight: That weight.
        has_instances: False leaves out all that only panoptic models need.
    """

    sigma: float = 8.0
    small_instance_threshold: int = 0
    small_instance_weight: float = 1.0
    has_instances: bool = True

    @classmethod
    def from_options(
        cls, options: DatasetOptions, *, has_instances: bool = True
    ) -> "TargetSettings":
        """Reads the settings from the data-set options of a configuration."""
        is_weighted = options.increase_small_instance_weights
        return cls(
            sigma=options.sigma,
            small_instance_threshold=(
                options.small_instance_threshold if is_weighted else 0
            ),
            small_instance_weight=options.small_instance_weight,
            has_instances=has_instances,
        )


def make_targets(
    panoptic: Any, dataset: DatasetInfo, settings: TargetSettings
) -> dict[str, Any]:
    """Makes the targets of one image.

    A crowd region is a thing class without an instance id. It teaches the semantic
    head, but neither centers nor offsets.

    Args:
        panoptic: `[H, W]` int32, `class * label_divisor + instance_id`.
        dataset: Gives divisor, ignored label and thing classes.
        settings: How the targets are made.

    Returns:
        `semantic_gt` `[H, W]` int32 classes (crowd keeps its class);
        `semantic_loss_weight` `[H, W]` float32; `is_crowd_gt` `[H, W]` bool; and, if
        there are instances,
        `panoptic_gt` `[H, W]` int32, the label map as it is;
        `instance_center_gt` `[H, W]` float32, 1 at the rounded mean position of the
        visible pixels of every instance, Gaussian around it;
        `center_loss_weight` `[H, W]` float32, 1 where neither crowd nor ignored;
        `instance_regression_gt` `[H, W, 2]` float32, (dy, dx) in pixels from an
        instance pixel to that center, 0 elsewhere;
        `regression_loss_weight` `[H, W]` float32, 1 on things that are not crowd.

    References:
        Cheng et al., Panoptic-DeepLab, CVPR 2020, arXiv:1911.10194.
    """
    shape = tf.shape(panoptic)
    ids, pixel_to_id = tf.unique(tf.reshape(panoptic, [-1]))
    area_px = tf.math.bincount(pixel_to_id, minlength=tf.size(ids))

    classes = ids // dataset.label_divisor
    instance = ids % dataset.label_divisor
    is_thing = _is_any_of(classes, dataset.thing_ids)
    is_crowd = is_thing & (instance == 0)
    is_ignored = classes == dataset.ignore_label
    is_instance = ~is_ignored & (instance != 0)
    is_small = is_instance & (area_px < settings.small_instance_threshold)

    def to_pixels(per_id: Any, dtype: Any = tf.float32) -> Any:
        return tf.reshape(tf.gather(tf.cast(per_id, dtype), pixel_to_id), shape)

    targets = {
        keys.SEMANTIC_GT: to_pixels(classes, tf.int32),
        keys.SEMANTIC_LOSS_WEIGHT: to_pixels(
            tf.where(is_small, settings.small_instance_weight, 1.0)
        ),
        keys.IS_CROWD_GT: to_pixels(is_crowd, tf.bool),
    }
    if not settings.has_instances:
        return targets

    centers_yx = _rounded_centers(pixel_to_id, area_px, shape)
    return targets | {
        keys.PANOPTIC_GT: panoptic,
        keys.INSTANCE_CENTER_GT: draw_centers(
            tf.boolean_mask(centers_yx, is_instance), shape, settings.sigma
        ),
        keys.CENTER_LOSS_WEIGHT: to_pixels(~is_crowd & ~is_ignored),
        keys.INSTANCE_REGRESSION_GT: _offsets(
            pixel_to_id, centers_yx, is_instance, shape
        ),
        keys.REGRESSION_LOSS_WEIGHT: to_pixels(is_thing & ~is_crowd),
    }


def draw_centers(centers_yx: Any, shape: Any, sigma: float) -> Any:
    """Draws a Gaussian at every center; where they overlap, the larger value stays.

    A Gaussian ends at the border of a square window, at 25 pixels for sigma 8.

    Args:
        centers_yx: `[N, 2]` int32, inside the map. `N` may be 0.
        shape: `[2]` int32, height and width of the map.
        sigma: Standard deviation in pixels.

    Returns:
        `[H, W]` float32 in 0..1.
    """
    kernel = gaussian_window(sigma)
    side = len(kernel)
    # Windows are drawn on a canvas with a margin, so that none is cut by the border.
    margin_before, margin_after = round(3 * sigma + 1), round(3 * sigma + 2)
    canvas = shape + (margin_before + margin_after)
    window_y, window_x = np.divmod(np.arange(side * side, dtype=np.int32), side)
    index = (centers_yx[:, :1] + window_y) * canvas[1] + centers_yx[:, 1:] + window_x
    heatmap = tf.tensor_scatter_nd_max(
        tf.zeros([canvas[0] * canvas[1]]),
        tf.reshape(index, [-1, 1]),
        tf.tile(tf.constant(kernel.ravel()), [tf.shape(centers_yx)[0]]),
    )
    heatmap = tf.reshape(heatmap, canvas)
    return tf.slice(heatmap, [margin_before, margin_before], shape)


def gaussian_window(sigma: float) -> NDArray[np.float32]:
    """Gives the square window of a center Gaussian: `[S, S]`, `S = int(6 sigma + 3)`.

    Raises:
        ValueError: If sigma is not positive.
    """
    if not (sigma > 0 and math.isfinite(sigma)):
        raise ValueError(f"sigma is {sigma}; it must be a positive number of pixels")
    distance = np.arange(int(6 * sigma + 3), dtype=np.float32) - (3 * sigma + 1)
    squared = distance[:, None] ** 2 + distance**2
    return np.exp(-squared / (2 * sigma**2)).astype(np.float32)


def _is_any_of(classes: Any, thing_ids: tuple[int, ...]) -> Any:
    things = tf.constant(thing_ids, tf.int32, shape=[1, len(thing_ids)])
    return tf.reduce_any(classes[:, tf.newaxis] == things, axis=1)


def _rounded_centers(pixel_to_id: Any, area_px: Any, shape: Any) -> Any:
    """Gives the mean position of every id, rounded half to even: `[U, 2]` int32."""
    num_ids = tf.size(area_px)
    # In float64 the sums are exact for any image that fits into memory.
    y, x = tf.meshgrid(
        tf.range(tf.cast(shape[0], tf.float64), dtype=tf.float64),
        tf.range(tf.cast(shape[1], tf.float64), dtype=tf.float64),
        indexing="ij",
    )
    sums = tf.stack(
        [
            tf.math.bincount(pixel_to_id, tf.reshape(axis, [-1]), minlength=num_ids)
            for axis in (y, x)
        ],
        axis=1,
    )
    mean = sums / tf.cast(area_px, tf.float64)[:, tf.newaxis]
    return tf.cast(tf.round(mean), tf.int32)


def _offsets(pixel_to_id: Any, centers_yx: Any, is_instance: Any, shape: Any) -> Any:
    """Gives (dy, dx) from instance pixels to their center: `[H, W, 2]` float32."""
    y, x = tf.meshgrid(tf.range(shape[0]), tf.range(shape[1]), indexing="ij")
    pixels_yx = tf.reshape(tf.stack([y, x], axis=-1), [-1, 2])
    to_center = tf.gather(centers_yx, pixel_to_id) - pixels_yx
    has_center = tf.gather(is_instance, pixel_to_id)[:, tf.newaxis]
    offsets = tf.where(has_center, to_center, 0)
    return tf.reshape(tf.cast(offsets, tf.float32), tf.concat([shape, [2]], 0))
