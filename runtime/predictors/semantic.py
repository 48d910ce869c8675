"""Predictions of models with a semantic head alone."""

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.runtime.predictors.canvas import CanvasEngine, Predicted, undo
from deeplab2_edge.runtime.predictors.maps import semantic_map


class SemanticPredictor:
    """Gives every pixel the class with the highest logit.

    Args:
        canvas: With a semantic head.
    """

    def __init__(self, canvas: CanvasEngine) -> None:
        self._canvas = canvas

    def __call__(self, image: NDArray[np.uint8]) -> Predicted:
        """Segments a `[H, W, 3]` RGB image of any size."""
        metadata = self._canvas.metadata
        pixels, placement = self._canvas.place(image)
        outputs = self._canvas.run({keys.IMAGE: pixels})
        classes = undo(semantic_map(outputs, metadata), placement)
        return Predicted(classes, classes * metadata.label_divisor)
