"""Predictions of ViP-DeepLab for a frame and the one after it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.models.engine import merge_settings
from deeplab2_edge.models.vip_deeplab import TwoFrameInference
from deeplab2_edge.panoptic import (
    Heads,
    PanopticMaps,
    merge_heads,
    merge_two_frames,
    resize_bilinear,
)
from deeplab2_edge.runtime.preprocess import Placement
from deeplab2_edge.train.predictors.canvas import CanvasNetwork, Predicted, undo


@dataclass(frozen=True, eq=False)
class PredictedPair:
    """Holds what a model says about a frame and the next one.

    Attributes:
        frame: The frame.
        next_panoptic: `[H, W]` int32, the next frame with the ids of `frame`; None if
            there is no next frame.
    """

    frame: Predicted
    next_panoptic: NDArray[np.int32] | None


@dataclass(frozen=True, eq=False)
class _Seen:
    """Is a frame that went through the encoder and the heads of its own."""

    image: NDArray[np.uint8]
    placement: Placement
    features: dict[str, Any]
    outputs: dict[str, NDArray[np.float32]]

    @property
    def heads(self) -> Heads:
        return Heads(
            self.outputs[keys.SEMANTIC_LOGITS],
            self.outputs[keys.CENTER_HEATMAP][..., 0],
            self.outputs[keys.OFFSET_MAP],
        )


class TwoFramePredictor:
    """Segments pairs of frames; what both pairs of three frames share, once.

    Args:
        network: A ViP-DeepLab with a head for the next frame.
    """

    def __init__(self, network: CanvasNetwork) -> None:
        self._network = network
        self._inference = TwoFrameInference(network.model, network.config)
        self._settings = merge_settings(network.config, network.info, network.canvas)
        self._ahead: _Seen | None = None

    def __call__(
        self, image: NDArray[np.uint8], next_image: NDArray[np.uint8] | None
    ) -> PredictedPair:
        """Segments a frame and the next one, each `[H, W, 3]` RGB of any size.

        Args:
            image: The frame.
            next_image: None after the last frame of a video.
        """
        canvas = self._network.canvas
        current = self._see(image)
        if next_image is None:
            heads = current.heads
            maps = merge_heads(
                heads.semantic_logits,
                heads.center_heatmap,
                heads.offset_map,
                canvas=canvas,
                settings=self._settings,
            )
            return PredictedPair(self._predicted(maps, current), None)
        following = self._see(next_image)
        offsets = self._inference.next_heads(current.features, following.features)
        pair = merge_two_frames(
            current.heads,
            offsets[keys.NEXT_OFFSET_MAP].numpy()[0],
            following.heads,
            canvas=canvas,
            settings=self._settings,
        )
        self._ahead = following
        return PredictedPair(
            self._predicted(pair.current, current),
            undo(pair.next_panoptic, following.placement),
        )

    def _see(self, image: NDArray[np.uint8]) -> _Seen:
        if self._ahead is not None and np.array_equal(self._ahead.image, image):
            return self._ahead
        frame, placement = self._network.place(image)
        features = self._inference.encode(frame[np.newaxis].astype(np.float32))
        outputs = self._inference.own_heads(features)
        arrays = {name: value.numpy()[0] for name, value in outputs.items()}
        return _Seen(image, placement, features, arrays)

    def _predicted(self, maps: PanopticMaps, seen: _Seen) -> Predicted:
        depth = seen.outputs.get(keys.DEPTH_PRED)
        if depth is not None:
            height, width = seen.placement.resized_size
            on_canvas = resize_bilinear(depth[..., 0], self._network.canvas)
            depth = resize_bilinear(
                on_canvas[:height, :width], seen.placement.image_size
            )
        return Predicted(
            semantic=undo(maps.semantic, seen.placement),
            panoptic=undo(maps.panoptic, seen.placement),
            depth=depth,
        )
