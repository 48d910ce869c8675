"""Pixel losses: cross entropy of classes, distances of heatmaps and offsets.

Every function gives one value per sample. Weights multiply the pixel losses before
the hardest pixels are chosen (see `reduction.mean_of_hardest`), so they also decide
which pixels are mined.
"""

from collections.abc import Sequence
from typing import Any

from deeplab2_edge.optional import require
from deeplab2_edge.train.losses.reduction import mean_of_hardest

tf = require("tensorflow", extra="train")


def softmax_cross_entropy(
    target: Any,
    logits: Any,
    weight: Any,
    *,
    ignore_label: int | None = None,
    top_k_fraction: float = 1.0,
) -> Any:
    """Gives the cross entropy between class labels and logits.

    Where the logits are smaller than the labels, the labels are strided down to them:
    the stride `(H - 1) / (h - 1)` must be whole and equal on both axes.

    Args:
        target: `[B, H, W]` integer classes; or `[B, H, W, C]` float class
            distributions, in which nothing is ignored.
        logits: `[B, h, w, C]` float32.
        weight: `[B, H, W]` float32.
        ignore_label: Label of pixels without a class. Labels outside `0..C-1` have
            zero loss as well.
        top_k_fraction: Share of the pixels that are kept.

    Returns:
        `[B]` float32.

    Raises:
        ValueError: If the sizes do not fit each other.
    """
    size = logits.shape[1:3]
    target, weight = stride_to(target, size), stride_to(weight, size)
    if target.shape.rank == 4:
        entropy = tf.nn.softmax_cross_entropy_with_logits(target, logits)
        return mean_of_hardest(entropy * weight, top_k_fraction)
    has_class = (target >= 0) & (target < logits.shape[-1])
    if ignore_label is not None:
        has_class &= target != ignore_label
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(
        tf.where(has_class, target, 0), logits
    )
    return mean_of_hardest(
        entropy * weight * tf.cast(has_class, tf.float32), top_k_fraction
    )


def mse(target: Any, prediction: Any, weight: Any, *, top_k_fraction: float) -> Any:
    """Gives the squared difference, averaged over channels if there are any.

    Args:
        target: `[B, H, W]` or `[B, H, W, C]` float32.
        prediction: Shaped like `target`.
        weight: `[B, H, W]` float32.
        top_k_fraction: Share of the pixels that are kept.

    Returns:
        `[B]` float32.
    """
    difference = tf.math.squared_difference(target, prediction)
    return mean_of_hardest(_mean_over_channels(difference) * weight, top_k_fraction)


def l1(target: Any, prediction: Any, weight: Any, *, top_k_fraction: float) -> Any:
    """Gives the absolute difference; arguments and result as for `mse`."""
    difference = tf.abs(target - prediction)
    return mean_of_hardest(_mean_over_channels(difference) * weight, top_k_fraction)


def _mean_over_channels(values: Any) -> Any:
    return tf.reduce_mean(values, axis=-1) if values.shape.rank == 4 else values


def stride_to(labels: Any, size: Sequence[Any]) -> Any:
    """Takes every n-th row and column of labels, corners on corners.

    Args:
        labels: `[B, H, W, ...]`.
        size: `(h, w)`; `(H - 1) / (h - 1)` must be whole and equal on both axes.

    Raises:
        ValueError: If it is not, or a side is unknown.
    """
    height, width = labels.shape[1:3]
    head_height, head_width = size
    if None in (height, width, head_height, head_width):
        raise ValueError(
            f"labels are {labels.shape} and logits {tuple(size)}; the loss needs "
            "their height and width to be known when the graph is built"
        )
    if (height, width) == (head_height, head_width):
        return labels
    stride = (height - 1) // max(head_height - 1, 1)
    if stride < 1 or (height, width) != (
        (head_height - 1) * stride + 1,
        (head_width - 1) * stride + 1,
    ):
        raise ValueError(
            f"labels of {height}x{width} pixels cannot be strided down to logits of "
            f"{head_height}x{head_width}; each side must be stride * (side - 1) + 1, "
            "with one whole stride for both"
        )
    return labels[:, ::stride, ::stride]
