"""Predictions of Panoptic-DeepLab."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.panoptic import PanopticMaps, class_probabilities
from deeplab2_edge.runtime import native
from deeplab2_edge.runtime.predictors.canvas import (
    CanvasEngine,
    Predicted,
    Seen,
    undo,
)
from deeplab2_edge.runtime.predictors.image import ImagePredictor
from deeplab2_edge.runtime.predictors.maps import panoptic_maps
from deeplab2_edge.runtime.preprocess import Placement
from deeplab2_edge.runtime.results import PanopticResult, build_result
from deeplab2_edge.runtime.segments import Segment, list_segments


class PanopticPredictor(ImagePredictor):
    """Merges classes and instances.

    Args:
        canvas: A Panoptic-DeepLab.
        with_class_scores: Make the probability of its class a factor of the score of a
            thing, if the graph gives its logits.
    """

    def __init__(
        self, canvas: CanvasEngine, *, with_class_scores: bool = False
    ) -> None:
        super().__init__(canvas)
        self._with_class_scores = with_class_scores

    def finish(self, seen: Seen) -> Predicted:
        """Makes maps and segments."""
        if not self._with_class_scores and self._can_be_native(seen):
            return self._natively(seen)
        metadata = self._canvas.metadata
        outputs = seen.outputs()
        maps = panoptic_maps(outputs, metadata)
        result = build_result(seen.image, maps, seen.placement, metadata)
        segments = result.segments
        if self._with_class_scores and keys.SEMANTIC_LOGITS in outputs:
            logits = outputs[keys.SEMANTIC_LOGITS]
            segments = _weighted(result, maps, logits, seen.placement)
        return Predicted(result.semantic, result.panoptic, segments=segments)

    def _can_be_native(self, seen: Seen) -> bool:
        return keys.SEMANTIC_LOGITS in seen.heads and native.is_available()

    def _natively(self, seen: Seen) -> Predicted:
        metadata = self._canvas.metadata
        found = native.segment_panoptic(
            seen.heads, seen.placement, metadata, self._canvas.num_threads
        )
        table = found.segments
        segments = list_segments(
            found.panoptic,
            metadata,
            table.ids,
            table.areas,
            table.boxes,
            table.scores,
        )
        return Predicted(found.semantic, found.panoptic, segments=segments)


def _weighted(
    result: PanopticResult,
    maps: PanopticMaps,
    logits: NDArray[np.float32],
    placement: Placement,
) -> tuple[Segment, ...]:
    """Multiplies the score of each thing by the mean probability of its class."""
    classes = result.metadata
    probabilities = class_probabilities(
        logits, maps.panoptic // classes.label_divisor, thing_ids=classes.thing_ids
    )
    weights = undo(probabilities, placement).reshape(-1)
    segments = result.segments
    sums = np.bincount(result.segment_map.reshape(-1), weights, len(segments) + 1)
    return tuple(
        segment
        if segment.score is None
        else dataclasses.replace(segment, score=segment.score * total / segment.area_px)
        for segment, total in zip(segments, sums[1:].tolist(), strict=True)
    )
