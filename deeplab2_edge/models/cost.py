"""What a model costs: parameters and multiply-adds."""

import math
from dataclasses import dataclass
from typing import Any

from deeplab2_edge.optional import require

tf_keras = require("tf_keras", extra="train")


@dataclass(frozen=True)
class ModelCost:
    """Holds the cost of one image.

    Attributes:
        parameters: Numbers in a checkpoint, statistics of batch norms included.
        multiply_adds: Of all convolutions; everything else is small beside them.
    """

    parameters: int
    multiply_adds: int


def model_cost(model: Any) -> ModelCost:
    """Counts parameters and multiply-adds of a model of static input size."""
    return ModelCost(
        parameters=sum(math.prod(weight.shape) for weight in model.weights),
        multiply_adds=sum(map(_multiply_adds, model.layers)),
    )


def _multiply_adds(layer: Any) -> int:
    if isinstance(layer, tf_keras.layers.DepthwiseConv2D):
        kernel = layer.depthwise_kernel
    elif isinstance(layer, tf_keras.layers.Conv2D):
        kernel = layer.kernel
    else:
        return 0
    _, height, width, _ = layer.output.shape
    return int(height * width * math.prod(kernel.shape))
