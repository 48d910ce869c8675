"""Predictions of ViP-DeepLab for a frame and the one after it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.models.engine import merge_settings
from deeplab2_edge.models.vip_deeplab import TwoFrameInference
from deeplab2_edge.panoptic import (
    PanopticMaps,
    VideoStitcher,
    merge_heads,
    merge_two_frames,
    resize_bilinear,
)
from deeplab2_edge.runtime.preprocess import Placement
from deeplab2_edge.train.predictors.canvas import (
    CanvasNetwork,
    Predicted,
    scores_of_things,
    undo,
)
from deeplab2_edge.train.predictors.panoptic import heads_of
from deeplab2_edge.train.predictors.views import average


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
    """Is a frame that went through the encoder and the heads of its own.

    Attributes:
        image: The frame.
        placement: Where it lies on the canvas.
        features: What the encoder gives, for each view.
        outputs: The heads, averaged over the views.
    """

    image: NDArray[np.uint8]
    placement: Placement
    features: list[dict[str, Any]]
    outputs: dict[str, NDArray[np.float32]]


class TwoFramePredictor:
    """Segments pairs of frames; what both pairs of three frames share, once.

    Args:
        network: A ViP-DeepLab with a head for the next frame.
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
        models = {id(view.model): view.model for view in network.views}
        inferences = {
            key: TwoFrameInference(model, network.config)
            for key, model in models.items()
        }
        self._inferences = [inferences[id(view.model)] for view in network.views]
        self._settings = merge_settings(network.config, network.info, network.canvas)
        self._stitcher = VideoStitcher(
            network.info.label_divisor, track_divisor=track_divisor
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
        canvas = self._network.canvas
        current = self._see(image)
        heads = heads_of(current.outputs)
        if next_image is None:
            maps = merge_heads(
                heads.semantic_logits,
                heads.center_heatmap,
                heads.offset_map,
                canvas=canvas,
                settings=self._settings,
            )
            tracked = self._stitcher.update(maps.panoptic)
            self._next_alone = None
            return PredictedPair(self._predicted(maps, tracked, current), None)
        following = self._see(next_image)
        pair = merge_two_frames(
            heads,
            self._next_offsets(current, following),
            heads_of(following.outputs),
            canvas=canvas,
            settings=self._settings,
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
        frame, placement = self._network.place(image)
        features, heads = [], []
        for view, inference in zip(self._network.views, self._inferences, strict=True):
            features.append(inference.encode(view.of(frame)))
            heads.append(_arrays(inference.own_heads(features[-1])))
        return _Seen(image, placement, features, self._joined(heads))

    def _next_offsets(self, current: _Seen, following: _Seen) -> NDArray[np.float32]:
        offsets = [
            _arrays(inference.next_heads(one, two))
            for inference, one, two in zip(
                self._inferences, current.features, following.features, strict=True
            )
        ]
        return self._joined(offsets)[keys.NEXT_OFFSET_MAP]

    def _joined(
        self, heads: list[dict[str, NDArray[np.float32]]]
    ) -> dict[str, NDArray[np.float32]]:
        if not self._network.averages:
            return heads[0]
        return average(self._network.views, heads, self._network.canvas)

    def _predicted(
        self, maps: PanopticMaps, tracked: NDArray[np.int32], seen: _Seen
    ) -> Predicted:
        depth = seen.outputs.get(keys.DEPTH_PRED)
        if depth is not None:
            height, width = seen.placement.resized_size
            on_canvas = resize_bilinear(depth[..., 0], self._network.canvas)
            depth = resize_bilinear(
                on_canvas[:height, :width], seen.placement.image_size
            )
        panoptic = undo(tracked, seen.placement)
        scores = None
        if self._with_scores:
            logits = seen.outputs[keys.SEMANTIC_LOGITS]
            scores = scores_of_things(
                self._network, maps, logits, seen.placement, panoptic
            )
        return Predicted(
            semantic=undo(maps.semantic, seen.placement),
            panoptic=panoptic,
            scores=scores,
            depth=depth,
        )


def _arrays(outputs: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
    return {name: value.numpy()[0] for name, value in outputs.items()}
