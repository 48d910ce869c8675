"""Convolutions with the padding rule, normalization and activations of the models.

Stride 1 pads like TensorFlow's SAME. Stride 2 pads `(k - 1) / 2` zeros on every side
and convolves without padding, with `k` the effective (dilated) kernel size: on even
sizes this differs from SAME, and published weights expect it.
"""

from collections.abc import Callable
from typing import Any

from deeplab2_edge.layers.activations import activate
from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.layers.normalization import batch_norm
from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="train")
tf_keras: Any = require("tf_keras", extra="train")


@tf_keras.utils.register_keras_serializable(package="deeplab2_edge")
class AtrousConv2D(tf_keras.layers.Conv2D):  # type: ignore[misc]
    """Is Keras' Conv2D with the dilation left to the convolution op itself.

    Keras 2 wraps a dilated convolution in space-to-batch ops. They triple the time of
    a training step on a CPU, and the TFLite converter cannot fold them away where two
    branches read the same feature.
    """

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        return tf.nn.conv2d(
            inputs,
            kernel,
            strides=self.strides,
            padding=self.padding.upper(),
            dilations=self.dilation_rate,
        )


def conv(
    x: Any,
    path: str,
    filters: int,
    *,
    defaults: LayerDefaults,
    kernel_size: int = 1,
    stride: int = 1,
    rate: int = 1,
    activation: str = "relu",
    gamma: float = 1.0,
    before_norm: Callable[[Any], Any] | None = None,
) -> Any:
    """Adds convolution, batch normalization and activation.

    Args:
        x: `[B, H, W, C]`.
        path: Checkpoint path, for example `"encoder/_blocks/0"`.
        filters: Output channels.
        defaults: What all layers share.
        kernel_size: Odd side of the kernel.
        stride: 1 or 2.
        rate: Dilation.
        activation: Name of an activation, `"none"` for a linear output.
        gamma: First scale of the normalization.
        before_norm: Builds what comes between convolution and normalization.

    Returns:
        `[B, ceil(H / stride), ceil(W / stride), filters]`.
    """
    x = _pad_if_strided(x, path, kernel_size, stride, rate)
    layer = AtrousConv2D if rate > 1 else tf_keras.layers.Conv2D
    x = layer(
        filters,
        kernel_size,
        strides=stride,
        padding="same" if stride == 1 else "valid",
        dilation_rate=rate,
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{path}/_conv",
    )(x)
    if before_norm is not None:
        x = before_norm(x)
    return _normalize_and_activate(x, path, activation, defaults, gamma)


def conv1d(
    x: Any,
    path: str,
    filters: int,
    *,
    defaults: LayerDefaults,
    activation: str = "relu",
    gamma: float = 1.0,
    kernel_initializer: Any = "he_normal",
) -> Any:
    """Adds a map of every element of a sequence, normalization and activation.

    Args:
        x: `[B, L, C]`.
        path: Checkpoint path.
        filters: Output channels.
        defaults: What all layers share.
        activation: Name of an activation, `"none"` for a linear output.
        gamma: First scale of the normalization.
        kernel_initializer: Of the kernel `[1, C, filters]`.

    Returns:
        `[B, L, filters]`.
    """
    x = tf_keras.layers.Conv1D(
        filters,
        1,
        use_bias=False,
        kernel_initializer=kernel_initializer,
        name=f"{path}/_conv",
    )(x)
    return _normalize_and_activate(x, path, activation, defaults, gamma)


def depthwise_conv(
    x: Any,
    path: str,
    *,
    defaults: LayerDefaults,
    kernel_size: int,
    stride: int = 1,
    rate: int = 1,
    activation: str = "relu",
) -> Any:
    """Adds depthwise convolution, batch normalization and activation.

    Arguments and result are those of `conv`; the number of channels stays.
    """
    x = _pad_if_strided(x, path, kernel_size, stride, rate)
    x = tf_keras.layers.DepthwiseConv2D(
        kernel_size,
        strides=stride,
        padding="same" if stride == 1 else "valid",
        dilation_rate=rate,
        use_bias=False,
        depthwise_initializer="glorot_uniform",
        name=f"{path}/_depthwise_conv",
    )(x)
    return _normalize_and_activate(x, path, activation, defaults)


def separable_conv(
    x: Any, path: str, filters: int, *, defaults: LayerDefaults, kernel_size: int
) -> Any:
    """Adds a depthwise and a 1x1 convolution, each with normalization and ReLU."""
    x = depthwise_conv(
        x, f"{path}/_depthwise", defaults=defaults, kernel_size=kernel_size
    )
    return conv(x, f"{path}/_pointwise", filters, defaults=defaults)


def biased_conv(
    x: Any, path: str, filters: int, *, kernel_initializer: Any = None
) -> Any:
    """Adds the plain 1x1 convolution with bias that closes a head.

    Args:
        x: `[B, H, W, C]`.
        path: Checkpoint path.
        filters: Output channels.
        kernel_initializer: By default a normal one of standard deviation 0.01, which
            makes a head start near its bias.

    Returns:
        `[B, H, W, filters]`, not activated.
    """
    return tf_keras.layers.Conv2D(
        filters,
        1,
        kernel_initializer=kernel_initializer
        or tf_keras.initializers.TruncatedNormal(stddev=0.01),
        name=path,
    )(x)


def _pad_if_strided(x: Any, path: str, kernel_size: int, stride: int, rate: int) -> Any:
    pad = (kernel_size - 1) * rate // 2
    if stride == 1 or pad == 0:
        return x
    return tf_keras.layers.ZeroPadding2D(pad, name=f"{path}/_zeropad")(x)


def _normalize_and_activate(
    x: Any, path: str, activation: str, defaults: LayerDefaults, gamma: float = 1.0
) -> Any:
    x = batch_norm(f"{path}/_batch_norm", defaults, gamma=gamma)(x)
    return activate(x, f"{path}/_activation", activation, defaults.hard_swish)
