"""What the predictors of all families share: an engine on its canvas, and the way back.

Images are brought to the canvas, and the maps of the canvas back to the size of the
image: padding is cut off, the rest is resized to the nearest pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.metrics import segment_scores
from deeplab2_edge.panoptic import (
    Heads,
    PanopticMaps,
    class_probabilities,
    resize_nearest,
)
from deeplab2_edge.runtime.engine import Engine, RawEngine, default_threads
from deeplab2_edge.runtime.heads import RawHead
from deeplab2_edge.runtime.preprocess import PlacedImage, Placement, place_on_canvas
from deeplab2_edge.runtime.segments import Segment
from deeplab2_edge.runtime.timing import StageTimer


@dataclass(frozen=True, eq=False)
class Predicted:
    """Holds what a model says about one image, at the size of that image.

    Attributes:
        semantic: `[H, W]` int32 class ids.
        panoptic: `[H, W]` int32, `class * label_divisor + instance`; of a semantic
            model all instances are 0.
        scores: Confidence of each segment, None if the model gives none.
        depth: `[H, W]` float32 meters, None if the model predicts none.
        segments: Of `panoptic`, with their scores, where they were found on the way.
    """

    semantic: NDArray[np.int32]
    panoptic: NDArray[np.int32]
    scores: Mapping[int, float] | None = None
    depth: NDArray[np.float32] | None = None
    segments: tuple[Segment, ...] | None = None


@dataclass(frozen=True, eq=False)
class Seen:
    """Holds what a network says about one image, before anything is made of it.

    Attributes:
        image: uint8 `[H, W, 3]` RGB, the image itself.
        placement: Where it lies on the canvas.
        heads: By the names of the metadata.
        timer: Of the stages until now.
    """

    image: NDArray[np.uint8]
    placement: Placement
    heads: Mapping[str, RawHead]
    timer: StageTimer

    def outputs(self) -> dict[str, NDArray[Any]]:
        """Gives the real values of the heads."""
        return {name: head.real() for name, head in self.heads.items()}


class CanvasEngine:
    """Runs an engine on images of any size.

    Args:
        engine: Of any kind and family.

    Attributes:
        metadata: Of the model.
        num_threads: For what follows the network, as many as in it.
        timer: Adds up what each stage takes until it is replaced.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.metadata = engine.metadata
        self.num_threads: int = getattr(engine, "num_threads", default_threads())
        self.timer = StageTimer()

    def place(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], Placement]:
        """Brings an image of any size to the canvas, see `place_on_canvas`."""
        with self.timer.stage("preprocess"):
            return place_on_canvas(image, self.metadata.canvas, self.metadata.resize)

    def see(self, image: NDArray[np.uint8]) -> Seen:
        """Runs a network that takes one image, of any size, and nothing else.

        The image goes to the canvas on its way into the network if the engine can.

        Raises:
            DataError: If it is no RGB image.
        """
        timer = self.timer
        placed = PlacedImage(image, self.metadata.canvas, self.metadata.resize, timer)
        engine = self._engine
        with timer.stage("network"):
            if isinstance(engine, RawEngine):
                heads = engine.run_raw({keys.IMAGE: placed})
            else:
                outputs = engine.run({keys.IMAGE: placed.pixels()})
                heads = {name: RawHead(value) for name, value in outputs.items()}
        return Seen(image, placed.placement, heads, timer)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs the network, see `Engine.run`."""
        with self.timer.stage("network"):
            return self._engine.run(inputs)


def heads_of(outputs: Mapping[str, NDArray[np.float32]]) -> Heads:
    """Picks what panoptic maps are made of from the outputs for one frame."""
    return Heads(
        semantic_logits=outputs[keys.SEMANTIC_LOGITS],
        center_heatmap=outputs[keys.CENTER_HEATMAP][..., 0],
        offset_map=outputs[keys.OFFSET_MAP],
    )


def undo(canvas_map: NDArray[Any], placement: Placement) -> NDArray[Any]:
    """Brings a map of the canvas to the size of the image, by nearest pixels."""
    height, width = placement.resized_size
    return resize_nearest(canvas_map[:height, :width], placement.image_size)


def scores_of_things(
    canvas: CanvasEngine,
    maps: PanopticMaps,
    semantic_logits: NDArray[np.float32] | None,
    placement: Placement,
    panoptic: NDArray[np.int32],
) -> dict[int, float]:
    """Gives the confidence of things: class probability times score of the center.

    Args:
        canvas: Of the maps.
        maps: Of the canvas.
        semantic_logits: `[h, w, C]` that they were made of; None where a graph made
            them and kept its logits: the score of the center counts alone.
        placement: Where the image lies on the canvas.
        panoptic: `[H, W]` at the size of the image; ids may be others than in `maps`.
    """
    metadata = canvas.metadata
    if semantic_logits is None:
        probabilities = np.ones(maps.panoptic.shape, np.float32)
    else:
        probabilities = class_probabilities(
            semantic_logits,
            maps.panoptic // metadata.label_divisor,
            thing_ids=metadata.thing_ids,
        )
    scores = segment_scores(
        panoptic,
        undo(probabilities, placement),
        undo(maps.instance_scores, placement),
        ignore_label=metadata.ignore_label,
        label_divisor=metadata.label_divisor,
    )
    return {
        label: score
        for label, score in scores.items()
        if label // metadata.label_divisor in metadata.thing_ids
    }
