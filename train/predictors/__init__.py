"""From images to predictions, with the network of a checkpoint of any family.

Panoptic-DeepLab runs behind the interface of the runtime, see `CanvasEngine`.
"""

from deeplab2_edge.train.predictors.canvas import CanvasNetwork, Predicted
from deeplab2_edge.train.predictors.masks import MaskPredictor
from deeplab2_edge.train.predictors.motion import MotionPredictor
from deeplab2_edge.train.predictors.panoptic import CanvasEngine
from deeplab2_edge.train.predictors.semantic import SemanticPredictor
from deeplab2_edge.train.predictors.two_frames import PredictedPair, TwoFramePredictor
from deeplab2_edge.train.predictors.views import require_averageable

__all__ = [
    "CanvasEngine",
    "CanvasNetwork",
    "MaskPredictor",
    "MotionPredictor",
    "Predicted",
    "PredictedPair",
    "SemanticPredictor",
    "TwoFramePredictor",
    "require_averageable",
]
