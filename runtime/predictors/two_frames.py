"""Predictions of ViP-DeepLab for a frame and the one after it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.panoptic import (
    PanopticMaps,
    VideoStitcher,
    resize_bilinear,
)
from deeplab2_edge.runtime.native.instances import map_passes
from deeplab2_edge.runtime.native.two_frames import merge_two_frames
from deeplab2_edge.runtime.predictors.canvas import (
    CanvasEngine,
    Predicted,
    heads_of,
    scores_of_things,
    undo,
)
from deeplab2_edge.runtime.predictors.maps import panoptic_maps
from deeplab2_edge.runtime.preprocess import Placement


@dataclass(frozen=True, eq=False)
class PredictedPair:
    """Holds what a model says about a frame and the next one.

    Attributes:
        frame: The frame, with ids that hold in the whole video.
        pair: `[H, W]` int32 of the frame and of the next one, with ids that hold within
            the pair; None if there is no next frame.
    """

    frame: Predicted
    pair: tuple[NDArray[np.int32], NDArray[np.int32]] | None


@dataclass(frozen=True, eq=False)
class _Seen:
    """Is a frame that went through the network.

    Attributes:
        image: The frame.
        placement: Where it lies on the canvas.
        outputs: Its heads and features; where it follows another frame, the offsets
            to the centers of that one.
    """

    image: NDArray[np.uint8]
    placement: Placement
    outputs: dict[str, NDArray[np.float32]]


class TwoFramePredictor:
    """Segments pairs of frames; what both pairs of three frames share, once.

    Args:
        canvas: A ViP-DeepLab with a head for the next frame.
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
        self._stitcher = VideoStitcher(
            canvas.metadata.label_divisor,
            track_divisor=track_divisor,
            reuses_ids=track_divisor is not None,
            passes=map_passes(),
        )
        self._ahead: _Seen | None = None
        self._next_alone: NDArray[np.int32] | None = None

    def begin_video(self) -> None:
        """Forgets all instances; ids start anew."""
        self._stitcher.reset()
        self._next_alone = None

    def __call__(
        self, image: NDArray[np.uint8], next_image: NDArray[np.uint8] | None
    ) -> PredictedPair:
        """Segments a frame and the next one, each `[H, W, 3]` RGB of any size.

        Args:
            image: The frame, which follows that of the last call.
            next_image: None after the last frame of a video.

        Raises:
            UsageError: If a video has more instances than the label divisor allows.
        """
        metadata = self._canvas.metadata
        assert metadata.merge is not None
        current = self._see(image)
        if next_image is None:
            maps = panoptic_maps(current.outputs, metadata)
            tracked = self._stitcher.update(maps.panoptic)
            self._next_alone = None
            return PredictedPair(self._predicted(maps, tracked, current), None)
        following = self._look(next_image, current)
        pair = merge_two_frames(
            heads_of(current.outputs),
            following.outputs[keys.NEXT_OFFSET_MAP],
            heads_of(following.outputs),
            canvas=metadata.canvas,
            settings=metadata.merge,
            num_threads=self._canvas.num_threads,
        )
        self._ahead, self._next_alone = following, pair.next_frame.panoptic
        tracked = self._stitcher.update(pair.current.panoptic, pair.concat_next)
        return PredictedPair(
            self._predicted(pair.current, tracked, current),
            (
                undo(pair.current.panoptic, current.placement),
                undo(pair.next_panoptic, following.placement),
            ),
        )

    def end_video(self) -> NDArray[np.int32] | None:
        """Gives the next frame of the last pair, which no pair begins with.

        Returns:
            `[H, W]` int32 with ids that hold in the whole video; None if the last
            call had no next frame.
        """
        if self._ahead is None or self._next_alone is None:
            return None
        tracked = self._stitcher.update(self._next_alone)
        self._next_alone = None
        return undo(tracked, self._ahead.placement)

    def _see(self, image: NDArray[np.uint8]) -> _Seen:
        if self._ahead is not None and np.array_equal(self._ahead.image, image):
            return self._ahead
        return self._look(image, None)

    def _look(self, image: NDArray[np.uint8], previous: _Seen | None) -> _Seen:
        """Runs the network on a frame, which follows another one or none."""
        pixels, placement = self._canvas.place(image)
        inputs: dict[str, NDArray[Any]] = {keys.IMAGE: pixels}
        for name, spec in self._canvas.metadata.inputs.items():
            if not name.startswith(keys.PREVIOUS_FEATURES):
                continue
            given = keys.FEATURES + name.removeprefix(keys.PREVIOUS_FEATURES)
            inputs[name] = (
                np.zeros(spec.shape, np.float32)
                if previous is None
                else previous.outputs[given]
            )
        return _Seen(image, placement, self._canvas.run(inputs))

    def _predicted(
        self, maps: PanopticMaps, tracked: NDArray[np.int32], seen: _Seen
    ) -> Predicted:
        depth = seen.outputs.get(keys.DEPTH_PRED)
        if depth is not None:
            height, width = seen.placement.resized_size
            on_canvas = resize_bilinear(depth[..., 0], self._canvas.metadata.canvas)
            depth = resize_bilinear(
                on_canvas[:height, :width], seen.placement.image_size
            )
        panoptic = undo(tracked, seen.placement)
        scores = None
        if self._with_scores:
            logits = seen.outputs[keys.SEMANTIC_LOGITS]
            scores = scores_of_things(
                self._canvas, maps, logits, seen.placement, panoptic
            )
        return Predicted(
            semantic=undo(maps.semantic, seen.placement),
            panoptic=panoptic,
            scores=scores,
            depth=depth,
        )
