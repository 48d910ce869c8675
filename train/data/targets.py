"""What the network is trained towards, made from the panoptic label of one frame.

Everything is TensorFlow and traces into the input pipeline.
"""

import math
from dataclasses import dataclass
from typing import Any

from deeplab2_edge import keys
from deeplab2_edge.config import DatasetOptions
from deeplab2_edge.errors import ConfigError
from deeplab2_edge.optional import require
from deeplab2_edge.postprocess.heatmap import draw_centers
from deeplab2_edge.records import DEPTH_SCALE
from deeplab2_edge.train.data.instances import Segments, offsets_to
from deeplab2_edge.train.data.traced_checks import check

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
        max_thing_id: Most things of one image, if things are numbered for a mask
            transformer; None leaves that out.
        center_noise: Previous centers are displaced by a normal variable of this
            standard deviation, as a share of the instance's extent: at test time
            they are predictions.
        false_center_rate: Probability that a previous center gets a wrong one beside.

    Raises:
        ConfigError: On creation, if sigma is not positive.
    """

    sigma: float = 8.0
    small_instance_threshold: int = 0
    small_instance_weight: float = 1.0
    has_instances: bool = True
    max_thing_id: int | None = None
    center_noise: float = 0.05  # both as published for Motion-DeepLab
    false_center_rate: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.sigma < math.inf:
            raise ConfigError(f"sigma is {self.sigma:g}; it must be a positive number")

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
            max_thing_id=(
                options.max_thing_id if options.thing_id_mask_annotations else None
            ),
        )


def semantic_targets(segments: Segments, settings: TargetSettings) -> dict[str, Any]:
    """Makes the targets of the semantic head.

    A crowd region is a thing class without an instance id. It teaches the semantic
    head, but neither centers nor offsets.

    Returns:
        `semantic_gt` `[H, W]` int32 classes (crowd keeps its class);
        `semantic_loss_weight` `[H, W]` float32; `is_crowd_gt` `[H, W]` bool.
    """
    is_small = segments.is_instance & (
        segments.area_px < settings.small_instance_threshold
    )
    weight = tf.where(is_small, settings.small_instance_weight, 1.0)
    return {
        keys.SEMANTIC_GT: segments.to_pixels(segments.classes, tf.int32),
        keys.SEMANTIC_LOSS_WEIGHT: segments.to_pixels(weight),
        keys.IS_CROWD_GT: segments.to_pixels(segments.is_crowd, tf.bool),
    }


def instance_targets(segments: Segments, settings: TargetSettings) -> dict[str, Any]:
    """Makes the targets of the center and the offset head.

    Returns:
        `instance_center_gt` `[H, W]` float32, 1 at the rounded mean position of the
        visible pixels of every instance, Gaussian around it;
        `center_loss_weight` `[H, W]` float32, 1 where neither crowd nor ignored;
        `instance_regression_gt` `[H, W, 2]` float32, (dy, dx) in pixels from an
        instance pixel to that center, 0 elsewhere;
        `regression_loss_weight` `[H, W]` float32, 1 on things that are not crowd.

    References:
        Cheng et al., Panoptic-DeepLab, CVPR 2020, arXiv:1911.10194.
    """
    centers_yx = segments.centers_yx()
    is_counted = ~segments.is_crowd & ~segments.is_ignored
    return {
        keys.INSTANCE_CENTER_GT: draw_centers(
            tf.boolean_mask(centers_yx, segments.is_instance),
            segments.shape,
            settings.sigma,
        ),
        keys.CENTER_LOSS_WEIGHT: segments.to_pixels(is_counted),
        keys.INSTANCE_REGRESSION_GT: offsets_to(
            centers_yx, segments.is_instance, segments
        ),
        keys.REGRESSION_LOSS_WEIGHT: segments.to_pixels(
            segments.is_thing & ~segments.is_crowd
        ),
    }


def thing_id_targets(
    segments: Segments, max_thing_id: int, image_name: Any
) -> dict[str, Any]:
    """Numbers the things of an image for a mask transformer.

    Returns:
        `thing_id_mask_gt` `[H, W]` int32, things numbered from 0 in the order of
        their first pixel, -1 elsewhere (stuff, crowd, ignored);
        `thing_id_class_gt` `[max_thing_id]` float32, the class of each number, -1
        where there is none.

    Raises:
        tf.errors.InvalidArgumentError: When run, if there are more things than
            `max_thing_id`, or a stuff class has an instance id.

    References:
        Wang et al., MaX-DeepLab, CVPR 2021, arXiv:2012.00759.
    """
    is_numbered = segments.is_thing & segments.is_instance
    is_wrong = segments.is_instance & ~segments.is_thing
    check(
        ~tf.reduce_any(is_wrong),
        image_name,
        ": a pixel of class ",
        tf.gather(segments.classes, tf.argmax(is_wrong)),
        " has an instance id, but that class is no thing; make it a thing of the data "
        "set, or store its labels with instance id 0",
    )
    num_things = tf.math.count_nonzero(is_numbered, dtype=tf.int32)
    check(
        num_things <= max_thing_id,
        image_name,
        ": holds ",
        num_things,
        f" things, but max_thing_id is {max_thing_id}; raise max_thing_id in the "
        "data-set options",
    )
    numbers = tf.cumsum(tf.cast(is_numbered, tf.int32)) - 1
    classes = tf.cast(tf.boolean_mask(segments.classes, is_numbered), tf.float32)
    classes = tf.pad(
        classes[:max_thing_id],
        [[0, tf.maximum(max_thing_id - num_things, 0)]],
        constant_values=-1.0,
    )
    return {
        keys.THING_ID_MASK_GT: segments.to_pixels(
            tf.where(is_numbered, numbers, -1), tf.int32
        ),
        keys.THING_ID_CLASS_GT: tf.ensure_shape(classes, [max_thing_id]),
    }


def depth_in_metres(depth: Any) -> Any:
    """Turns stored depth into metres: `[H, W, 1]` float32, 0 where unknown."""
    return tf.cast(depth, tf.float32) / DEPTH_SCALE
