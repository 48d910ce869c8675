"""Deterministic weights and inputs: every value is a function of its checkpoint key.

Only raw 64-bit Philox words and exact integer sums are used, so the values are the
same on every platform, and golden files need no weights.
"""

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MEAN = 131070.0  # of the sum of four uniform 16-bit fields
_STD = float(np.sqrt((2.0**32 - 1.0) / 3.0))
# Last batch norm of a residual branch: damped, so that deep networks stay in range.
_RESIDUAL_ENDS = ("_conv2_bn", "_conv3_bn")


def weight(path: str, shape: Sequence[int]) -> NDArray[np.float32]:
    """Returns the value of the variable with a checkpoint path."""
    *parents, leaf = path.split("/")
    bell = _bell(f"{path}/.ATTRIBUTES/VARIABLE_VALUE", shape)
    in_blocks = "_blocks" in parents
    value: NDArray[Any]
    if leaf == "depthwise_kernel":
        value = bell * np.sqrt(2.0 / (shape[0] * shape[1]))
    elif leaf == "kernel":
        value = bell * np.sqrt(2.0 / np.prod(shape[:-1], dtype=np.int64))
    elif leaf == "gamma":
        is_end = len(parents) > 1 and parents[-2] in _RESIDUAL_ENDS
        scale = (0.7 if in_blocks else 0.4) if is_end else 1.0
        value = scale * (1.0 + 0.1 * bell)
    elif leaf == "beta":
        value = (0.8 if in_blocks else 0.2) * bell
    elif leaf == "moving_mean":
        value = 0.1 * bell
    elif leaf == "moving_variance":
        value = 1.0 + 0.1 * np.abs(bell)
    elif leaf == "bias":
        value = 0.2 * bell
    else:
        raise ValueError(f"no rule for {path}")
    return value.astype(np.float32)


def image(shape: Sequence[int]) -> NDArray[np.float32]:
    """Returns a blocky, noisy image batch `[B, H, W, C]` of integers in 0..255."""
    batch, height, width, channels = shape
    rows, columns = -(-height // 16), -(-width // 16)
    coarse = _words("image/coarse", batch * rows * columns * channels) >> np.uint64(56)
    coarse = coarse.reshape(batch, rows, columns, channels)
    coarse = coarse.repeat(16, axis=1).repeat(16, axis=2)[:, :height, :width]
    fine = _words("image/fine", batch * height * width * channels) >> np.uint64(56)
    mixed = (np.uint64(3) * coarse + fine.reshape(shape)) >> np.uint64(2)
    return mixed.astype(np.float32)


def _bell(text: str, shape: Sequence[int]) -> NDArray[np.float64]:
    words = _words(text, int(np.prod(shape, dtype=np.int64)))
    mask = np.uint64(0xFFFF)
    total = sum(((words >> np.uint64(16 * field)) & mask) for field in range(4))
    return ((np.asarray(total, np.float64) - _MEAN) / _STD).reshape(shape)


def _words(text: str, count: int) -> NDArray[np.uint64]:
    return np.random.Philox(key=zlib.crc32(text.encode())).random_raw(count)
