"""Dense optical flow between the frames of a video, cheap enough for small machines."""

import cv2
import numpy as np
from numpy.typing import NDArray

# Half of it misses fast motion, twice as much costs more and gives nothing.
FLOW_SIDE = 256
# Narrower pictures are stretched: below 32 pixels beside 256, DIS reads beyond them and
# crashes, since the coarsest level is chosen by the width alone; so it did with any of
# up to 90 pixels before OpenCV 4.1.1 (opencv issue 14554).
_MIN_SIDE = 96


class FlowEstimator:
    """Tells from each frame of a video where its pixels were in the one before.

    Frames are shrunk first: the cost hardly depends on their size.

    References:
        Kroeger et al., Fast Optical Flow using Dense Inverse Search, ECCV 2016,
        arXiv:1603.03590, as in OpenCV, its fastest preset.
    """

    def __init__(self) -> None:
        self._search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self.reset()

    def reset(self) -> None:
        """Forgets the last frame."""
        self._last: NDArray[np.uint8] | None = None
        self._size: tuple[int, ...] | None = None

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.float32] | None:
        """Takes the next frame.

        Args:
            image: `[H, W, 3]` RGB.

        Returns:
            `[h, w, 2]` float32, (x, y) in its own pixels, sides at most `FLOW_SIDE`;
            None for the first frame and after one of another size. Its shape is about
            that of the picture; what is very narrow is stretched.
        """
        grey = cv2.cvtColor(shrink(image, FLOW_SIDE), cv2.COLOR_RGB2GRAY)
        height, width = grey.shape
        if min(height, width) < _MIN_SIDE:
            size = max(width, _MIN_SIDE), max(height, _MIN_SIDE)
            grey = cv2.resize(grey, size)
        last, self._last = self._last, grey
        last_size, self._size = self._size, image.shape
        if last is None or last_size != image.shape:
            return None
        return np.asarray(self._search.calc(grey, last, None))


def shrink(image: NDArray[np.uint8], longest_side: int) -> NDArray[np.uint8]:
    """Shrinks a picture to have at most this many pixels along its longer side.

    Of a much larger one only every n-th pixel is looked at: reading all would cost
    more than what a small picture is wanted for.

    Args:
        image: `[H, W, 3]` RGB.
        longest_side: At least 1.

    Returns:
        uint8 `[h, w, 3]`; the image itself if it is small.
    """
    height, width = image.shape[:2]
    scale = longest_side / max(height, width)
    if scale >= 1:
        return image
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    step = max(int(0.5 / scale), 1)
    coarse = np.ascontiguousarray(image[::step, ::step])
    return np.asarray(cv2.resize(coarse, size, interpolation=cv2.INTER_AREA))
