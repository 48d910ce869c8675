"""Convolutions and the normalizations around them, folded into one linear map.

The converter folds a normalization into the convolution right before it. Here are the
folds it cannot see: through a split into heads, or from behind an attention.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="train")


@dataclasses.dataclass(frozen=True)
class Linear:
    """Is `x @ kernel + bias`.

    Attributes:
        kernel: `[C, ...]`.
        bias: `[...]`, like the kernel without its first axis.
    """

    kernel: Any
    bias: Any

    def scaled(self, scale: Any) -> "Linear":
        """Multiplies the result with `scale`, of a shape that broadcasts to `bias`."""
        return Linear(self.kernel * scale, self.bias * scale)

    def shifted(self, shift: Any) -> "Linear":
        """Adds `shift` to the result."""
        return Linear(self.kernel, self.bias + shift)

    def in_heads(self, num_heads: int) -> "Linear":
        """Views the channels of the result as `[heads, depth]`."""
        kernel = tf.reshape(self.kernel, (self.kernel.shape[0], num_heads, -1))
        return Linear(kernel, tf.reshape(self.bias, (num_heads, -1)))

    def split(self, sizes: Sequence[int]) -> list["Linear"]:
        """Cuts the channels of the result, the last axis, into parts."""
        kernels = tf.split(self.kernel, sizes, axis=-1)
        biases = tf.split(self.bias, sizes, axis=-1)
        return [Linear(k, b) for k, b in zip(kernels, biases, strict=True)]


def joined(parts: Sequence[Linear]) -> Linear:
    """Puts the results of several maps side by side, on the last axis."""
    kernel = tf.concat([part.kernel for part in parts], axis=-1)
    return Linear(kernel, tf.concat([part.bias for part in parts], axis=-1))


def affine(norm: Any) -> tuple[Any, Any]:
    """Returns scale and shift of a batch normalization at inference."""
    scale = norm.gamma * tf.math.rsqrt(norm.moving_variance + norm.epsilon)
    return scale, norm.beta - norm.moving_mean * scale


def normalized(kernel: Any, norm: Any) -> Linear:
    """Folds the normalization that follows a product with `[C, channels]`."""
    scale, shift = affine(norm)
    return Linear(kernel * scale, shift)
