"""Bilinear resizing with aligned corners, the geometry of every model here."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

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


def resize_by_products(x: Any, size: Sequence[int]) -> Any:
    """Is `resize_bilinear` without an op that would have to align corners.

    A product with a constant matrix interpolates an axis: a 1x1 convolution once that
    axis is the last one, which every delegate takes. A batched product needs no
    transpositions, but its constant would be the first factor, and GPU delegates take
    constants as the second one only.
    """
    height, width = size
    if tuple(x.shape[1:3]) == (height, width):
        return x
    if tuple(x.shape[1:3]) == (1, 1):
        # One pixel has no corners to align: all geometries give a broadcast.
        return tf.raw_ops.ResizeBilinear(images=x, size=(height, width))
    x = _interpolate(tf.transpose(x, (0, 2, 3, 1)), height)  # [B, w, C, H]
    x = _interpolate(tf.transpose(x, (0, 3, 2, 1)), width)  # [B, H, C, W]
    return tf.transpose(x, (0, 1, 3, 2))


def resize_or_spread(x: Any, size: Sequence[int]) -> Any:
    """Is `resize_bilinear`, but spreads a single pixel by a product with ones.

    Fixed-function accelerators may refuse to resize to many times the side, and take
    the product as they take that of squeeze-and-excite.
    """
    if tuple(x.shape[1:3]) != (1, 1) or tuple(size) == (1, 1):
        return resize_bilinear(x, size)
    return x * tf.ones((1, *size, x.shape[-1]), x.dtype)


def _interpolate(x: Any, length: int) -> Any:
    matrix = interpolation_matrix(int(x.shape[-1]), length)
    kernel = tf.constant(matrix[np.newaxis, np.newaxis], x.dtype)
    return tf.nn.conv2d(x, kernel, 1, "VALID")


def interpolation_matrix(source: int, target: int) -> NDArray[np.float32]:
    """Returns what resizes an axis by a product from the right, `[source, target]`.

    Every column holds the weights of a target pixel; they add up to 1.
    """
    step = (source - 1) / (target - 1) if target > 1 else 0.0
    places = np.arange(target) * step
    matrix = 1.0 - np.abs(np.arange(source)[:, np.newaxis] - places)
    return np.maximum(matrix, 0.0).astype(np.float32)


def scaled_side(side: int, scale: float) -> int:
    """Gives the pixels of a side at a scale, so that corners stay on corners."""
    return int((side - 1) * scale + 1)


def strided_side(side: int, stride: int) -> int:
    """Gives the pixels of a side at a stride, so that corners stay on corners."""
    return (side - 1) // stride + 1


@tf_keras.utils.register_keras_serializable(package="deeplab2_edge")
class ResizeBilinear(tf_keras.layers.Layer):  # type: ignore[misc]
    """Is `resize_bilinear` to a static size as a layer.

    With the form `"matmul"` it is `resize_by_products`, with `"spread"`
    `resize_or_spread`.
    """

    def __init__(
        self, size: Sequence[int], form: str = "native", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if form not in _FORMS:
            raise ValueError(f"form is {form!r}; must be one of {', '.join(_FORMS)}")
        self.size = tuple(size)
        self.form = form

    def call(self, inputs: Any) -> Any:
        return _FORMS[self.form](inputs, self.size)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size, "form": self.form}


_FORMS = {
    "native": resize_bilinear,
    "matmul": resize_by_products,
    "spread": resize_or_spread,
}


def resize_like(x: Any, reference: Any, name: str, form: str = "native") -> Any:
    """Adds a layer that resizes `x` to the spatial size of `reference`."""
    return resize_to(x, reference.shape[1:3], name, form)


def resize_to(x: Any, size: Sequence[int], name: str, form: str = "native") -> Any:
    """Adds a layer that resizes `x` to (height, width); none if that is its size."""
    if tuple(x.shape[1:3]) == tuple(size):
        return x
    return ResizeBilinear(size, form, name=name)(x)
