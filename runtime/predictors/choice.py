"""Which predictor makes results of single images."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.families import MASKS, PANOPTIC, SEMANTIC
from deeplab2_edge.runtime.predictors.canvas import CanvasEngine, Predicted
from deeplab2_edge.runtime.predictors.masks import MaskPredictor
from deeplab2_edge.runtime.predictors.panoptic import PanopticPredictor
from deeplab2_edge.runtime.predictors.semantic import SemanticPredictor

Predictor = Callable[[NDArray[np.uint8]], Predicted]

_KINDS: Mapping[str, Callable[[CanvasEngine], Predictor]] = {
    SEMANTIC: SemanticPredictor,
    PANOPTIC: PanopticPredictor,
    MASKS: MaskPredictor,
}


def image_predictor(canvas: CanvasEngine) -> Predictor:
    """Returns the predictor of a family that looks at one image."""
    return _KINDS[canvas.metadata.family](canvas)
