"""Finds the ranges of activations with the float network.

Running the quantized network in training mode instead, as the library suggests, would
overwrite the statistics of batch normalization and hardly move the ranges.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.convert.qat.annotate import output_quantized, set_ranges
from deeplab2_edge.convert.qat.graph import Expanded, Range
from deeplab2_edge.convert.quantization.calibration import (
    QUANTILE,
    QUANTILES,
    Calibration,
    Inputs,
    choose_ranges,
    fit_inputs,
    is_plain,
)
from deeplab2_edge.convert.quantization.fidelity import head_snrs_db
from deeplab2_edge.convert.quantization.quantile import MAX_IMAGES, QuantileChoice
from deeplab2_edge.errors import DataError
from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="qat")
tf_keras: Any = require("tf_keras", extra="qat")

# What a network sees, by the names in `keys`, without a batch.
Images = Iterable[tuple[str, Inputs]]


@dataclass(frozen=True, eq=False)
class Measured:
    """Holds what images did in a float network.

    Attributes:
        expanded: The network.
        image_names: Of the images.
        plain_images: Names of those of a single color.
        extremes: `[images, layers, 2]`, smallest and largest value of every layer whose
            output is quantized.
    """

    expanded: Expanded
    image_names: tuple[str, ...]
    plain_images: tuple[str, ...]
    extremes: NDArray[np.float32]

    def choose(self, quantile: float) -> tuple[dict[str, Range], Calibration]:
        """Chooses ranges, see `calibrate`.

        Raises:
            ConversionError: If the network gave values that are not finite.
        """
        layers = output_quantized(self.expanded.model)
        names = [layer.name for layer in layers]
        heads = {
            id(tensor): head for head, tensor in self.expanded.model.output.items()
        }
        exceptions: dict[int, Range | None] = {}
        judged = []
        for place, layer in enumerate(layers):
            head = heads.get(id(layer.output))
            if head == keys.OFFSET_MAP:
                # A cut offset sends a pixel to another instance.
                exceptions[place] = None
            if layer.name in self.expanded.fixed:
                exceptions[place] = self.expanded.fixed[layer.name]
            joins = (tf_keras.layers.Add, tf_keras.layers.Concatenate)
            if head or isinstance(layer, joins):
                judged.append(place)
        ranges, summary = choose_ranges(
            self.image_names,
            self.extremes,
            names,
            judged=judged,
            exceptions=exceptions,
            quantile=quantile,
        )
        chosen = {
            name: (float(low), float(high))
            for name, (low, high) in zip(names, ranges, strict=True)
        }
        return chosen, dataclasses.replace(summary, plain_images=self.plain_images)


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
    return measure(expanded, images).choose(quantile)


def measure(expanded: Expanded, images: Images) -> Measured:
    """Runs images through a float network; arguments and errors as `calibrate`."""
    network = expanded.model
    layers = output_quantized(network)
    probes = tf_keras.Model(network.input, [layer.output for layer in layers])

    @tf.function(  # type: ignore[untyped-decorator]
        input_signature=[tf.TensorSpec(network.input_shape, tf.float32)]
    )
    def extremes(image: Any) -> Any:
        values = probes(image, training=False)
        return tf.stack([[tf.reduce_min(v), tf.reduce_max(v)] for v in values])

    names, plain, rows = [], [], []
    for name, pixels in _fitted(network, images):
        names.append(name)
        if is_plain({keys.IMAGE: pixels}):
            plain.append(name)
        rows.append(extremes(pixels))
    if not rows:
        raise DataError("there are no images to calibrate with")
    if len(plain) == len(rows):
        raise DataError(
            f"every calibration image is of a single color, for example {plain[0]}; "
            "ranges need images like those the model will see"
        )
    extremes_of_all = np.asarray(rows, np.float32)
    return Measured(expanded, tuple(names), tuple(plain), extremes_of_all)


def choose_quantile(
    measured: Measured, model: Any, validation: Images
) -> QuantileChoice:
    """Chooses how much of the calibration images ranges cover.

    Args:
        measured: What the calibration images did.
        model: The network with quantizers; its ranges are changed.
        validation: Images that were not calibrated with; the first few are used.

    Returns:
        What brings the heads of `model` closest to those of the float network.

    Raises:
        DataError: If there are no images, or they do not fit.
    """
    network = measured.expanded.model
    fitted = itertools.islice(_fitted(network, validation), MAX_IMAGES)
    few = [pixels for _, pixels in fitted]
    if not few:
        raise DataError("there are no images to choose the quantile with")
    expected, simulate = _run_all(network, few), _traced(model)
    scores = {}
    for quantile in QUANTILES:
        set_ranges(model, measured.choose(quantile)[0])
        found = [_heads(simulate(pixels)) for pixels in few]
        scores[quantile] = float(np.mean([*head_snrs_db(expected, found).values()]))
    best = max(scores, key=lambda quantile: scores[quantile])
    return QuantileChoice(best, scores, len(few))


def _fitted(network: Any, images: Images) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Gives images as float32 with a batch."""
    expected = {keys.IMAGE: {"shape": network.input_shape, "dtype": np.float32}}
    for name, sample in images:
        yield name, fit_inputs(name, sample, expected)[keys.IMAGE]


def _run_all(
    network: Any, images: Sequence[NDArray[np.float32]]
) -> list[dict[str, NDArray[np.float32]]]:
    run = _traced(network)
    return [_heads(run(pixels)) for pixels in images]


def _traced(network: Any) -> Any:
    return tf.function(
        lambda image: network(image, training=False),
        input_signature=[tf.TensorSpec(network.input_shape, tf.float32)],
        autograph=False,
    )


def _heads(outputs: Any) -> dict[str, NDArray[np.float32]]:
    return {name: value.numpy()[0] for name, value in outputs.items()}
