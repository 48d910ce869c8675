"""The depth loss: errors of scale-invariant and of relative depth."""

from typing import Any

from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="train")


def depth_loss(target: Any, prediction: Any, *, ignore_depth: float | None) -> Any:
    """Gives the sum of the two depth errors; arguments and result as theirs.

    References:
        Qiao et al., ViP-DeepLab, CVPR 2021, arXiv:2012.05258.
    """
    return scale_invariant_error(
        target, prediction, ignore_depth=ignore_depth
    ) + relative_squared_error(target, prediction, ignore_depth=ignore_depth)


def scale_invariant_error(
    target: Any, prediction: Any, *, ignore_depth: float | None
) -> Any:
    """Gives the variance of the logarithm of predicted over true depth.

    Args:
        target: `[B, ...]` float32 depth in metres, above 0 where it counts.
        prediction: As many values as `target`, above 0 where it counts.
        ignore_depth: Value of pixels without depth, usually 0.

    Returns:
        `[B]` float32; 0, with gradient 0, for samples without depth. (The published
        loss is not a number there.)

    References:
        Eigen et al., NeurIPS 2014, arXiv:1406.2283, with a weight of 1 on the square
        of the mean.
    """
    target, prediction, is_known = _flatten(target, prediction, ignore_depth)
    error = tf.math.log(target) - tf.math.log(prediction)
    return _mean(tf.square(error), is_known) - tf.square(_mean(error, is_known))


def relative_squared_error(
    target: Any, prediction: Any, *, ignore_depth: float | None
) -> Any:
    """Gives the root mean square of the error as a share of the true depth.

    Arguments and result are those of `scale_invariant_error`. Where nothing is wrong
    at all, the gradient is 0.
    """
    target, prediction, is_known = _flatten(target, prediction, ignore_depth)
    mean = _mean(tf.square((target - prediction) / target), is_known)
    is_zero = mean == 0.0
    # The root has no gradient at 0; the masked branch must not reach it either.
    return tf.where(is_zero, 0.0, tf.sqrt(tf.where(is_zero, 1.0, mean)))


def _flatten(
    target: Any, prediction: Any, ignore_depth: float | None
) -> tuple[Any, Any, Any]:
    """Gives `[B, M]` depths, 1 where none is known, and where it is."""
    target = tf.reshape(target, [tf.shape(target)[0], -1])
    prediction = tf.reshape(prediction, tf.shape(target))
    if ignore_depth is None:
        is_known = tf.ones_like(target, tf.bool)
    else:
        is_known = target != ignore_depth
    return (
        tf.where(is_known, target, 1.0),
        tf.where(is_known, prediction, 1.0),
        is_known,
    )


def _mean(values: Any, is_known: Any) -> Any:
    known = tf.cast(is_known, tf.float32)
    return tf.math.divide_no_nan(
        tf.reduce_sum(values * known, axis=1), tf.reduce_sum(known, axis=1)
    )
