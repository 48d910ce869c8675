"""Predictions of models with a semantic head alone."""

from deeplab2_edge.runtime.predictors.canvas import Predicted, Seen, undo
from deeplab2_edge.runtime.predictors.image import ImagePredictor
from deeplab2_edge.runtime.predictors.maps import semantic_map


class SemanticPredictor(ImagePredictor):
    """Gives every pixel the class with the highest logit."""

    def finish(self, seen: Seen) -> Predicted:
        """Makes maps of classes."""
        metadata = self._canvas.metadata
        classes = undo(semantic_map(seen.outputs(), metadata), seen.placement)
        return Predicted(classes, classes * metadata.label_divisor)
