"""Finds the ranges of activations with the float network.

Running the quantized network in training mode instead, as the library suggests, would
overwrite the statistics of batch normalization and hardly move the ranges.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from deeplab2_edge import keys
from deeplab2_edge.convert.calibration import (
    QUANTILE,
    Calibration,
    Inputs,
    choose_ranges,
    fit_inputs,
    is_plain,
)
from deeplab2_edge.convert.qat.annotate import output_quantized
from deeplab2_edge.convert.qat.graph import Expanded, Range
from deeplab2_edge.errors import DataError
from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="qat")
tf_keras: Any = require("tf_keras", extra="qat")

# What a network sees, by the names in `keys`, without a batch.
Images = Iterable[tuple[str, Inputs]]


def calibrate(
    expanded: Expanded, images: Images, quantile: float = QUANTILE
) -> tuple[dict[str, Range], Calibration]:
    """Chooses the range of every activation that is quantized.

    The rule, and what is done with images that stand out, are those of
    `convert.calibration`.

    Args:
        expanded: The float network, for one image.
        images: Names, and `image` uint8 `[H, W, 3]`.
        quantile: Share of the images whose range is covered.

    Returns:
        Ranges by name of the layer, and what set them.

    Raises:
        DataError: If there are no images, they do not fit, or say nothing.
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

    expected = {keys.IMAGE: {"shape": network.input_shape, "dtype": np.float32}}
    image_names, plain, rows = [], [], []
    for name, sample in images:
        inputs = fit_inputs(name, sample, expected)
        image_names.append(name)
        if is_plain(inputs):
            plain.append(name)
        rows.append(extremes(inputs[keys.IMAGE]))
    if not rows:
        raise DataError("there are no images to calibrate with")
    if len(plain) == len(rows):
        raise DataError(
            f"every calibration image is of a single color, for example {plain[0]}; "
            "ranges need images like those the model will see"
        )
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
        quantile=quantile,
    )
    chosen = {
        name: (float(low), float(high))
        for name, (low, high) in zip(names, ranges, strict=True)
    }
    return chosen, dataclasses.replace(summary, plain_images=tuple(plain))
