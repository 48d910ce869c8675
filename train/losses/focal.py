"""Cross entropy of classes that weighs easy examples and background down."""

from typing import Any

from deeplab2_edge.optional import require
from deeplab2_edge.train.losses.reduction import mean_of_hardest

tf: Any = require("tensorflow", extra="train")


def focal_cross_entropy(
    target: Any, logits: Any, weight: Any, *, alpha: float | None, gamma: float
) -> Any:
    """Gives the mean focal cross entropy over the examples whose loss is not 0.

    Args:
        target: `[B, N, C]` float32, one-hot; the last class is background.
        logits: `[B, N, C]` float32.
        weight: `[B, N]` float32.
        alpha: Factor of examples of the other classes; background has `1 - alpha`.
            None weighs all alike.
        gamma: Power of `1 - p`, `p` the probability of the right class; 0 for none.

    Returns:
        `[B]` float32.

    References:
        Lin et al., Focal loss for dense object detection, ICCV 2017, arXiv:1708.02002.
    """
    losses = tf.nn.softmax_cross_entropy_with_logits(target, logits)
    if gamma != 0.0:
        right = tf.reduce_sum(tf.nn.softmax(logits) * target, axis=-1)
        losses *= tf.pow(1.0 - right, gamma)
    if alpha is not None:
        is_background = target[..., -1]
        losses *= alpha * (1.0 - is_background) + (1.0 - alpha) * is_background
    return mean_of_hardest(losses * weight, 1.0)
