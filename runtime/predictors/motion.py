"""Predictions of Motion-DeepLab, frame by frame."""

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.panoptic import MotionSettings, MotionTracker
from deeplab2_edge.runtime.native.instances import map_passes
from deeplab2_edge.runtime.predictors.canvas import (
    CanvasEngine,
    Predicted,
    scores_of_things,
    undo,
)
from deeplab2_edge.runtime.predictors.maps import panoptic_maps


class MotionPredictor:
    """Segments the frames of a video and keeps the ids of their instances.

    Args:
        canvas: A Motion-DeepLab.
        with_scores: Give scores of things, see `scores_of_things`.
        track_divisor: Of the ids that come out; ids start again at 1 when none is
            left below it. None: that of the data set; then none is used twice, which
            ends long videos. Not together with scores.
    """

    def __init__(
        self,
        canvas: CanvasEngine,
        *,
        with_scores: bool = False,
        track_divisor: int | None = None,
    ) -> None:
        self._canvas = canvas
        self._with_scores = with_scores
        metadata = canvas.metadata
        self._tracker = MotionTracker(
            MotionSettings(
                metadata.thing_ids,
                metadata.label_divisor,
                track_divisor=track_divisor,
                reuses_ids=track_divisor is not None,
            ),
            passes=map_passes(),
        )
        self._previous: NDArray[np.uint8] | None = None

    def begin_video(self) -> None:
        """Forgets the last frame and all tracks."""
        self._tracker.reset()
        self._previous = None

    def begin_scene(self) -> None:
        """Forgets the last frame and all tracks; ids go on: none comes twice."""
        self._tracker.forget()
        self._previous = None

    def __call__(self, image: NDArray[np.uint8]) -> Predicted:
        """Segments the next frame, `[H, W, 3]` RGB of any size.

        Raises:
            UsageError: If a video has more tracks than the label divisor allows.
        """
        metadata = self._canvas.metadata
        pixels, placement = self._canvas.place(image)
        previous = pixels if self._previous is None else self._previous
        heatmap = self._tracker.previous_heatmap(metadata.canvas)
        outputs = self._canvas.run(
            {
                keys.IMAGE: pixels,
                keys.PREVIOUS_IMAGE: previous,
                keys.PREVIOUS_HEATMAP: heatmap[..., np.newaxis],
            }
        )
        maps = panoptic_maps(outputs, metadata)
        tracked = self._tracker.update(maps.panoptic, outputs[keys.FRAME_OFFSET_MAP])
        self._previous = pixels
        panoptic = undo(tracked.panoptic, placement)
        scores = None
        if self._with_scores:
            logits = outputs.get(keys.SEMANTIC_LOGITS)
            scores = scores_of_things(self._canvas, maps, logits, placement, panoptic)
        return Predicted(
            semantic=undo(maps.semantic, placement), panoptic=panoptic, scores=scores
        )
