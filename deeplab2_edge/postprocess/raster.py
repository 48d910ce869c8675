"""Numbers of pixels."""

from typing import Any

import numpy as np

from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="train")


def number_pixels(size: tuple[int, int], zero: Any) -> Any:
    """Numbers the pixels of a map in raster order.

    Args:
        size: (H, W).
        zero: A 0 that is computed. Of constants the numbers would become a constant
            too, which adds the size of a map to a converted file.

    Returns:
        `[H, W]` of the type of `zero`.
    """
    height, width = size
    dtype = zero.dtype.as_numpy_dtype
    rows = np.arange(0, height * width, width).astype(dtype)[:, np.newaxis] + zero
    return rows + np.arange(width).astype(dtype)
