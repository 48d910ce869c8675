"""From images to predictions, with the network of a checkpoint of any family.

Panoptic-DeepLab is not here: it runs behind the interface of the runtime, see
`models.engine`.
"""

from deeplab2_edge.train.predictors.canvas import CanvasNetwork, Predicted
from deeplab2_edge.train.predictors.masks import MaskPredictor
from deeplab2_edge.train.predictors.motion import MotionPredictor
from deeplab2_edge.train.predictors.semantic import SemanticPredictor
from deeplab2_edge.train.predictors.two_frames import TwoFramePredictor

__all__ = [
    "CanvasNetwork",
    "MaskPredictor",
    "MotionPredictor",
    "Predicted",
    "SemanticPredictor",
    "TwoFramePredictor",
]
