"""From images to predictions, with the network of any family in any engine."""

from deeplab2_edge.runtime.predictors.canvas import CanvasEngine, Predicted, Seen
from deeplab2_edge.runtime.predictors.choice import image_predictor
from deeplab2_edge.runtime.predictors.image import ImagePredictor
from deeplab2_edge.runtime.predictors.masks import MaskPredictor
from deeplab2_edge.runtime.predictors.motion import MotionPredictor
from deeplab2_edge.runtime.predictors.panoptic import PanopticPredictor
from deeplab2_edge.runtime.predictors.semantic import SemanticPredictor
from deeplab2_edge.runtime.predictors.two_frames import PredictedPair, TwoFramePredictor

__all__ = [
    "CanvasEngine",
    "ImagePredictor",
    "MaskPredictor",
    "MotionPredictor",
    "PanopticPredictor",
    "Predicted",
    "PredictedPair",
    "Seen",
    "SemanticPredictor",
    "TwoFramePredictor",
    "image_predictor",
]
