"""Predictions of MaX-DeepLab."""

from deeplab2_edge.metrics import segment_scores
from deeplab2_edge.runtime.predictors.canvas import Predicted, Seen, undo
from deeplab2_edge.runtime.predictors.image import ImagePredictor
from deeplab2_edge.runtime.predictors.maps import mask_maps


class MaskPredictor(ImagePredictor):
    """Decodes the masks of a mask transformer."""

    def finish(self, seen: Seen) -> Predicted:
        """Makes maps of masks."""
        metadata = self._canvas.metadata
        placement = seen.placement
        maps = mask_maps(seen.outputs(), metadata)
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
