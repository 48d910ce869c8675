"""Predictions of Motion-DeepLab, frame by frame."""

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.models.engine import merge_settings
from deeplab2_edge.panoptic import MotionSettings, MotionTracker, merge_heads
from deeplab2_edge.train.predictors.canvas import (
    CanvasNetwork,
    Predicted,
    scores_of_things,
    undo,
)


class MotionPredictor:
    """Segments the frames of a video and keeps the ids of their instances.

    Args:
        network: A Motion-DeepLab.
        with_scores: Give scores of things, see `scores_of_things`.
        track_divisor: Of the ids that come out; that of the data set if None. Ids are
            never used twice: long videos need a large one. Not together with scores.
    """

    def __init__(
        self,
        network: CanvasNetwork,
        *,
        with_scores: bool = False,
        track_divisor: int | None = None,
    ) -> None:
        self._network = network
        self._with_scores = with_scores
        self._settings = merge_settings(network.config, network.info, network.canvas)
        self._tracker = MotionTracker(
            MotionSettings(
                network.info.thing_ids,
                network.info.label_divisor,
                track_divisor=track_divisor,
            )
        )
        self._previous: NDArray[np.uint8] | None = None

    def begin_video(self) -> None:
        """Forgets the last frame and all tracks."""
        self._tracker.reset()
        self._previous = None

    def __call__(self, image: NDArray[np.uint8]) -> Predicted:
        """Segments the next frame, `[H, W, 3]` RGB of any size.

        Raises:
            UsageError: If a video has more tracks than the label divisor allows.
        """
        network, settings = self._network, self._settings
        canvas, placement = network.place(image)
        previous = canvas if self._previous is None else self._previous
        heatmap = self._tracker.previous_heatmap(network.canvas)
        heads = network.run(
            np.concatenate([canvas, previous, heatmap[..., np.newaxis]], axis=-1)
        )
        maps = merge_heads(
            heads[keys.SEMANTIC_LOGITS],
            heads[keys.CENTER_HEATMAP][..., 0],
            heads[keys.OFFSET_MAP],
            canvas=network.canvas,
            settings=settings,
        )
        tracked = self._tracker.update(maps.panoptic, heads[keys.FRAME_OFFSET_MAP])
        self._previous = canvas
        panoptic = undo(tracked.panoptic, placement)
        scores = None
        if self._with_scores:
            logits = heads[keys.SEMANTIC_LOGITS]
            scores = scores_of_things(network, maps, logits, placement, panoptic)
        return Predicted(
            semantic=undo(maps.semantic, placement), panoptic=panoptic, scores=scores
        )
