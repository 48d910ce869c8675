"""Finds the ranges of activations with the float network.

Running the quantized network in training mode instead, as the library suggests, would
overwrite the statistics of batch normalization and hardly move the ranges.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.convert.calibration import Calibration, choose_ranges
from deeplab2_edge.convert.qat.annotate import output_quantized
from deeplab2_edge.convert.qat.graph import Expanded, Range
from deeplab2_edge.errors import DataError
from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="qat")
tf_keras: Any = require("tf_keras", extra="qat")

# What a network sees, by the names in `keys`, without a batch.
Images = Iterable[tuple[str, Mapping[str, NDArray[Any]]]]


def calibrate(
    expanded: Expanded, images: Images
) -> tuple[dict[str, Range], Calibration]:
    """Chooses the range of every activation that is quantized.

    The rule, and what is done with images that stand out, are those of
    `convert.calibration`.

    Args:
        expanded: The float network, for one image.
        images: Names, and `image` uint8 `[H, W, 3]`.

    Returns:
        Ranges by name of the layer, and what set them.

    Raises:
        DataError: If there are no images.
        ConversionError: If the network gives values that are not finite.
    """
    network = expanded.model
    layers = output_quantized(network)
    names = [layer.name for layer in layers]
    probes = tf_keras.Model(network.input, [layer.output for layer in layers])

    @tf.function(  # type: ignore[untyped-decorator]
        input_signature=[tf.TensorSpec(network.input_shape, tf.float32)]
    )
    def extremes(image: Any) -> Any:
        values = probes(image, training=False)
        return tf.stack([[tf.reduce_min(v), tf.reduce_max(v)] for v in values])

    image_names, rows = [], []
    for name, inputs in images:
        image_names.append(name)
        rows.append(extremes(inputs[keys.IMAGE][np.newaxis].astype(np.float32)))
    if not rows:
        raise DataError("there are no images to calibrate with")
    heads = {id(tensor): head for head, tensor in network.output.items()}
    exceptions: dict[int, Range | None] = {}
    judged = []
    for place, layer in enumerate(layers):
        head = heads.get(id(layer.output))
        if head == keys.OFFSET_MAP:
            # A cut offset sends a pixel to another instance.
            exceptions[place] = None
        if layer.name in expanded.fixed:
            exceptions[place] = expanded.fixed[layer.name]
        joins = (tf_keras.layers.Add, tf_keras.layers.Concatenate)
        if head or isinstance(layer, joins):
            judged.append(place)
    ranges, summary = choose_ranges(
        image_names,
        np.asarray(rows, np.float32),
        names,
        judged=judged,
        exceptions=exceptions,
    )
    chosen = {
        name: (float(low), float(high))
        for name, (low, high) in zip(names, ranges, strict=True)
    }
    return chosen, summary
