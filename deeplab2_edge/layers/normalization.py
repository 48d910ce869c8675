"""Batch normalization as every layer of the models uses it."""

from collections.abc import Sequence
from typing import Any

from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.optional import require

tf_keras: Any = require("tf_keras", extra="train")


def batch_norm(
    name: str,
    defaults: LayerDefaults,
    *,
    gamma: float = 1.0,
    axis: int | Sequence[int] = -1,
) -> Any:
    """Makes a batch normalization layer.

    Args:
        name: Checkpoint path.
        defaults: Momentum, epsilon and synchronization.
        gamma: First value of the scale. 0 makes a residual branch start silent.
        axis: Axes that keep statistics of their own.
    """
    return tf_keras.layers.BatchNormalization(
        axis=axis,
        momentum=defaults.batch_norm_momentum,
        epsilon=defaults.batch_norm_epsilon,
        synchronized=defaults.synchronize_batch_norm,
        gamma_initializer=tf_keras.initializers.Constant(gamma),
        name=name,
    )
