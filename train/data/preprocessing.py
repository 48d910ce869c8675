"""From an image and its labels to the crop that the network sees.

Training: resize to a range, random scale, color jitter, pad, random crop, random flip.
Evaluation: resize to a range, pad at the bottom and right. Values stay in 0..255; the
network normalizes them itself. Labels travel as channels beside the image, so a second
frame is three more image channels and one more label channel, and gets the same
geometry; so does depth.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from deeplab2_edge.config import DatasetOptions
from deeplab2_edge.errors import ConfigError
from deeplab2_edge.optional import require
from deeplab2_edge.train.data.autoaugment import Policy, get_policy, jitter_colors
from deeplab2_edge.train.data.draws import Draws, Event

tf = require("tensorflow", extra="train")

# Padding: exactly zero once the network has normalized it by x / 127.5 - 1.
IMAGE_FILL = 127.5

Size = tuple[int, int]


class View(NamedTuple):
    """Holds an image and what is known about its pixels, all of one size.

    Attributes:
        image: `[H, W, 3 F]` uint8 or float32 in 0..255: F frames.
        label: `[H, W, L]` int32 panoptic ids of the frames; None if not labelled.
        depth: `[H, W, 1]` int32, 256ths of a metre; None if not known.
    """

    image: Any
    label: Any = None
    depth: Any = None


@dataclass(frozen=True)
class PreprocessSettings:
    """Says how samples are brought to the crop. Sizes are (height, width).

    Attributes:
        crop_size: What the network sees.
        label_fill: Label of padded pixels.
        min_size: Images are resized so that both sides reach this; None does nothing.
        max_size: Images are shrunk so that no side passes this; None does nothing in
            training and means the crop in evaluation.
        resize_factor: If positive, resized sides become a multiple of it plus one.
        scales: Random scales, one of which is chosen.
        scale_range: If set, the scale is uniform between these instead.
        resizes_for_training: False skips the resize to a range in training.
        policy: Of the color jitter; empty for none.
        depth_fill: Depth of padded pixels.

    Raises:
        ConfigError: On creation, if sizes do not fit each other.
    """

    crop_size: Size
    label_fill: int
    min_size: Size | None = None
    max_size: Size | None = None
    resize_factor: int = 0
    scales: tuple[float, ...] = (1.0,)
    scale_range: tuple[float, float] | None = None
    resizes_for_training: bool = False
    policy: Policy = ()
    depth_fill: int = 0

    def __post_init__(self) -> None:
        if min(self.crop_size) < 1:
            raise ConfigError(f"crop_size is {self.crop_size}; both sides must be > 0")
        if self.max_size is not None and (
            self.max_size[0] > self.crop_size[0] or self.max_size[1] > self.crop_size[1]
        ):
            raise ConfigError(
                f"max_resize_value is {self.max_size}; it must not exceed crop_size, "
                f"which is {self.crop_size}"
            )

    @classmethod
    def from_options(
        cls,
        options: DatasetOptions,
        label_fill: int,
        *,
        depth_fill: int = 0,
        scale: float = 1.0,
    ) -> "PreprocessSettings":
        """Reads the settings from the data-set options of a configuration.

        Args:
            options: The options.
            label_fill: Label of padded pixels.
            depth_fill: Depth of padded pixels.
            scale: Multiplies the bounds of the random scale.

        Raises:
            ConfigError: If a value makes no sense.
        """
        crop_size = _size("crop_size", options.crop_size)
        if crop_size is None:
            raise ConfigError("crop_size is not set; it must be height and width")
        augmentations = options.augmentations
        low = augmentations.min_scale_factor * scale
        high = augmentations.max_scale_factor * scale
        policy_name = augmentations.autoaugment_policy_name
        step = augmentations.scale_factor_step_size
        is_continuous = step == 0 and low != high
        return cls(
            crop_size=crop_size,
            label_fill=label_fill,
            min_size=_size("min_resize_value", options.min_resize_value),
            max_size=_size("max_resize_value", options.max_resize_value),
            resize_factor=options.resize_factor,
            scales=(1.0,) if is_continuous else scale_grid(low, high, step),
            scale_range=(low, high) if is_continuous else None,
            # A list holding 0 means "no limit", yet lets resize_factor act.
            resizes_for_training=bool(
                options.min_resize_value or options.max_resize_value
            ),
            policy=get_policy(policy_name) if policy_name else (),
            depth_fill=depth_fill,
        )


def scale_grid(low: float, high: float, step: float) -> tuple[float, ...]:
    """Gives the random scales between two bounds.

    The published configurations hold single-precision floats, and their number of
    scales follows from that: 0.5 to 2.0 in steps of 0.1 are 15 scales, 0.107 apart.

    Raises:
        ConfigError: If the bounds are not positive and in order, or the step is not
            positive where it is needed.
    """
    if not 0 < low <= high:
        raise ConfigError(
            f"augmentations: min_scale_factor is {low:g} and max_scale_factor "
            f"{high:g}; they must be positive and in this order"
        )
    if low == high:
        return (low,)
    if step <= 0:
        raise ConfigError(
            f"augmentations: scale_factor_step_size is {step:g}; it must not be "
            "negative (0 means any scale in the range)"
        )
    count = int((high - low) / step + 1)
    return tuple(float(scale) for scale in np.linspace(low, high, count, dtype="f4"))


def training_view(view: View, settings: PreprocessSettings, draws: Draws) -> View:
    """Cuts a randomly scaled, colored, placed and flipped crop.

    An enlarged scene is a nearer one: depth is divided by the scale.

    Args:
        view: As stored; with a label.
        settings: Sizes, scales and colors.
        draws: Decides the random events.

    Returns:
        The view of the crop size, image float32.
    """
    if settings.resizes_for_training:
        size = resized_size(tf.shape(view.image)[:2], settings, settings.max_size)
        view = _resize(view, size)

    scale = _draw_scale(settings, draws)
    size = tf.cast(tf.shape(view.image)[:2], tf.float32) * scale
    size = tf.cast(size, tf.int32)
    image = resize_image(view.image, size)
    if settings.policy:
        image = jitter_colors(image, settings.policy, draws)

    crop = tf.constant(settings.crop_size)
    surplus = tf.maximum(size - crop, 0)
    top = draws.integer(Event.CROP_Y, surplus[0] + 1)
    left = draws.integer(Event.CROP_X, surplus[1] + 1)
    kept = size - surplus
    # Of labels and depth only the pixels of the crop are resized.
    rows = _nearest_positions(tf.shape(view.image)[0], size[0])[top : top + kept[0]]
    columns = _nearest_positions(tf.shape(view.image)[1], size[1])
    columns = columns[left : left + kept[1]]
    view = View(
        image[top : top + kept[0], left : left + kept[1]],
        None if view.label is None else _pick(view.label, rows, columns),
        None if view.depth is None else _pick(view.depth, rows, columns),
    )
    if view.depth is not None:
        depth = tf.cast(tf.cast(view.depth, tf.float32) / scale, tf.int32)
        view = view._replace(depth=depth)

    # The last possible place of a smaller image is never drawn, as in the original.
    above = draws.integer(Event.PAD_Y, tf.maximum(crop[0] - kept[0], 1))
    before = draws.integer(Event.PAD_X, tf.maximum(crop[1] - kept[1], 1))
    is_flipped = draws.uniform(Event.FLIP) <= 0.5

    def to_crop(values: Any, fill: float) -> Any:
        values = pad(values, above, before, settings.crop_size, fill)
        return tf.cond(is_flipped, lambda: values[:, ::-1], lambda: values)

    return _for_each(view, settings, to_crop)


def evaluation_view(view: View, settings: PreprocessSettings) -> tuple[Any, View]:
    """Shrinks an image that is larger than the crop and pads it at bottom and right.

    Args:
        view: As stored.
        settings: Sizes; scales and colors have no effect.

    Returns:
        The resized image before padding, `[h, w, C]` float32, and the view of the
        crop size.
    """
    size = resized_size(
        tf.shape(view.image)[:2], settings, settings.max_size or settings.crop_size
    )
    resized = _resize(view, size)

    def to_crop(values: Any, fill: float) -> Any:
        return pad(values, 0, 0, settings.crop_size, fill)

    return resized.image, _for_each(resized, settings, to_crop)


def resized_size(size: Any, settings: PreprocessSettings, max_size: Size | None) -> Any:
    """Gives the size an image is resized to.

    First both sides reach `min_size`, then no side passes `max_size`, then sides grow
    to a multiple of `resize_factor` plus one. Ratios are rounded to single precision
    before they multiply the sides, and the products are cut to whole pixels.

    Args:
        size: `[2]` int32, height and width.
        settings: Gives `min_size` and `resize_factor`.
        max_size: Maximum, or None for none.

    Returns:
        `[2]` int32.
    """
    factor = settings.resize_factor
    if settings.min_size is not None:
        minimum = tf.constant(settings.min_size, tf.float64)
        size = _scaled(size, tf.reduce_max(minimum / tf.cast(size, tf.float64)))
    if max_size is not None:
        if factor > 0:
            max_size = (
                max_size[0] - (max_size[0] - 1) % factor,
                max_size[1] - (max_size[1] - 1) % factor,
            )
        maximum = tf.constant(max_size, tf.float64)
        ratio = tf.reduce_min(maximum / tf.cast(size, tf.float64))
        size = _scaled(size, tf.minimum(ratio, 1.0))
    if factor > 0:
        size += (factor - (size - 1) % factor) % factor
    return size


def resize_image(image: Any, size: Any) -> Any:
    """Resizes `[H, W, C]` bilinearly, corners aligned; returns float32."""
    return tf.raw_ops.ResizeBilinear(
        images=image[tf.newaxis], size=size, align_corners=True
    )[0]


def resize_label(label: Any, size: Any) -> Any:
    """Resizes `[H, W, L]` to the nearest pixel, corners aligned, halves rounded up."""
    rows, columns = (
        _nearest_positions(tf.shape(label)[axis], size[axis]) for axis in (0, 1)
    )
    return _pick(label, rows, columns)


def pad(values: Any, above: Any, before: Any, size: Size, fill: float) -> Any:
    """Places `[H, W, C]` at (above, before) on a canvas of the given size and fill."""
    height, width = tf.unstack(tf.shape(values)[:2])
    below, behind = size[0] - height - above, size[1] - width - before
    padded = tf.pad(
        values, [[above, below], [before, behind], [0, 0]], constant_values=fill
    )
    return tf.ensure_shape(padded, [*size, values.shape[-1]])


def _nearest_positions(length: Any, new_length: Any) -> Any:
    """Gives the nearest source position of every output position: `[new]` int32."""
    last, new_last = (
        tf.cast(tf.maximum(side - 1, 0), tf.float32) for side in (length, new_length)
    )
    positions = tf.range(tf.cast(new_length, tf.float32)) * (
        last / tf.maximum(new_last, 1.0)
    )
    # Half away from zero; tf.round would round half to even.
    below = tf.floor(positions)
    nearest = below + tf.cast(positions - below >= 0.5, tf.float32)
    return tf.cast(tf.minimum(nearest, last), tf.int32)


def _pick(values: Any, rows: Any, columns: Any) -> Any:
    """Picks rows and columns of `[H, W, C]`."""
    return tf.gather(tf.gather(values, rows), columns, axis=1)


def _resize(view: View, size: Any) -> View:
    return View(
        resize_image(view.image, size),
        None if view.label is None else resize_label(view.label, size),
        None if view.depth is None else resize_label(view.depth, size),
    )


def _for_each(
    view: View, settings: PreprocessSettings, function: Callable[[Any, float], Any]
) -> View:
    """Applies a function of values and the fill of new pixels to the parts."""
    return View(
        function(view.image, IMAGE_FILL),
        None if view.label is None else function(view.label, settings.label_fill),
        None if view.depth is None else function(view.depth, settings.depth_fill),
    )


def _draw_scale(settings: PreprocessSettings, draws: Draws) -> Any:
    if settings.scale_range is not None:
        low, high = settings.scale_range
        return low + draws.uniform(Event.SCALE) * (high - low)
    choice = draws.integer(Event.SCALE, len(settings.scales))
    return tf.gather(tf.constant(settings.scales, tf.float32), choice)


def _scaled(size: Any, ratio: Any) -> Any:
    scaled = tf.cast(size, tf.float32) * tf.cast(ratio, tf.float32)
    return tf.cast(tf.floor(scaled), tf.int32)


def _size(field: str, values: tuple[int, ...]) -> Size | None:
    """Reads a size option: nothing, one number for both sides, or (height, width)."""
    if len(values) > 2:
        raise ConfigError(
            f"{field} is {list(values)}; it must be one number or height and width"
        )
    if not values or min(values) <= 0:
        return None
    return values[0], values[-1]
