"""Where a video cuts to another scene: what was followed is not there any more."""

import cv2
import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.runtime.optical_flow import FLOW_SIDE, shrink
from deeplab2_edge.runtime.preprocess import check_image

_WIDTH, _HEIGHT = 64, 32
# Colors in 4 steps each, in four quarters of the picture.
_LEVELS, _QUARTERS = 4, 2
# Measured on the synthetic street: frames of a camera at up to 9 m/s, 0.1 and 0.3 s
# apart | 780 cuts between streets. All three together: no frame is taken for a cut,
# 1 cut is missed.
_MIN_DIFFERENCE = 20.0  # at most 17, 22 | at least 28
_MIN_HISTOGRAM_DISTANCE = 0.25  # at most 0.10, 0.22 | at least 0.24
_MAX_CORRELATION = 0.65  # at least 0.67, 0.56 | at most 0.63


class SceneCutDetector:
    """Says of each frame of a video whether a new scene begins with it.

    Compares thumbnails of a frame and of the one before. At a cut the pixels differ,
    the colors of the quarters differ, and light and dark lie elsewhere. Motion leaves
    the colors, a change of exposure leaves light and dark where they are; so neither
    is a cut. Fades are none either, nor are cuts between very dark scenes.

    Example:
        >>> is_cut = SceneCutDetector()
        >>> ramp = np.repeat(np.arange(64, dtype=np.uint8)[None, :, None], 32, 0)
        >>> day = np.repeat(ramp * 3, 3, axis=2)
        >>> [is_cut(frame) for frame in (day, day + 9, 255 - day, 255 - day)]
        [False, False, True, False]
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets the last frame: the next one begins a video."""
        self._last: _Thumbnail | None = None

    def __call__(self, image: NDArray[np.uint8]) -> bool:
        """Takes the next frame, `[H, W, 3]` RGB; the first of a video is no cut.

        Raises:
            DataError: If it is no RGB image.
        """
        check_image(image)
        last, self._last = self._last, _Thumbnail(image)
        return last is not None and self._last.is_another_scene_than(last)


class _Thumbnail:
    """Holds what is compared of a frame."""

    def __init__(self, image: NDArray[np.uint8]) -> None:
        small = shrink(image, FLOW_SIDE)
        pixels = cv2.resize(small, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_AREA)
        self.pixels = pixels.astype(np.float32)
        luma = self.pixels.mean(axis=2)
        self.luma = luma - luma.mean()
        self.histogram = _histogram(pixels)

    def is_another_scene_than(self, last: "_Thumbnail") -> bool:
        if np.abs(self.pixels - last.pixels).mean() <= _MIN_DIFFERENCE:
            return False
        distance = np.abs(self.histogram - last.histogram).sum() / 2
        if distance <= _MIN_HISTOGRAM_DISTANCE:
            return False
        norm = float(np.linalg.norm(self.luma) * np.linalg.norm(last.luma))
        # A picture of one color looks like no other.
        correlation = float((self.luma * last.luma).sum()) / norm if norm else 0.0
        return correlation < _MAX_CORRELATION


def _histogram(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Counts the colors of each quarter; the sum is 1."""
    level = (pixels // (256 // _LEVELS)).astype(np.int64)
    color = (level[..., 0] * _LEVELS + level[..., 1]) * _LEVELS + level[..., 2]
    rows = np.arange(_HEIGHT)[:, None] * _QUARTERS // _HEIGHT
    columns = np.arange(_WIDTH) * _QUARTERS // _WIDTH
    index = (rows * _QUARTERS + columns) * _LEVELS**3 + color
    return np.bincount(index.reshape(-1), minlength=_QUARTERS**2 * _LEVELS**3) / (
        _WIDTH * _HEIGHT
    )
