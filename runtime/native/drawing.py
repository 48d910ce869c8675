"""Segments drawn over an image in C++, called on NumPy arrays."""

import ctypes
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import UsageError
from deeplab2_edge.runtime.native.library import load_core

_LEVELS = np.arange(256, dtype=np.uint8)


class _Overlay(ctypes.Structure):
    _fields_ = (
        ("pixels", ctypes.c_void_p),
        ("row_bytes", ctypes.c_int64),
        ("segment_map", ctypes.c_void_p),
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("num_segments", ctypes.c_int32),
        ("contour", ctypes.c_int32),
        ("levels", ctypes.c_void_p),
        ("is_thing", ctypes.c_void_p),
    )


def blend_segments(
    image: NDArray[np.uint8],
    segment_map: NDArray[np.uint16],
    shades: Sequence[tuple[int, int, int]],
    is_thing: Sequence[bool],
    *,
    alpha: float,
    contour: int,
) -> NDArray[np.uint8]:
    """Blends the color of each segment with the image, and draws lines around things.

    Equals OpenCV's `addWeighted`, whose results for all values of an image are looked
    up, bit for bit. Void pixels, number 0, show the image.

    Args:
        image: uint8 `[H, W, 3]` RGB. Rows may lie apart.
        segment_map: `[H, W]`, `n + 1` on the pixels of segment `n`, 0 on void.
        shades: RGB color of each segment.
        is_thing: Which segments get lines: of one pixel, where they meet anything else.
        alpha: Weight of the colors, 0 to 1.
        contour: Value of the lines, of all channels.

    Returns:
        uint8 `[H, W, 3]`, a new array.

    Raises:
        UsageError: If shapes, types or numbers do not fit, or as `load_core`.
        MissingExtraError: As `load_core`.
    """
    height, width = segment_map.shape
    if image.shape != (height, width, 3) or image.dtype != np.uint8:
        raise UsageError(
            f"image is {image.dtype} {list(image.shape)}; expected uint8 "
            f"{[height, width, 3]} beside its segment_map"
        )
    if image.strides[1:] != (3, 1):
        image = np.ascontiguousarray(image)
    numbers = np.ascontiguousarray(segment_map, np.uint16)
    colors = np.array([(0, 0, 0), *shades], np.uint8)
    levels = cv2.addWeighted(
        np.tile(_LEVELS, (colors.size, 1)),
        1.0 - alpha,
        np.repeat(colors.reshape(-1, 1), len(_LEVELS), axis=1),
        alpha,
        0.0,
    )
    levels[:3] = _LEVELS
    things = np.array([False, *is_thing], np.uint8)
    blended = np.empty((height, width, 3), np.uint8)
    code = load_core().dle_draw_overlay(
        ctypes.byref(
            _Overlay(
                image.ctypes.data,
                image.strides[0],
                numbers.ctypes.data,
                height,
                width,
                len(colors),
                contour,
                levels.ctypes.data,
                things.ctypes.data,
            )
        ),
        ctypes.c_void_p(blended.ctypes.data),
    )
    if code:
        raise UsageError(
            f"segment_map of {height}x{width} has numbers beyond {len(colors) - 1}, "
            "the last segment, or no pixels"
        )
    return blended
