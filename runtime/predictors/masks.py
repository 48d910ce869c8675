"""Predictions of MaX-DeepLab."""

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.metrics import segment_scores
from deeplab2_edge.runtime.predictors.canvas import CanvasEngine, Predicted, undo
from deeplab2_edge.runtime.predictors.maps import mask_maps


class MaskPredictor:
    """Decodes the masks of a mask transformer.

    Args:
        canvas: A MaX-DeepLab.
    """

    def __init__(self, canvas: CanvasEngine) -> None:
        self._canvas = canvas

    def __call__(self, image: NDArray[np.uint8]) -> Predicted:
        """Segments a `[H, W, 3]` RGB image of any size."""
        metadata = self._canvas.metadata
        pixels, placement = self._canvas.place(image)
        outputs = self._canvas.run({keys.IMAGE: pixels})
        maps = mask_maps(outputs, metadata)
        panoptic = undo(maps.panoptic, placement)
        return Predicted(
            semantic=undo(maps.semantic, placement),
            panoptic=panoptic,
            scores=segment_scores(
                panoptic,
                undo(maps.semantic_scores, placement),
                undo(maps.instance_scores, placement),
                ignore_label=metadata.ignore_label,
                label_divisor=metadata.label_divisor,
            ),
        )
