"""Optical flow from files, for tracking by overlap."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import DataError


def read_flow(
    folder: str | os.PathLike[str], frame: int, size: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Reads the optical flow from the frame before, as `IouTracker.update` wants it.

    The files of frame `f` are `<f - 1>.flow_forward` and `<f - 1>.occ_forward` with six
    digits, each a NumPy array. Where a file is missing nothing moves or is hidden.

    Args:
        folder: Holds the files of one sequence.
        frame: Number of the frame.
        size: (H, W) of the frames.

    Returns:
        `[H, W, 2]` float32 flow (x, y) in pixels, and `[H, W]` where a pixel of the
        frame before is hidden.

    Raises:
        DataError: If a file is no array of that size.
    """
    stem = Path(folder) / f"{frame - 1:06d}"
    flow = _read(stem.with_suffix(".flow_forward"), (*size, 2))
    occlusion = _read(stem.with_suffix(".occ_forward"), size)
    return flow.astype(np.float32), occlusion != 0


def _read(path: Path, shape: tuple[int, ...]) -> NDArray[np.generic]:
    """Reads an array; axes of length 1 around its shape do not count."""
    if not path.exists():
        return np.zeros(shape, np.float32)
    try:
        # Mapped, so that the size is checked before anything is read.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        found = array.shape
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: cannot be read as a NumPy array: {error}") from None
    numbers = array.dtype.kind in "fiub"
    if not numbers or [n for n in found if n != 1] != [n for n in shape if n != 1]:
        raise DataError(
            f"{path}: holds {array.dtype} of shape {found}; expected numbers of shape "
            f"{shape}"
        )
    return np.array(array).reshape(shape)
