"""Switchable atrous convolution: two dilations of one kernel, mixed per pixel.

References:
    Qiao et al., DetectoRS, CVPR 2021, arXiv:2006.02334, section 3.3.
"""

from typing import Any

from deeplab2_edge.layers.activations import activate
from deeplab2_edge.layers.conv import conv
from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.layers.normalization import batch_norm
from deeplab2_edge.layers.pooling import global_mean
from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="train")
tf_keras: Any = require("tf_keras", extra="train")

# The second look uses this many times the dilation of the first.
_RATE_RATIO = 3
# Side of the window the switch looks at.
_SWITCH_WINDOW = 5


def switchable_atrous_conv(
    x: Any,
    path: str,
    filters: int,
    *,
    defaults: LayerDefaults,
    kernel_size: int = 3,
    stride: int = 1,
    rate: int = 1,
    activation: str = "relu",
    gamma: float = 1.0,
) -> Any:
    """Adds a switchable atrous convolution between two global contexts.

    `s * conv(x, 3 * rate) + (1 - s) * conv(x, rate)` with one kernel; `s`, one number
    per pixel, is a linear function of a 5x5 mean and is not squashed. Where the
    convolution strides there is no switch, but both contexts stay, as in the
    published weights.

    Arguments and result are those of `layers.conv.conv`.
    """
    x = _global_context(x, f"{path}/_pre_global_context")
    if stride > 1:
        return conv(
            x,
            path,
            filters,
            defaults=defaults,
            kernel_size=kernel_size,
            stride=stride,
            rate=rate,
            activation=activation,
            gamma=gamma,
            before_norm=lambda y: _global_context(y, f"{path}/_post_global_context"),
        )
    # Average pooling leaves the zeros of the padding out of its count.
    switch = tf_keras.layers.AveragePooling2D(
        _SWITCH_WINDOW, strides=1, padding="same", name=f"{path}/_conv/_switch_mean"
    )(x)
    switch = tf_keras.layers.Conv2D(
        1, 1, kernel_initializer="zeros", name=f"{path}/_conv/_switch"
    )(switch)
    x = SwitchedConv2D(filters, kernel_size, rate, name=f"{path}/_conv")([x, switch])
    x = _global_context(x, f"{path}/_post_global_context")
    x = batch_norm(f"{path}/_batch_norm", defaults, gamma=gamma)(x)
    return activate(x, f"{path}/_activation", activation, defaults.hard_swish)


@tf_keras.utils.register_keras_serializable(package="deeplab2_edge")
class SwitchedConv2D(tf_keras.layers.Layer):  # type: ignore[misc]
    """Mixes a convolution at `rate` and at `3 * rate` by a given switch.

    Inputs are the feature `[B, H, W, C]` and the switch `[B, H, W, 1]`.
    """

    def __init__(self, filters: int, kernel_size: int, rate: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.rate = rate

    def build(self, input_shape: Any) -> None:
        channels = int(input_shape[0][-1])
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.kernel_size, self.kernel_size, channels, self.filters),
            initializer="he_normal",
        )
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        x, switch = inputs
        near, far = (
            tf.nn.conv2d(x, self.kernel, strides=1, padding="SAME", dilations=rate)
            for rate in (self.rate, _RATE_RATIO * self.rate)
        )
        return near + switch * (far - near)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "rate": self.rate,
        }


def _global_context(x: Any, path: str) -> Any:
    """Adds a linear function of the channel means to every pixel."""
    context = global_mean(x, f"{path}/_mean")
    context = tf_keras.layers.Conv2D(
        int(x.shape[-1]), 1, kernel_initializer="zeros", name=f"{path}/convolution"
    )(context)
    return tf_keras.layers.Add(name=f"{path}/_add")([x, context])
