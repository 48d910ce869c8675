"""How well masks cover each other."""

from typing import Any

from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="train")

# Keeps the similarity of two empty masks at 0.
_EPSILON = 1e-5


def mask_similarity(
    intersection: Any, target_area: Any, predicted_area: Any, *, metric: str = "dice"
) -> Any:
    """Gives the intersection of masks as a share of their size.

    Args:
        intersection: `[B, G, S]` float32 pixels that masks share, see `intersect`.
        target_area: `[B, G]` float32 pixels of the labelled masks.
        predicted_area: `[B, S]` float32 pixels of the predicted ones.
        metric: The size: `dice` takes the mean of both, `iou` their union,
            `intersection_over_ground_truth` and `intersection_over_prediction` one
            of them.

    Returns:
        `[B, G, S]` float32 in 0..1, 0 where the size is 0.
    """
    target_area = target_area[:, :, None]
    predicted_area = predicted_area[:, None, :]
    if metric == "dice":
        size = (target_area + predicted_area) / 2
    elif metric == "iou":
        size = target_area + predicted_area - intersection
    elif metric == "intersection_over_ground_truth":
        size = target_area
    elif metric == "intersection_over_prediction":
        size = predicted_area
    else:
        raise ValueError(f"unknown similarity of masks {metric!r}")
    return intersection / (size + _EPSILON)


def intersect(target: Any, prediction: Any) -> Any:
    """Counts the pixels that labelled and predicted masks share.

    Args:
        target: `[B, G, P]` float32, 0 or 1.
        prediction: `[B, P, S]` float32 in 0..1.

    Returns:
        `[B, G, S]` float32. It is a product of matrices, so devices that round its
        factors (TPU: 8 bits, GPU with TensorFloat-32: 11) do so here.
    """
    return tf.matmul(target, prediction)


def dice_loss(intersection: Any, target_area: Any, predicted_area: Any) -> Any:
    """Gives 1 minus the dice coefficient, with one pixel added to all three areas.

    The pixel keeps the gradient finite and makes two empty masks equal. Arguments have
    one shape, which is the result's.

    References:
        Milletari et al., V-Net, 3DV 2016, arXiv:1606.04797.
    """
    return 1.0 - (2.0 * intersection + 1.0) / (target_area + predicted_area + 1.0)
