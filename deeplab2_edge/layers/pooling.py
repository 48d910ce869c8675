"""Means over the feature map, or over a window that moves."""

from collections.abc import Sequence
from typing import Any

from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="train")
tf_keras: Any = require("tf_keras", extra="train")


def global_mean(x: Any, name: str) -> Any:
    """Adds the mean over height and width.

    It is computed in float32 also under a half-precision policy: thousands of pixels
    would leave the range of float16.

    Args:
        x: `[B, H, W, C]`.
        name: Of the layer.

    Returns:
        `[B, 1, 1, C]`.
    """
    return tf_keras.layers.GlobalAveragePooling2D(
        keepdims=True, dtype="float32", name=name
    )(x)


def window_mean(x: Any, window: Sequence[int], name: str, form: str = "native") -> Any:
    """Adds the mean over a window that moves by one pixel and stays on the map.

    Args:
        x: `[B, H, W, C]`.
        window: (height, width).
        name: Of the layer.
        form: `"native"`, or `"separable"`, see `SeparableMean`.

    Returns:
        `[B, H - h + 1, W - w + 1, C]`.
    """
    if form == "separable":
        return SeparableMean(window, name=name)(x)
    return tf_keras.layers.AveragePooling2D(
        tuple(window), strides=1, padding="valid", name=name
    )(x)


@tf_keras.utils.register_keras_serializable(package="deeplab2_edge")
class SeparableMean(tf_keras.layers.Layer):  # type: ignore[misc]
    """Is the mean over a window as two depthwise convolutions with constant kernels.

    One runs over columns, one over rows, so that a window of 9x17 costs 26 additions a
    pixel and not 153. XNNPACK has no int8 AVERAGE_POOL_2D (LiteRT 2.3) and takes these.
    """

    def __init__(self, window: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.window = tuple(window)

    def call(self, inputs: Any) -> Any:
        height, width = self.window
        channels = inputs.shape[-1]
        for shape in ((height, 1), (1, width)):
            count = shape[0] * shape[1]
            kernel = tf.fill((*shape, channels, 1), tf.cast(1 / count, inputs.dtype))
            inputs = tf.nn.depthwise_conv2d(inputs, kernel, (1, 1, 1, 1), "VALID")
        return inputs

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "window": self.window}
