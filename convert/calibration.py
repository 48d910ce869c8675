"""Finds the ranges of an int8 model from images.

tf.lite has a calibrator of its own, which is not used, for two reasons.

* It gives the input of many an elementwise op the union of its range and the output's,
  as if it looked after the op had overwritten a shared buffer: `x / 6` of a hard-swish
  gets six times the range it has (TF 2.21). With equal rules otherwise this costs the
  demo model 6 dB of its class scores and 10 dB of its offsets.
* It takes the absolute minimum and maximum over all images. A few unusual images can
  drive deep activations to ten times the normal range, and one is enough to spend
  nine tenths of the 256 steps on values that no other image has.

Here every tensor keeps its buffer while it is measured, images that stand out are
left out, and a quantile over the images, not over pixels, sets each range.
"""

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.errors import ConversionError, DataError
from deeplab2_edge.optional import require
from deeplab2_edge.runtime.interpreter import default_threads

tf = require("tensorflow", extra="convert")

# Share of the images whose range a tensor covers. On the demo model 0.8 to 0.95 give
# the same, 1 costs 2 dB of the class scores.
QUANTILE = 0.9
# An image is left out if some layer reaches this many times the median range.
OUTLIER_FACTOR = 3.0
# More than this share of all images is no exception but what the data is like.
MAX_LEFT_OUT = 0.2
# Below this many images a median says nothing.
MIN_JUDGED = 8

# A range must not be empty, or its scale is 0.
_SMALLEST_RANGE = 1e-6
_PIXEL_RANGE = (0.0, 255.0)
_HEATMAP_RANGE = (0.0, 1.0)
# The activation in front of the heatmap, see `export`.
_RELU6_RANGE = (0.0, 6.0)


@dataclass(frozen=True)
class Outlier:
    """Is an image left out of the calibration.

    Attributes:
        name: Of the image.
        factor: Its range over the median range of all images, in the worst layer.
        layer: That layer.
    """

    name: str
    factor: float
    layer: str


@dataclass(frozen=True)
class Calibration:
    """Says which images set the ranges.

    Attributes:
        image_names: All images looked at.
        num_tensors: How many tensors have a range.
        outliers: What was left out, worst first.
        median_factor: Median over the images of their factor, see `Outlier`.
    """

    image_names: tuple[str, ...]
    num_tensors: int
    outliers: tuple[Outlier, ...]
    median_factor: float

    @property
    def num_used(self) -> int:
        """Number of images that set the ranges."""
        return len(self.image_names) - len(self.outliers)

    def to_json(self) -> dict[str, Any]:
        """Gives plain JSON values."""
        return {
            "images": len(self.image_names),
            "used": self.num_used,
            "quantile": QUANTILE,
            "outlier_factor": OUTLIER_FACTOR,
            "median_factor": round(self.median_factor, 3),
            "outliers": [
                {"name": o.name, "factor": round(o.factor, 2), "layer": o.layer}
                for o in self.outliers
            ],
        }


def calibrate(
    graph: bytes, images: Iterable[tuple[str, NDArray[np.uint8]]]
) -> tuple[bytes, Calibration]:
    """Sets the ranges of a float graph that waits for quantization.

    A range spans the quantiles `1 - QUANTILE` and `QUANTILE` over the images of the
    smallest and largest value, and 0. Three are exceptions: pixels are 0 to 255, the
    center heatmap 0 to 1, and offsets keep their extremes, since a cut offset sends a
    pixel to another instance.

    Left out are images whose largest absolute value in some layer is more than
    `OUTLIER_FACTOR` times the median over the images; of all, at most `MAX_LEFT_OUT`,
    worst first; of fewer than `MIN_JUDGED` images, none. The layers judged by are
    those where branches meet (sums, concatenations) and the heads: what goes wrong
    anywhere arrives there.

    Args:
        graph: Flatbuffer of the float graph, with a range on every tensor that needs
            one.
        images: Names and canvases, uint8 `[H, W, 3]`.

    Returns:
        The flatbuffer with new ranges, and what set them.

    Raises:
        DataError: If there are no images.
        ConversionError: If the network gives values that are not finite.
    """
    network = _Network(bytearray(graph))
    names, measured = network.measure(images)
    ranges, summary = choose_ranges(
        names,
        measured,
        [network.name(place) for place in range(len(network.indices))],
        judged=network.judged,
        exceptions=network.exceptions,
    )
    network.write_ranges(ranges)
    return bytes(network.buffer), summary


def choose_ranges(
    image_names: Sequence[str],
    measured: NDArray[np.float32],
    layer_names: Sequence[str],
    *,
    judged: Sequence[int],
    exceptions: Mapping[int, tuple[float, float] | None],
    quantile: float = QUANTILE,
) -> tuple[NDArray[np.float64], Calibration]:
    """Chooses the range of every layer from its extremes on every image.

    This is the one rule for all that is quantized, see `calibrate`.

    Args:
        image_names: Of the images.
        measured: `[images, layers, 2]`, smallest and largest values.
        layer_names: Of the layers.
        judged: Positions of the layers that images are judged by.
        exceptions: Ranges that do not follow the rule, by position; None asks for the
            extremes.
        quantile: Share of the images whose range is covered.

    Returns:
        Ranges `[layers, 2]` that hold 0 and are not empty, and what set them.

    Raises:
        ConversionError: If a value is not finite.
    """
    broken = np.argwhere(~np.isfinite(measured).all(axis=-1))
    if len(broken):
        image, place = broken[0]
        raise ConversionError(
            f"{image_names[image]}: the float model gives values that are not finite "
            f"in {layer_names[place]}; is the checkpoint damaged?"
        )
    factors = _factors(np.abs(measured[:, list(judged)]).max(axis=-1))
    largest = factors.max(axis=1)
    left_out = _left_out(largest)
    kept = np.delete(measured, left_out, axis=0)
    return _ranges(kept, exceptions, quantile), Calibration(
        image_names=tuple(image_names),
        num_tensors=len(layer_names),
        outliers=tuple(
            Outlier(
                name=image_names[image],
                factor=float(largest[image]),
                layer=layer_names[judged[int(factors[image].argmax())]],
            )
            for image in left_out
        ),
        median_factor=float(np.median(largest)),
    )


class _Network:
    """Reads, runs and changes the flatbuffer of a float graph.

    Attributes:
        buffer: The flatbuffer; ranges are overwritten in place.
        indices: Tensors that have a range. All else counts positions in this list.
        judged: Tensors that images are judged by.
        exceptions: Ranges that do not follow the rule; None asks for the extremes.
    """

    def __init__(self, buffer: bytearray) -> None:
        from tensorflow.lite.python import schema_py_generated as schema

        self.buffer = buffer
        document = schema.Model.GetRootAs(buffer, 0)
        self._graph = document.Subgraphs(0)
        quantizations = (
            self._graph.Tensors(i).Quantization()
            for i in range(self._graph.TensorsLength())
        )
        self.indices = [
            index
            for index, quantization in enumerate(quantizations)
            if quantization is not None and quantization.MinLength() == 1
        ]
        position = {index: place for place, index in enumerate(self.indices)}
        codes = [
            document.OperatorCodes(i).BuiltinCode()
            for i in range(document.OperatorCodesLength())
        ]
        operators = [
            self._graph.Operators(i) for i in range(self._graph.OperatorsLength())
        ]
        signature = document.SignatureDefs(0)
        heads = {
            signature.Outputs(i).Name().decode(): signature.Outputs(i).TensorIndex()
            for i in range(signature.OutputsLength())
        }
        joins = {schema.BuiltinOperator.ADD, schema.BuiltinOperator.CONCATENATION}
        self.judged = [position[index] for index in heads.values()] + [
            position[operator.Outputs(0)]
            for operator in operators
            if codes[operator.OpcodeIndex()] in joins
            and sum(i in position for i in operator.InputsAsNumpy()) > 1
        ]
        self.exceptions: dict[int, tuple[float, float] | None] = {
            position[signature.Inputs(0).TensorIndex()]: _PIXEL_RANGE
        }
        if keys.OFFSET_MAP in heads:
            self.exceptions[position[heads[keys.OFFSET_MAP]]] = None
        if keys.CENTER_HEATMAP in heads:
            heatmap = heads[keys.CENTER_HEATMAP]
            self.exceptions[position[heatmap]] = _HEATMAP_RANGE
            (bound,) = (o for o in operators if o.Outputs(0) == heatmap)
            for index in bound.InputsAsNumpy():
                if index in position:
                    self.exceptions[position[int(index)]] = _RELU6_RANGE

    def name(self, place: int) -> str:
        """Returns the name of a tensor."""
        return str(self._graph.Tensors(self.indices[place]).Name().decode())

    def measure(
        self, images: Iterable[tuple[str, NDArray[np.uint8]]]
    ) -> tuple[tuple[str, ...], NDArray[np.float32]]:
        """Runs images and gives their names and `[images, tensors, 2]` extremes."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"\s*Warning: tf\.lite\.Interp")
            interpreter = tf.lite.Interpreter(
                model_content=bytes(self.buffer),
                num_threads=default_threads(),
                # Without this, and with delegates, tensors share or lose buffers.
                experimental_preserve_all_tensors=True,
                experimental_op_resolver_type=(
                    tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
                ),
            )
        interpreter.allocate_tensors()
        pixels = interpreter.get_input_details()[0]["index"]
        names = []
        rows = []
        for name, canvas in images:
            names.append(name)
            interpreter.set_tensor(pixels, canvas[np.newaxis].astype(np.float32))
            interpreter.invoke()
            rows.append([_extremes(interpreter.tensor(i)()) for i in self.indices])
        if not rows:
            raise DataError("there are no images to calibrate with")
        return tuple(names), np.asarray(rows, np.float32)

    def write_ranges(self, ranges: NDArray[np.float64]) -> None:
        """Overwrites the ranges `[tensors, 2]` in the buffer."""
        for index, (low, high) in zip(self.indices, ranges, strict=True):
            quantization = self._graph.Tensors(index).Quantization()
            quantization.MinAsNumpy()[0] = low
            quantization.MaxAsNumpy()[0] = high


def _extremes(values: NDArray[np.float32]) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _factors(ranges: NDArray[np.float32]) -> NDArray[np.float64]:
    """Divides ranges `[images, layers]` by their median over the images."""
    median = np.median(ranges.astype(np.float64), axis=0)
    return np.asarray(ranges / np.where(median > 0, median, 1.0))


def _left_out(largest: NDArray[np.float64]) -> list[int]:
    if len(largest) < MIN_JUDGED:
        return []
    order = np.argsort(-largest, kind="stable")
    limit = math.floor(len(largest) * MAX_LEFT_OUT)
    return [int(i) for i in order[:limit] if largest[i] > OUTLIER_FACTOR]


def _ranges(
    measured: NDArray[np.float32],
    exceptions: Mapping[int, tuple[float, float] | None],
    quantile: float,
) -> NDArray[np.float64]:
    lowest, highest = measured[..., 0], measured[..., 1]
    low = np.quantile(lowest, 1 - quantile, axis=0)
    high = np.quantile(highest, quantile, axis=0)
    for place, fixed in exceptions.items():
        low[place], high[place] = fixed or (
            lowest[:, place].min(),
            highest[:, place].max(),
        )
    low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    high = np.where(high - low < _SMALLEST_RANGE, low + _SMALLEST_RANGE, high)
    return np.stack([low, high], axis=-1)
