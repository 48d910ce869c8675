"""What the predictors of single images share: first look, then finish."""

import abc

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.runtime.predictors.canvas import CanvasEngine, Predicted, Seen


class ImagePredictor(abc.ABC):
    """Segments images of any size, each by itself.

    While one thread looks at an image, another may finish the one before.

    Args:
        canvas: Of a model of single images.
    """

    def __init__(self, canvas: CanvasEngine) -> None:
        self._canvas = canvas

    def __call__(self, image: NDArray[np.uint8]) -> Predicted:
        """Segments a `[H, W, 3]` RGB image of any size."""
        return self.finish(self.look(image))

    def look(self, image: NDArray[np.uint8]) -> Seen:
        """Runs the network on a `[H, W, 3]` RGB image of any size."""
        return self._canvas.see(image)

    @abc.abstractmethod
    def finish(self, seen: Seen) -> Predicted:
        """Makes a prediction of what the network says."""
