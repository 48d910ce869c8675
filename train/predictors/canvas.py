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
from deeplab2_edge.models.engine import dataset_of, load_network, resize_rule
from deeplab2_edge.optional import require
from deeplab2_edge.panoptic import resize_nearest
from deeplab2_edge.runtime.preprocess import Placement, place_on_canvas

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
        config: The experiment.
        checkpoint: See `models.engine.load_network`.
        canvas: See `models.engine.load_network`.

    Attributes:
        config: The experiment.
        info: The classes.
        model: The Keras model.
        canvas: (height, width) of its input.

    Raises:
        CheckpointError: If the checkpoint does not fit the experiment.
        ConfigError: If there is no canvas, or no data set.
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
        _, height, width, channels = self.model.input_shape
        self.canvas: tuple[int, int] = (height, width)
        self._rule = resize_rule(config, self.canvas)
        self._network = tf.function(
            lambda image: self.model(image, training=False),
            input_signature=[tf.TensorSpec((1, height, width, channels), tf.float32)],
        )

    def place(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], Placement]:
        """Brings an image of any size to the canvas, see `place_on_canvas`."""
        return place_on_canvas(image, self.canvas, self._rule)

    def run(self, frame: NDArray[np.generic]) -> dict[str, Any]:
        """Runs the network on `[H, W, C]` as `build_model` describes its input.

        Returns:
            Raw heads without their batch, as arrays.
        """
        outputs = self._network(tf.cast(frame[np.newaxis], tf.float32))
        return {
            name: value.numpy()[0]
            for name, value in outputs.items()
            if hasattr(value, "numpy")
        }


def undo(canvas_map: NDArray[Any], placement: Placement) -> NDArray[Any]:
    """Brings a map of the canvas to the size of the image, by nearest pixels."""
    height, width = placement.resized_size
    return resize_nearest(canvas_map[:height, :width], placement.image_size)
