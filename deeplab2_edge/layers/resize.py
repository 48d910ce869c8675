"""Bilinear resizing with aligned corners, the geometry of every model here."""

from collections.abc import Sequence
from typing import Any

from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="train")
tf_keras: Any = require("tf_keras", extra="train")


def resize_bilinear(x: Any, size: Sequence[int]) -> Any:
    """Resizes `[B, h, w, C]` to `[B, H, W, C]`, corners on corners.

    Output pixel `i` samples the input at `i * (n_in - 1) / (n_out - 1)`. A 1-pixel
    axis is broadcast. The same size returns the input.
    """
    if tuple(x.shape[1:3]) == tuple(size):
        return x
    return tf.raw_ops.ResizeBilinear(images=x, size=tuple(size), align_corners=True)


def scaled_side(side: int, scale: float) -> int:
    """Gives the pixels of a side at a scale, so that corners stay on corners."""
    return int((side - 1) * scale + 1)


def strided_side(side: int, stride: int) -> int:
    """Gives the pixels of a side at a stride, so that corners stay on corners."""
    return (side - 1) // stride + 1


@tf_keras.utils.register_keras_serializable(package="deeplab2_edge")
class ResizeBilinear(tf_keras.layers.Layer):  # type: ignore[misc]
    """Is `resize_bilinear` to a static size as a layer."""

    def __init__(self, size: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = tuple(size)

    def call(self, inputs: Any) -> Any:
        return resize_bilinear(inputs, self.size)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size}


def resize_like(x: Any, reference: Any, name: str) -> Any:
    """Adds a layer that resizes `x` to the spatial size of `reference`."""
    return resize_to(x, reference.shape[1:3], name)


def resize_to(x: Any, size: Sequence[int], name: str) -> Any:
    """Adds a layer that resizes `x` to (height, width); none if that is its size."""
    if tuple(x.shape[1:3]) == tuple(size):
        return x
    return ResizeBilinear(size, name=name)(x)
