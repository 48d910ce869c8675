"""Predictions of MaX-DeepLab."""

from deeplab2_edge import keys
from deeplab2_edge.metrics import segment_scores
from deeplab2_edge.panoptic import MaskMaps
from deeplab2_edge.runtime import native
from deeplab2_edge.runtime.native.masks import decode_masks
from deeplab2_edge.runtime.predictors.canvas import Predicted, Seen, undo
from deeplab2_edge.runtime.predictors.image import ImagePredictor
from deeplab2_edge.runtime.predictors.maps import mask_maps


class MaskPredictor(ImagePredictor):
    """Decodes the masks of a mask transformer."""

    def finish(self, seen: Seen) -> Predicted:
        """Makes maps of masks."""
        metadata = self._canvas.metadata
        placement = seen.placement
        maps = self._maps(seen)
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

    def _maps(self, seen: Seen) -> MaskMaps:
        metadata = self._canvas.metadata
        if keys.PANOPTIC_PRED in seen.heads or not native.is_available():
            return mask_maps(seen.outputs(), metadata)
        assert metadata.masks is not None
        return decode_masks(
            seen.heads[keys.PIXEL_SPACE_MASK_LOGITS],
            seen.heads[keys.TRANSFORMER_CLASS_LOGITS],
            canvas=metadata.canvas,
            settings=metadata.masks,
            num_threads=self._canvas.num_threads,
        )
