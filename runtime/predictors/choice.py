"""Which predictor makes results of single images."""

from collections.abc import Callable, Mapping

from deeplab2_edge.families import MASKS, PANOPTIC, SEMANTIC
from deeplab2_edge.runtime.predictors.canvas import CanvasEngine
from deeplab2_edge.runtime.predictors.image import ImagePredictor
from deeplab2_edge.runtime.predictors.masks import MaskPredictor
from deeplab2_edge.runtime.predictors.panoptic import PanopticPredictor
from deeplab2_edge.runtime.predictors.semantic import SemanticPredictor

_KINDS: Mapping[str, Callable[[CanvasEngine], ImagePredictor]] = {
    SEMANTIC: SemanticPredictor,
    PANOPTIC: PanopticPredictor,
    MASKS: MaskPredictor,
}


def image_predictor(canvas: CanvasEngine) -> ImagePredictor:
    """Returns the predictor of a family that looks at one image."""
    return _KINDS[canvas.metadata.family](canvas)
