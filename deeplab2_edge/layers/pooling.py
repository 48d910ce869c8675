"""Means over the whole feature map."""

from typing import Any

from deeplab2_edge.optional import require

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
