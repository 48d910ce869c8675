"""Deterministic weights and inputs: every value is a function of its checkpoint key.

Only raw 64-bit Philox words and exact integer sums are used, so the values are the
same on every platform, and golden files need no weights.
"""

import re
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_MEAN = 131070.0  # of the sum of four uniform 16-bit fields
_STD = float(np.sqrt((2.0**32 - 1.0) / 3.0))
# Last batch norm of a residual branch: damped, so that deep networks stay in range.
_RESIDUAL_ENDS = (
    "_conv2_bn",
    "_conv3_bn",
    "_memory_conv3_bn",
    "_memory_ffn_conv2_bn",
    "_pixel_conv3_bn",
)
# Kernels that multiply features by features, or feed them back.
_SMALL_KERNELS = {"_switch": 0.02, "convolution": 0.1}
_SCALES = {"embeddings": 0.5, "memory_feature": 1.0, "moving_mean": 0.1, "bias": 0.2}


def weight(path: str, shape: Sequence[int]) -> NDArray[np.float32]:
    """Returns the value of the variable with a checkpoint path."""
    *parents, leaf = path.split("/")
    value = _bell(f"{path}/.ATTRIBUTES/VARIABLE_VALUE", shape)
    if leaf == "depthwise_kernel":
        value *= np.sqrt(2.0 / (shape[0] * shape[1]))
    elif leaf in ("kernel", "qkv_kernel"):
        value *= np.sqrt(2.0 / np.prod(shape[:-1], dtype=np.int64))
        value *= _SMALL_KERNELS.get(parents[-1], 1.0)
    elif leaf == "gamma":
        value = _gamma_center(parents) * (1.0 + 0.1 * value)
    elif leaf == "beta":
        # MobileNetV3 (`_blocks`): wide enough for both knees of hard-swish.
        value *= 0.8 if "_blocks" in parents else 0.2
    elif leaf == "moving_variance":
        value = 1.0 + 0.1 * np.abs(value)
    else:
        value *= _SCALES.get(leaf, 0.05)
    return value.astype(np.float32)


def _gamma_center(parents: Sequence[str]) -> float:
    """Keeps deep networks and softmaxes in range."""
    norm = parents[-1]
    layer = parents[-2] if len(parents) > 1 else ""
    damping = 0.5 if any(p.startswith("_decoder_stage") for p in parents) else 1.0
    if "similarity" in norm:
        return 0.4 * damping
    if "qkv" in norm or "qkv" in layer:
        return 0.5 * damping
    if layer in _RESIDUAL_ENDS:
        if "_blocks" in parents:
            return 0.7
        return (
            0.05
            if any(re.fullmatch(r"_block([7-9]|\d\d+)", p) for p in parents)
            else 0.4
        )
    if layer.startswith(("_resized_conv_bn", "_strided_conv_bn")):
        return 0.4
    return 1.0


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
    # The four 16-bit fields of a word, whatever the byte order: a sum.
    total = words.view(np.uint16).reshape(-1, 4).sum(axis=1, dtype=np.uint32)
    return ((total.astype(np.float64) - _MEAN) / _STD).reshape(shape)


def _words(text: str, count: int) -> NDArray[np.uint64]:
    return np.random.Philox(key=zlib.crc32(text.encode())).random_raw(count)
