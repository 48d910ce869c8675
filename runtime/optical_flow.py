"""Dense optical flow between the frames of a video, cheap enough for small machines."""

import dataclasses

import cv2
import numpy as np
from numpy.typing import NDArray

# Half of it misses fast motion, twice as much costs more and gives nothing.
FLOW_SIDE = 256
# Narrower pictures are stretched: below 32 pixels beside 256, DIS reads beyond them and
# crashes, since the coarsest level is chosen by the width alone; so it did with any of
# up to 90 pixels before OpenCV 4.1.1 (opencv issue 14554).
_MIN_SIDE = 96


@dataclasses.dataclass(frozen=True, eq=False)
class FrameMotion:
    """Holds what is known of two frames that follow each other, in small.

    Attributes:
        flow: `[h, w, 2]` float32, (x, y) in its own pixels, from each place of the
            frame to where that was in the one before.
        grey: `[h, w]` uint8, the frame.
        last_grey: `[h, w]` uint8, the one before.
    """

    flow: NDArray[np.float32]
    grey: NDArray[np.uint8]
    last_grey: NDArray[np.uint8]


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

    def __call__(self, image: NDArray[np.uint8]) -> FrameMotion | None:
        """Takes the next frame.

        Args:
            image: `[H, W, 3]` RGB.

        Returns:
            The motion, by pictures of at most `FLOW_SIDE` pixels along each side, in
            about the shape of the frame (what is very narrow is stretched); None for
            the first frame and after one of another size.
        """
        grey = _small_grey(image)
        last, self._last = self._last, grey
        last_size, self._size = self._size, image.shape
        if last is None or last_size != image.shape:
            return None
        return FrameMotion(self._search.calc(grey, last, None), grey, last)


def _small_grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    scale = min(FLOW_SIDE / max(height, width), 1.0)
    if scale < 1:
        # Reading every pixel of a large picture would cost more than the flow.
        step = max(int(0.5 / scale), 1)
        image = np.ascontiguousarray(image[::step, ::step])
    size = max(round(width * scale), _MIN_SIDE), max(round(height * scale), _MIN_SIDE)
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY))
