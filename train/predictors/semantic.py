"""Predictions of models with a semantic head alone."""

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.panoptic import upsample_argmax
from deeplab2_edge.train.predictors.canvas import CanvasNetwork, Predicted, undo


class SemanticPredictor:
    """Gives every pixel the class with the highest logit.

    Args:
        network: With a semantic head.
    """

    def __init__(self, network: CanvasNetwork) -> None:
        self._network = network

    def __call__(self, image: NDArray[np.uint8]) -> Predicted:
        """Segments a `[H, W, 3]` RGB image of any size."""
        network = self._network
        canvas, placement = network.place(image)
        heads = network.run(canvas)
        semantic = upsample_argmax(heads[keys.SEMANTIC_LOGITS], network.canvas)
        classes = undo(semantic, placement)
        return Predicted(classes, classes * network.info.label_divisor)
