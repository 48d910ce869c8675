"""Chooses the images that set the ranges of an int8 model.

The quantizer of tf.lite takes the absolute minimum and maximum of every activation
over all calibration images. A few unusual images can drive deep activations to ten
times the normal range, and one of them is enough to spend nine tenths of the 256
steps on values that no other image has. So the float model looks at the candidates
first, and images that stand out are left out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.datasets.folders import SampleLike
from deeplab2_edge.model_file import ResizeRule
from deeplab2_edge.optional import require
from deeplab2_edge.progress import progress
from deeplab2_edge.runtime.preprocess import place_on_canvas

tf = require("tensorflow", extra="convert")
tf_keras = require("tf_keras", extra="convert")

# An image is left out if some layer reaches this many times the median range.
OUTLIER_FACTOR = 3.0
# More than this share of all images is no exception but what the data is like.
MAX_DROPPED = 0.2
# Below this many images a median says nothing.
MIN_JUDGED = 8


@dataclass(frozen=True)
class Outlier:
    """Is an image left out of the calibration.

    Attributes:
        name: Of the sample.
        factor: Its range over the median range of all images, in the worst layer.
        layer: That layer.
    """

    name: str
    factor: float
    layer: str


@dataclass(frozen=True, eq=False)
class Calibration:
    """Holds the images that set the ranges, and what was left out.

    Attributes:
        source: Where the images come from.
        canvases: uint8 `[H, W, 3]`, as a device sees them.
        num_candidates: How many images were looked at.
        num_layers: How many layers were looked at.
        outliers: What was left out, worst first.
        median_factor: Median over the images of their largest factor.
    """

    source: str
    canvases: Sequence[NDArray[np.uint8]]
    num_candidates: int
    num_layers: int
    outliers: tuple[Outlier, ...]
    median_factor: float

    def to_json(self) -> dict[str, Any]:
        """Gives everything but the images."""
        return {
            "source": self.source,
            "candidates": self.num_candidates,
            "used": len(self.canvases),
            "layers": self.num_layers,
            "outlier_factor": OUTLIER_FACTOR,
            "median_factor": round(self.median_factor, 3),
            "outliers": [
                {"name": o.name, "factor": round(o.factor, 2), "layer": o.layer}
                for o in self.outliers
            ],
        }


def choose_calibration(
    model: Any,
    samples: Sequence[SampleLike],
    *,
    source: str,
    canvas: tuple[int, int],
    resize: ResizeRule,
    quiet: bool = False,
) -> Calibration:
    """Runs the float model on candidate images and leaves out those that stand out.

    An image's range in a layer is the largest absolute activation. Its factor is the
    range over the median range of all images, in the layer where this is largest.
    Images with a factor above `OUTLIER_FACTOR` are left out, at most `MAX_DROPPED` of
    them, worst first; fewer than `MIN_JUDGED` images are all used.

    Args:
        model: Float Keras model with batch size 1.
        samples: Candidates.
        source: Where they come from, for reports.
        canvas: (height, width) of the model's input.
        resize: How the device resizes images.
        quiet: Whether to show no progress.

    Raises:
        DataError: If an image cannot be read.
    """
    layers, probe = _probe(model)
    canvases = []
    ranges = []
    for sample in progress(
        samples, total=len(samples), label="looking at calibration images", quiet=quiet
    ):
        image, _ = place_on_canvas(sample.load_image(), canvas, resize)
        canvases.append(image)
        ranges.append(probe(image[np.newaxis]).numpy())
    factors = _factors(np.asarray(ranges))
    largest = factors.max(axis=1)
    dropped = _outliers(largest)
    return Calibration(
        source=source,
        canvases=[c for i, c in enumerate(canvases) if i not in dropped],
        num_candidates=len(samples),
        num_layers=len(layers),
        outliers=tuple(
            Outlier(
                samples[i].name, float(largest[i]), layers[int(factors[i].argmax())]
            )
            for i in dropped
        ),
        median_factor=float(np.median(largest)),
    )


def _probe(model: Any) -> tuple[list[str], Any]:
    """Builds a function from a canvas to the range of every probed layer.

    Probed are the outputs of residual additions, of everything with more than one
    input, and the heads: what is wrong anywhere arrives at one of them.
    """
    layers = [
        layer
        for layer in model.layers
        if isinstance(layer, tf_keras.layers.Add | tf_keras.layers.Concatenate)
    ]
    names = [layer.name for layer in layers] + list(model.output)
    tensors = [layer.output for layer in layers] + list(model.output.values())
    network = tf_keras.Model(model.input, tensors)

    def ranges(image: Any) -> Any:
        outputs = network(tf.cast(image, tf.float32), training=False)
        return tf.stack([tf.reduce_max(tf.abs(output)) for output in outputs])

    spec = tf.TensorSpec((1, *model.input_shape[1:]), tf.uint8)
    return names, tf.function(ranges, input_signature=[spec])


def _factors(ranges: NDArray[np.float32]) -> NDArray[np.float64]:
    """Divides ranges `[images, layers]` by their median over the images."""
    median = np.median(ranges.astype(np.float64), axis=0)
    return np.asarray(ranges / np.where(median > 0, median, 1.0))


def _outliers(largest: NDArray[np.float64]) -> tuple[int, ...]:
    if len(largest) < MIN_JUDGED:
        return ()
    order = np.argsort(-largest, kind="stable")
    limit = math.floor(len(largest) * MAX_DROPPED)
    return tuple(int(i) for i in order[:limit] if largest[i] > OUTLIER_FACTOR)
