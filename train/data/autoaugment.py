"""Color jitter by learned policies: one of five pairs of operations per image.

The operations work on uint8 images as in the published system, peculiarities
included: the policies were tuned with them.

References:
    Cubuk et al., AutoAugment, CVPR 2019, arXiv:1805.09501.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from deeplab2_edge.errors import ConfigError
from deeplab2_edge.optional import require
from deeplab2_edge.train.data.draws import Draws, Event

tf = require("tensorflow", extra="train")

_RGB = 3


@dataclass(frozen=True)
class Step:
    """Applies an operation with a probability.

    Attributes:
        operation: Key of `OPERATIONS`.
        probability: In 0..1.
        level: Strength, 0..10.
    """

    operation: str
    probability: float
    level: float


Policy = tuple[tuple[Step, Step], ...]

_SIMPLE_CLASSIFICATION: Policy = (
    (Step("Sharpness", 0.4, 7), Step("Brightness", 0.2, 10)),
    (Step("Equalize", 0.0, 9), Step("Contrast", 0.2, 10)),
    (Step("Sharpness", 0.2, 9), Step("Color", 0.2, 9)),
    (Step("Solarize", 0.2, 7), Step("Equalize", 0.6, 9)),
    (Step("Sharpness", 0.2, 1), Step("Equalize", 0.2, 7)),
)
# What the levels are multiplied with. At 0.2 every factor is below 0.5, so that
# images get darker, paler and softer.
_MAGNITUDE_SCALES = {
    "simple_classification_policy": 1.0,
    "simple_classification_policy_magnitude_scale_0.2": 0.2,
}


def get_policy(name: str) -> Policy:
    """Gives the policy of a name.

    Raises:
        ConfigError: If there is none of that name.
    """
    if name not in _MAGNITUDE_SCALES:
        raise ConfigError(
            f"augmentations.autoaugment_policy_name is {name!r}; expected one of "
            f"{', '.join(_MAGNITUDE_SCALES)}"
        )
    scale = _MAGNITUDE_SCALES[name]
    return tuple(
        (
            Step(first.operation, first.probability, first.level * scale),
            Step(second.operation, second.probability, second.level * scale),
        )
        for first, second in _SIMPLE_CLASSIFICATION
    )


def jitter_colors(image: Any, policy: Policy, draws: Draws) -> Any:
    """Applies a random row of a policy.

    The frames of one sample get the same operations, so that they still look like
    one video; the published system draws anew for the second frame.

    Args:
        image: `[H, W, 3 F]` in 0..255: F frames, fractions are cut off.
        policy: See `get_policy`.
        draws: Decides row and operations.

    Returns:
        `[H, W, 3 F]` float32, whole numbers in 0..255.
    """
    num_frames = image.shape[-1] // _RGB
    frames = tf.split(tf.cast(image, tf.uint8), num_frames, axis=-1)
    branches = [functools.partial(_apply_row, frames, row, draws) for row in policy]
    row = draws.integer(Event.JITTER_ROW, len(policy))
    jittered = tf.switch_case(row, branches)
    jittered = tf.ensure_shape(tf.concat(jittered, axis=-1), image.shape)
    return tf.cast(jittered, tf.float32)


def _apply_row(frames: Sequence[Any], row: tuple[Step, Step], draws: Draws) -> Any:
    for step, event in zip(row, (Event.JITTER_FIRST, Event.JITTER_SECOND), strict=True):
        fires = tf.floor(draws.uniform(event) + step.probability) == 1.0
        frames = tf.cond(
            fires,
            functools.partial(_apply_step, frames, step),
            functools.partial(list, frames),
        )
    return frames


def _apply_step(frames: Sequence[Any], step: Step) -> list[Any]:
    return [apply_operation(frame, step.operation, step.level) for frame in frames]


def apply_operation(image: Any, name: str, level: float) -> Any:
    """Applies one operation to `[H, W, 3]` uint8.

    Args:
        image: RGB.
        name: Key of `OPERATIONS`.
        level: Strength, 0..10.
    """
    argument = operation_argument(name, level)
    operation = OPERATIONS[name]
    return operation(image) if argument is None else operation(image, argument)


def operation_argument(name: str, level: float) -> float | int | None:
    """Gives what a level means to an operation; None if it takes no argument.

    For blending operations it is a factor, 1 at level 5; for Solarize a gray level;
    for Posterize a number of bits.
    """
    if name in ("AutoContrast", "Equalize", "Invert"):
        return None
    if name == "Posterize":
        return int(level / 10 * 4)
    if name == "Solarize":
        return int(level / 10 * 256)
    return level / 10 * 1.8 + 0.1


def blend(degenerate: Any, image: Any, factor: float) -> Any:
    """Mixes two uint8 images: 0 gives the first, 1 the second, above 1 goes beyond."""
    if factor in (0.0, 1.0):
        return image if factor else degenerate
    first = tf.cast(degenerate, tf.float32)
    mixed = first + factor * (tf.cast(image, tf.float32) - first)
    return tf.cast(tf.clip_by_value(mixed, 0.0, 255.0), tf.uint8)


def _color(image: Any, factor: float) -> Any:
    gray = tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(image))
    return blend(gray, image, factor)


def _contrast(image: Any, factor: float) -> Any:
    # The published system averages the counts of the histogram, not the gray levels:
    # its "mean" is a 256th of the number of pixels, white for any usual image.
    gray = tf.minimum(tf.reduce_prod(tf.shape(image)[:2]) // 256, 255)
    return blend(tf.fill(tf.shape(image), tf.cast(gray, tf.uint8)), image, factor)


def _brightness(image: Any, factor: float) -> Any:
    return blend(tf.zeros_like(image), image, factor)


def _sharpness(image: Any, factor: float) -> Any:
    kernel = tf.constant([[1.0, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13.0
    smooth = tf.nn.depthwise_conv2d(
        tf.cast(image[tf.newaxis], tf.float32),
        tf.tile(kernel[:, :, tf.newaxis, tf.newaxis], [1, 1, _RGB, 1]),
        strides=[1, 1, 1, 1],
        padding="VALID",
    )[0]
    smooth = tf.cast(tf.clip_by_value(smooth, 0.0, 255.0), tf.uint8)
    # The border is not smoothed.
    rows = tf.concat([image[1:-1, :1], smooth, image[1:-1, -1:]], axis=1)
    smooth = tf.concat([image[:1], rows, image[-1:]], axis=0)
    return blend(smooth, image, factor)


def _solarize(image: Any, threshold: int) -> Any:
    # A threshold of 256 does not fit into uint8 and becomes 0, as published.
    return tf.where(image < tf.constant(threshold % 256, tf.uint8), image, 255 - image)


def _posterize(image: Any, bits: int) -> Any:
    # A shift by all 8 bits is not defined; the published system keeps the top bit.
    shift = tf.constant(min(8 - bits, 7), tf.uint8)
    return tf.bitwise.left_shift(tf.bitwise.right_shift(image, shift), shift)


def _invert(image: Any) -> Any:
    return 255 - image


def _auto_contrast(image: Any) -> Any:
    """Stretches every channel to 0..255."""
    values = tf.cast(image, tf.float32)
    low = tf.reduce_min(values, axis=(0, 1))
    high = tf.reduce_max(values, axis=(0, 1))
    scale = 255.0 / tf.maximum(high - low, 1.0)
    stretched = tf.clip_by_value(values * scale - low * scale, 0.0, 255.0)
    return tf.where(high > low, tf.cast(stretched, tf.uint8), image)


def _equalize(image: Any) -> Any:
    """Makes the gray levels of every channel about equally frequent."""
    return tf.stack([_equalize_channel(image[..., c]) for c in range(_RGB)], axis=-1)


def _equalize_channel(channel: Any) -> Any:
    gray = tf.cast(channel, tf.int32)
    histogram = tf.math.bincount(tf.reshape(gray, [-1]), minlength=256, maxlength=256)
    last = tf.boolean_mask(histogram, histogram > 0)[-1]
    step = (tf.reduce_sum(histogram) - last) // 255
    below = tf.cumsum(histogram, exclusive=True)
    table = tf.minimum((below + step // 2) // tf.maximum(step, 1), 255)
    table = tf.tensor_scatter_nd_update(table, [[0]], [0])
    equalized = tf.cast(tf.gather(table, gray), tf.uint8)
    return tf.where(step > 0, equalized, channel)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "AutoContrast": _auto_contrast,
    "Equalize": _equalize,
    "Invert": _invert,
    "Posterize": _posterize,
    "Solarize": _solarize,
    "Color": _color,
    "Contrast": _contrast,
    "Brightness": _brightness,
    "Sharpness": _sharpness,
}
