"""Predictions of Panoptic-DeepLab."""

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.panoptic import PanopticMaps, merge_heads
from deeplab2_edge.runtime.predictors.canvas import (
    CanvasEngine,
    Predicted,
    heads_of,
    scores_of_things,
    undo,
)
from deeplab2_edge.runtime.preprocess import Placement


class PanopticPredictor:
    """Merges classes and instances.

    Args:
        canvas: A Panoptic-DeepLab.
        with_scores: Give scores of things, see `scores_of_things`.
    """

    def __init__(self, canvas: CanvasEngine, *, with_scores: bool = False) -> None:
        self._canvas = canvas
        self._with_scores = with_scores

    def __call__(self, image: NDArray[np.uint8]) -> Predicted:
        """Segments a `[H, W, 3]` RGB image of any size."""
        maps, placement, logits = self.maps(image)
        panoptic = undo(maps.panoptic, placement)
        scores = None
        if self._with_scores:
            scores = scores_of_things(self._canvas, maps, logits, placement, panoptic)
        return Predicted(undo(maps.semantic, placement), panoptic, scores)

    def maps(
        self, image: NDArray[np.uint8]
    ) -> tuple[PanopticMaps, Placement, NDArray[np.float32]]:
        """Gives the maps of the canvas, where the image lies there, and the logits."""
        metadata = self._canvas.metadata
        assert metadata.merge is not None
        pixels, placement = self._canvas.place(image)
        outputs = self._canvas.run({keys.IMAGE: pixels})
        heads = heads_of(outputs)
        maps = merge_heads(
            heads.semantic_logits,
            heads.center_heatmap,
            heads.offset_map,
            canvas=metadata.canvas,
            settings=metadata.merge,
        )
        return maps, placement, outputs[keys.SEMANTIC_LOGITS]
