"""What the predictors of all families share: a network on a canvas, and the way back.

Images are brought to the canvas as on devices, and the maps of the canvas back to the
size of the image: padding is cut off, the rest is resized to the nearest pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.config import ExperimentOptions
from deeplab2_edge.metrics import segment_scores
from deeplab2_edge.models.engine import dataset_of, load_network, resize_rule
from deeplab2_edge.optional import require
from deeplab2_edge.panoptic import (
    PanopticMaps,
    class_probabilities,
    resize_nearest,
)
from deeplab2_edge.runtime.preprocess import Placement, place_on_canvas
from deeplab2_edge.train.predictors.views import average, views_of

tf = require("tensorflow", extra="train")


@dataclass(frozen=True, eq=False)
class Predicted:
    """Holds what a model says about one image, at the size of that image.

    Attributes:
        semantic: `[H, W]` int32 class ids.
        panoptic: `[H, W]` int32, `class * label_divisor + instance`; of a semantic
            model all instances are 0.
        scores: Confidence of each segment, None if the model gives none.
        depth: `[H, W]` float32 meters, None if the model predicts none.
    """

    semantic: NDArray[np.int32]
    panoptic: NDArray[np.int32]
    scores: Mapping[int, float] | None = None
    depth: NDArray[np.float32] | None = None


class CanvasNetwork:
    """Is a float network with the weights of a checkpoint, for one image at a time.

    Args:
        config: The experiment; its `eval_scales` and `add_flipped_images` are done.
        checkpoint: See `models.engine.load_network`.
        canvas: See `models.engine.load_network`.

    Attributes:
        config: The experiment.
        info: The classes.
        model: The Keras model.
        canvas: (height, width) of its input.
        views: How each canvas is looked at, see `train.predictors.views`.

    Raises:
        CheckpointError: If the checkpoint does not fit the experiment.
        ConfigError: If there is no canvas, or no data set, or as `views_of`.
    """

    def __init__(
        self,
        config: ExperimentOptions,
        checkpoint: str | Path,
        *,
        canvas: Sequence[int] | None = None,
    ) -> None:
        self.config = config
        self.info = dataset_of(config)
        self.model = load_network(config, checkpoint, canvas=canvas)
        height, width = self.model.input_shape[1:3]
        self.canvas: tuple[int, int] = (height, width)
        self.views = views_of(config, checkpoint, self.model)
        self._rule = resize_rule(config, self.canvas)
        self._networks = {id(view.model): _traced(view.model) for view in self.views}

    @property
    def averages(self) -> bool:
        """Says whether heads are those of `average` and not of the network itself."""
        (first, *others) = self.views
        return bool(others) or first.is_flipped or first.model is not self.model

    def place(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], Placement]:
        """Brings an image of any size to the canvas, see `place_on_canvas`."""
        return place_on_canvas(image, self.canvas, self._rule)

    def run(self, frame: NDArray[np.generic]) -> dict[str, Any]:
        """Runs the network on `[H, W, C]` as `build_model` describes its input.

        Returns:
            Heads without their batch, as arrays: raw ones, or those of `average`.
        """
        heads = []
        for view in self.views:
            outputs = self._networks[id(view.model)](view.of(frame))
            heads.append(
                {
                    name: value.numpy()[0]
                    for name, value in outputs.items()
                    if hasattr(value, "numpy")
                }
            )
        return average(self.views, heads, self.canvas) if self.averages else heads[0]


def undo(canvas_map: NDArray[Any], placement: Placement) -> NDArray[Any]:
    """Brings a map of the canvas to the size of the image, by nearest pixels."""
    height, width = placement.resized_size
    return resize_nearest(canvas_map[:height, :width], placement.image_size)


def scores_of_things(
    network: CanvasNetwork,
    maps: PanopticMaps,
    semantic_logits: NDArray[np.float32],
    placement: Placement,
    panoptic: NDArray[np.int32],
) -> dict[int, float]:
    """Gives the confidence of things: class probability times score of the center.

    Args:
        network: Of the maps.
        maps: Of the canvas.
        semantic_logits: `[h, w, C]` that they were made of.
        placement: Where the image lies on the canvas.
        panoptic: `[H, W]` at the size of the image; ids may be others than in `maps`.
    """
    info = network.info
    probabilities = class_probabilities(
        semantic_logits,
        maps.panoptic // info.label_divisor,
        thing_ids=info.thing_ids,
    )
    scores = segment_scores(
        panoptic,
        undo(probabilities, placement),
        undo(maps.instance_scores, placement),
        ignore_label=info.ignore_label,
        label_divisor=info.label_divisor,
    )
    return {
        label: score
        for label, score in scores.items()
        if label // info.label_divisor in info.thing_ids
    }


def _traced(model: Any) -> Any:
    return tf.function(
        lambda image: model(image, training=False),
        input_signature=[tf.TensorSpec(model.input_shape, tf.float32)],
    )
