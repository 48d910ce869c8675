"""Predictions of Panoptic-DeepLab."""

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.panoptic import PanopticMaps
from deeplab2_edge.runtime.predictors.canvas import CanvasEngine, Predicted, undo
from deeplab2_edge.runtime.predictors.maps import panoptic_maps
from deeplab2_edge.runtime.preprocess import Placement


class PanopticPredictor:
    """Merges classes and instances.

    Args:
        canvas: A Panoptic-DeepLab.
    """

    def __init__(self, canvas: CanvasEngine) -> None:
        self._canvas = canvas

    def __call__(self, image: NDArray[np.uint8]) -> Predicted:
        """Segments a `[H, W, 3]` RGB image of any size."""
        maps, placement, _ = self.maps(image)
        return Predicted(undo(maps.semantic, placement), undo(maps.panoptic, placement))

    def maps(
        self, image: NDArray[np.uint8]
    ) -> tuple[PanopticMaps, Placement, NDArray[np.float32] | None]:
        """Gives the maps of the canvas, where the image lies there, and the logits.

        There are no logits where the graph itself makes the maps.
        """
        pixels, placement = self._canvas.place(image)
        outputs = self._canvas.run({keys.IMAGE: pixels})
        maps = panoptic_maps(outputs, self._canvas.metadata)
        return maps, placement, outputs.get(keys.SEMANTIC_LOGITS)
