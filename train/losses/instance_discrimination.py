"""Instance discrimination: pixels of one mask look alike, those of others do not."""

from collections.abc import Callable
from typing import Any

from deeplab2_edge.optional import require
from deeplab2_edge.train.losses.mask_targets import MaskTargets
from deeplab2_edge.train.losses.reduction import mean_of_hardest

tf: Any = require("tensorflow", extra="train")

# MaX-DeepLab, section 3.5.
_TEMPERATURE = 0.3
# Of masks that are not there and pixels that may not be drawn.
_IMPOSSIBLE = -99999.0
# Picks the random stream; any constant serves.
_STREAM = 0x1D5C


def mask_discrimination(
    feature: Any, targets: MaskTargets, *, top_k_fraction: float
) -> Any:
    """Tells every thing pixel's mask by the mean features of all masks.

    Args:
        feature: `[B, P, D]` float32 unit vectors.
        targets: The labelled masks.
        top_k_fraction: Share of the pixels that are kept.

    Returns:
        `[B]` float32 cross entropy over thing pixels; 0 without any.

    References:
        Wang et al., MaX-DeepLab, CVPR 2021, arXiv:2012.00759, section 3.5.
    """
    mean = tf.matmul(targets.masks, feature) / tf.maximum(targets.area, 1.0)[..., None]
    mean = tf.math.l2_normalize(mean, axis=-1)
    logits = tf.matmul(feature, mean, transpose_b=True) / _TEMPERATURE
    logits = tf.where(targets.is_present[:, None, :], logits, _IMPOSSIBLE)
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(
        tf.maximum(targets.mask_of, 0), logits
    )
    counts = targets.is_thing & (targets.mask_of >= 0)
    return mean_of_hardest(tf.where(counts, entropy, 0.0), top_k_fraction)


def pixel_discrimination(
    feature: Any,
    targets: MaskTargets,
    *,
    sample_k: int,
    sample_temperature: float,
    top_k_fraction: float,
    seed_source: Callable[[], Any] | None,
) -> Any:
    """Tells which of some random pixels share a mask with each of them.

    Pixels are drawn without replacement, the ones of small masks more often: the odds
    are those of `(1 / area) ** sample_temperature`; void comes last.

    Args:
        feature: `[B, P, D]` float32 unit vectors.
        targets: The labelled masks.
        sample_k: Pixels drawn; all of them if there are fewer.
        sample_temperature: 0 draws all pixels alike, 1 all masks.
        top_k_fraction: Share of the drawn pixels that are kept.
        seed_source: Returns an int64 that changes every step, so that a resumed run
            draws what an uninterrupted one draws. None draws at random.

    Returns:
        `[B]` float32 cross entropy; a drawn pixel without mask has none.

    References:
        The variant of Yu et al., kMaX-DeepLab, ECCV 2022, arXiv:2207.04044.
    """
    drawn = draw_pixels(
        targets, sample_k, temperature=sample_temperature, seed_source=seed_source
    )
    feature = tf.gather(feature, drawn, batch_dims=1)
    mask = tf.gather(targets.mask_of, drawn, batch_dims=1)

    is_same = (mask[:, :, None] == mask[:, None, :]) & (mask[:, :, None] >= 0)
    target = tf.cast(is_same, tf.float32)
    target /= tf.maximum(tf.reduce_sum(target, axis=2, keepdims=True), 1.0)
    logits = tf.matmul(feature, feature, transpose_b=True) / _TEMPERATURE
    entropy = tf.nn.softmax_cross_entropy_with_logits(target, logits)
    return mean_of_hardest(entropy, top_k_fraction)


def draw_pixels(
    targets: MaskTargets,
    sample_k: int,
    *,
    temperature: float,
    seed_source: Callable[[], Any] | None,
) -> Any:
    """Draws the pixels of `pixel_discrimination`: `[B, sample_k]` int32 indices."""
    odds = temperature * tf.math.log(targets.inverse_area())
    odds += tf.where(targets.is_labelled, 0.0, _IMPOSSIBLE)
    noise = _gumbel(tf.shape(odds), seed_source)
    sample_k = min(sample_k, odds.shape[1])
    return tf.math.top_k(odds + noise, k=sample_k, sorted=False).indices


def _gumbel(shape: Any, seed_source: Callable[[], Any] | None) -> Any:
    """Draws noise by which the largest sums are a draw without replacement."""
    smallest = 1e-30
    if seed_source is None:
        uniform = tf.random.uniform(shape, smallest, 1.0)
    else:
        seed = tf.stack([tf.constant(_STREAM, tf.int64), seed_source()])
        uniform = tf.random.stateless_uniform(shape, seed, smallest, 1.0, alg="philox")
    return -tf.math.log(-tf.math.log(uniform))
