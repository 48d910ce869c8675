"""Where a video cuts to another scene: what was followed is not there any more."""

import cv2
import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.runtime.optical_flow import FlowEstimator, FrameMotion
from deeplab2_edge.runtime.preprocess import check_image

# Of the picture's details in pixels at `optical_flow.FLOW_SIDE`: finer is noise,
# coarser is what all streets have in common, light above and dark below.
_FINEST, _COARSEST = 1.0, 6.0
# Frames 0.2 and 0.4 s apart, rendered and of CamVid, from a driving car: at least 0.50,
# 0.41. Cuts between streets, rendered (435) and of CamVid (744): at most 0.27, 0.30.
_MAX_CORRELATION = 0.3
# Grey levels. Cuts: at least 26, 32, and 14 between dark scenes full of noise.
_MIN_DIFFERENCE = 12.0
_THUMBNAIL = (64, 32)


class SceneCutDetector:
    """Says of each frame of a video whether a new scene begins with it.

    The frame before is moved along the optical flow. If then even its details are not
    those of the frame, no motion explains the one by the other: that is a cut. Light
    and exposure leave details where they are. Fades are no cuts.

    Example:
        >>> is_cut = SceneCutDetector()
        >>> rng = np.random.default_rng(0)
        >>> one, other = rng.integers(0, 256, (2, 48, 64, 1), np.uint8)
        >>> one, other = (cv2.resize(np.tile(s, 3), (256, 192)) for s in (one, other))
        >>> [is_cut(frame) for frame in (one, np.roll(one, 9, 1), other, other // 2)]
        [False, False, True, False]
    """

    def __init__(self) -> None:
        self._estimate = FlowEstimator()

    def reset(self) -> None:
        """Forgets the last frame: the next one begins a video."""
        self._estimate.reset()

    def __call__(self, image: NDArray[np.uint8]) -> bool:
        """Takes the next frame, `[H, W, 3]` RGB; the first of a video is no cut.

        Raises:
            DataError: If it is no RGB image.
        """
        check_image(image)
        motion = self._estimate(image)
        return motion is not None and is_cut(motion)


def is_cut(motion: FrameMotion) -> bool:
    """Says whether a frame shows another scene than the one before."""
    small, last_small = (
        cv2.resize(grey, _THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32)
        for grey in (motion.grey, motion.last_grey)
    )
    if np.abs(small - last_small).mean() <= _MIN_DIFFERENCE:
        return False
    rows, columns = np.indices(motion.grey.shape, np.float32)
    moved = cv2.remap(
        motion.last_grey,
        columns + motion.flow[..., 0],
        rows + motion.flow[..., 1],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    details, last_details = _details(motion.grey), _details(np.asarray(moved))
    norm = float(np.linalg.norm(details) * np.linalg.norm(last_details))
    # A picture of one color is like no other.
    correlation = float((details * last_details).sum()) / norm if norm else 0.0
    return correlation < _MAX_CORRELATION


def _details(grey: NDArray[np.uint8]) -> NDArray[np.float32]:
    picture = grey.astype(np.float32)
    return np.asarray(
        cv2.GaussianBlur(picture, (0, 0), _FINEST)
        - cv2.GaussianBlur(picture, (0, 0), _COARSEST)
    )
