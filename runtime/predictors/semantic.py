"""Predictions of models with a semantic head alone."""

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.panoptic import upsample_argmax
from deeplab2_edge.runtime.predictors.canvas import CanvasEngine, Predicted, undo


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
        semantic = upsample_argmax(outputs[keys.SEMANTIC_LOGITS], metadata.canvas)
        classes = undo(semantic, placement)
        return Predicted(classes, classes * metadata.label_divisor)
