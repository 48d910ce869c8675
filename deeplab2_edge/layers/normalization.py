"""Batch normalization as every layer of the models uses it."""

from collections.abc import Sequence
from typing import Any

from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.layers.replay import is_second
from deeplab2_edge.optional import require

tf_keras: Any = require("tf_keras", extra="train")


@tf_keras.utils.register_keras_serializable(package="deeplab2_edge")
class RepeatableBatchNormalization(tf_keras.layers.BatchNormalization):  # type: ignore[misc]
    """Is Keras' layer, whose moving statistics do not count a pass twice.

    A network that does not recompute keeps Keras' own class: tools for quantization
    look for it by name.
    """

    def _assign_moving_average(self, variable: Any, *args: Any, **kwargs: Any) -> Any:
        if is_second():
            return None
        return super()._assign_moving_average(variable, *args, **kwargs)

    def _assign_new_value(self, variable: Any, value: Any) -> Any:
        return None if is_second() else super()._assign_new_value(variable, value)


def batch_norm(
    name: str,
    defaults: LayerDefaults,
    *,
    gamma: float = 1.0,
    axis: int | Sequence[int] = -1,
    dtype: str | None = None,
) -> Any:
    """Makes a batch normalization layer.

    Args:
        name: Checkpoint path.
        defaults: Momentum, epsilon and synchronization.
        gamma: First value of the scale. 0 makes a residual branch start silent.
        axis: Axes that keep statistics of their own.
        dtype: Of the result; by default that of the precision policy. Statistics are
            float32 in any case.
    """
    layer = (
        RepeatableBatchNormalization
        if defaults.recompute
        else tf_keras.layers.BatchNormalization
    )
    return layer(
        axis=axis,
        momentum=defaults.batch_norm_momentum,
        epsilon=defaults.batch_norm_epsilon,
        synchronized=defaults.synchronize_batch_norm,
        gamma_initializer=tf_keras.initializers.Constant(gamma),
        dtype=dtype,
        name=name,
    )
