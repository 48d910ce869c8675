"""Predictions of Panoptic-DeepLab, by the pipeline of the runtime."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.models.engine import describe_model
from deeplab2_edge.panoptic import Heads
from deeplab2_edge.train.predictors.canvas import CanvasNetwork


class CanvasEngine:
    """Offers a network, or the average of its views, to `PanopticSegmenter`.

    Args:
        network: A Panoptic-DeepLab with instances.
    """

    def __init__(self, network: CanvasNetwork) -> None:
        self.metadata = describe_model(network.config, network.model)
        self._network = network

    def run(self, canvas: NDArray[np.uint8]) -> Heads:
        """Gives the heads of a canvas that `ModelMetadata.check_canvas` accepts."""
        self.metadata.check_canvas(canvas)
        return heads_of(self._network.run(canvas))


def heads_of(outputs: dict[str, Any]) -> Heads:
    """Picks what panoptic maps are made of from the heads of one frame."""
    return Heads(
        semantic_logits=outputs[keys.SEMANTIC_LOGITS],
        center_heatmap=outputs[keys.CENTER_HEATMAP][..., 0],
        offset_map=outputs[keys.OFFSET_MAP],
    )
