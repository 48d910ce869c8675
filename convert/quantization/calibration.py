"""Finds the ranges of an int8 model from images.

tf.lite has a calibrator of its own, which is not used, for two reasons.

* It gives the input of many an elementwise op the union of its range and the output's,
  as if it looked after the op had overwritten a shared buffer: `x / 6` of a hard-swish
  gets six times the range it has (TF 2.21). With equal rules otherwise this costs the
  demo model 6 dB of its class scores and 10 dB of its offsets.
* It takes the absolute minimum and maximum over all images. A few unusual images can
  drive deep activations to ten times the normal range, and one is enough to spend
  nine tenths of the 256 steps on values that no other image has.

Here every tensor is an output of the graph while it is measured, images that stand out
are left out, and a quantile over the images, not over pixels, sets each range.
"""

import dataclasses
import math
import operator
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.convert.modes import QUANTILE as QUANTILE
from deeplab2_edge.convert.quantization.edits import expose
from deeplab2_edge.convert.quantization.float_graph import PIXEL_INPUTS, FloatGraph
from deeplab2_edge.errors import ConversionError, DataError
from deeplab2_edge.optional import require
from deeplab2_edge.runtime.engine import default_threads
from deeplab2_edge.runtime.preprocess import PADDING_VALUE
from deeplab2_edge.wording import counted

tf = require("tensorflow", extra="convert")

# What is tried where the quantile is chosen by measurement.
QUANTILES = (0.8, 0.9, 0.95, 1.0)
# An image is left out if some layer reaches this many times the median range.
OUTLIER_FACTOR = 3.0
# More than this share of all images is no exception but what the data is like.
MAX_LEFT_OUT = 0.2
# Below this many images a median says nothing.
MIN_JUDGED = 8
# Below this many images the user is told that ranges have not settled.
FEW_IMAGES = 20

# A range must not be empty, or its scale is 0.
_SMALLEST_RANGE = 1e-6
_PIXEL_RANGE = (0.0, 255.0)
_HEATMAP_RANGE = (0.0, 1.0)
# The activation in front of the heatmap, see `export`.
_RELU6_RANGE = (0.0, 6.0)
_KEEPING_EXTREMES = frozenset(
    {keys.OFFSET_MAP, keys.FRAME_OFFSET_MAP, keys.NEXT_OFFSET_MAP, keys.DEPTH_PRED}
)
_JOINS = frozenset({"ADD", "CONCATENATION"})

Inputs = Mapping[str, NDArray[Any]] | NDArray[Any]


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
        quantile: Share of the images whose range is covered.
        plain_images: Names of images of a single color.
    """

    image_names: tuple[str, ...]
    num_tensors: int
    outliers: tuple[Outlier, ...]
    median_factor: float
    quantile: float = QUANTILE
    plain_images: tuple[str, ...] = ()

    @property
    def num_used(self) -> int:
        """Number of images that set the ranges."""
        return len(self.image_names) - len(self.outliers)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about the images."""
        notes = []
        if len(self.image_names) < FEW_IMAGES:
            images = counted(len(self.image_names), "image")
            notes.append(
                f"calibrated with {images}; ranges settle with {FEW_IMAGES} and more"
            )
        if self.plain_images:
            count = counted(len(self.plain_images), "calibration image")
            notes.append(
                f"{count} of a single color, first {self.plain_images[0]}: they say "
                "nothing about the ranges of real images"
            )
        return tuple(notes)

    def to_json(self) -> dict[str, Any]:
        """Gives plain JSON values."""
        return {
            "images": len(self.image_names),
            "used": self.num_used,
            "quantile": self.quantile,
            "outlier_factor": OUTLIER_FACTOR,
            "median_factor": round(self.median_factor, 3),
            "outliers": [
                {"name": o.name, "factor": round(o.factor, 2), "layer": o.layer}
                for o in self.outliers
            ],
        }


@dataclass(frozen=True, eq=False)
class Measurement:
    """Holds what samples did in a float graph.

    Attributes:
        image_names: Of the samples.
        extremes: `[images, tensors, 2]`, smallest and largest value of every tensor
            that needs a range.
        plain_images: Names of samples whose picture is of a single color.
    """

    image_names: tuple[str, ...]
    extremes: NDArray[np.float32]
    plain_images: tuple[str, ...] = ()


def calibrate(
    graph: bytes, samples: Iterable[tuple[str, Inputs]], quantile: float = QUANTILE
) -> tuple[bytes, Calibration]:
    """Sets the ranges of a float graph that waits for quantization.

    A range spans the quantiles `1 - quantile` and `quantile` over the images of the
    smallest and largest value, and 0. Exceptions: pixels are 0 to 255, the center
    heatmap 0 to 1, offsets and depth keep their extremes, since a cut offset sends a
    pixel to another instance, and features that come back with the next frame have the
    range they left with.

    Left out are images whose largest absolute value in some layer is more than
    `OUTLIER_FACTOR` times the median over the images; of all, at most `MAX_LEFT_OUT`,
    worst first; of fewer than `MIN_JUDGED` images, none. The layers judged by are
    those where branches meet (sums, concatenations) and the heads: what goes wrong
    anywhere arrives there.

    Args:
        graph: Flatbuffer of the float graph, with a range on every tensor that needs
            one.
        samples: Names and inputs by name, without batch; or the canvas alone, uint8
            `[H, W, 3]`, of a network that takes one image.
        quantile: Share of the images whose range is covered.

    Returns:
        The flatbuffer with new ranges, and what set them.

    Raises:
        DataError: If there are no images, or they do not fit the inputs.
        ConversionError: If the network gives values that are not finite.
    """
    network = FloatGraph(graph)
    ranges, summary = ranges_of(network, measure(network, samples), quantile)
    network.set_ranges(ranges)
    return network.content, summary


def measure(network: FloatGraph, samples: Iterable[tuple[str, Inputs]]) -> Measurement:
    """Runs samples through a float graph and keeps the extremes of every tensor.

    Args:
        network: The graph.
        samples: As `calibrate`.

    Raises:
        DataError: If there are no samples, or they do not fit the inputs.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"\s*Warning: tf\.lite\.Interp")
        interpreter = tf.lite.Interpreter(
            # What is no output shares its buffer, or has none inside a delegate.
            model_content=expose(
                network.content, [t for t in network.ranged if t in network.producers]
            ),
            num_threads=default_threads(),
        )
    interpreter.allocate_tensors()
    details = {d["index"]: d for d in interpreter.get_input_details()}
    inputs = {name: details[index] for name, index in network.inputs.items()}
    names, plain, rows = [], [], []
    for name, sample in samples:
        values = fit_inputs(name, sample, inputs)
        names.append(name)
        if is_plain(values):
            plain.append(name)
        for key, tensor in inputs.items():
            interpreter.set_tensor(tensor["index"], values[key])
        interpreter.invoke()
        rows.append([_extremes(interpreter.tensor(i)()) for i in network.ranged])
    if not rows:
        raise DataError("there are no images to calibrate with")
    return Measurement(tuple(names), np.asarray(rows, np.float32), tuple(plain))


def ranges_of(
    network: FloatGraph, measured: Measurement, quantile: float = QUANTILE
) -> tuple[NDArray[np.float64], Calibration]:
    """Chooses the range of every tensor of a float graph, see `calibrate`.

    Returns:
        Ranges `[tensors, 2]` in the order of `FloatGraph.ranged`, and what set them.

    Raises:
        ConversionError: If a value is not finite.
    """
    ranges, summary = choose_ranges(
        measured.image_names,
        measured.extremes,
        [network.layer_of(tensor) for tensor in network.ranged],
        judged=_judged(network),
        exceptions=_exceptions(network),
        quantile=quantile,
    )
    place = {tensor: place for place, tensor in enumerate(network.ranged)}
    for name, tensor in network.inputs.items():
        given = network.heads.get(name.removeprefix("previous_"))
        if given in place and tensor in place:
            ranges[place[tensor]] = ranges[place[given]]
    return ranges, dataclasses.replace(summary, plain_images=measured.plain_images)


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
        quantile=quantile,
    )


def fit_inputs(
    name: str, sample: Inputs, inputs: Mapping[str, Mapping[str, Any]]
) -> dict[str, NDArray[Any]]:
    """Gives a sample the batch and the types that an interpreter wants.

    Args:
        name: Of the sample.
        sample: As `calibrate`.
        inputs: Details of the interpreter for each input.

    Raises:
        DataError: If an input is missing or has another shape.
    """
    values = sample if isinstance(sample, Mapping) else {keys.IMAGE: sample}
    fitted = {}
    for key, tensor in inputs.items():
        if key not in values:
            raise DataError(
                f"{name}: the network takes {key}, which is missing; there are "
                f"{', '.join(sorted(values)) or 'none'}"
            )
        value = np.asarray(values[key])
        expected = tuple(int(side) for side in tensor["shape"][1:])
        if value.shape != expected:
            found = "x".join(map(str, value.shape))
            raise DataError(
                f"{name}: {key} is {found}; the network takes "
                f"{'x'.join(map(str, expected))} (height x width x channels)"
            )
        if key in PIXEL_INPUTS and tensor["dtype"] == np.int8:
            value = value.astype(np.int16) - 128  # see `finishing.pixels`
        fitted[key] = value[np.newaxis].astype(tensor["dtype"])
    return fitted


def is_plain(values: Mapping[str, NDArray[Any]]) -> bool:
    """Says whether a picture is of a single color, beside its padding."""
    picture = values.get(keys.IMAGE)
    if picture is None:
        return False
    is_same = (picture == picture[:, :1, :1]) | (picture == PADDING_VALUE)
    return bool(is_same.all())


def _judged(network: FloatGraph) -> list[int]:
    """Finds the places of the heads and of the tensors where branches meet."""
    place = {tensor: place for place, tensor in enumerate(network.ranged)}
    joins = [
        op.outputs[0]
        for op in network.ops
        if op.kind in _JOINS and sum(t in place for t in op.inputs) > 1
    ]
    # A graph may give integers as well, which have no range.
    return [place[t] for t in (*network.heads.values(), *joins) if t in place]


def _exceptions(network: FloatGraph) -> dict[int, tuple[float, float] | None]:
    """Finds ranges that do not follow the rule; None asks for the extremes."""
    found: dict[int, tuple[float, float] | None] = {}
    for name, tensor in network.inputs.items():
        if name in PIXEL_INPUTS:
            found |= _pixel_ranges(network, tensor)
        elif name == keys.PREVIOUS_HEATMAP:
            found[tensor] = _HEATMAP_RANGE
    for name, tensor in network.heads.items():
        if name in _KEEPING_EXTREMES:
            found[tensor] = None
        elif name == keys.CENTER_HEATMAP:
            found |= _heatmap_ranges(network, tensor)
    place = {tensor: place for place, tensor in enumerate(network.ranged)}
    return {place[t]: fixed for t, fixed in found.items() if t in place}


def _pixel_ranges(
    network: FloatGraph, tensor: int
) -> dict[int, tuple[float, float] | None]:
    """Gives pixels all levels, also after they are normalized."""
    low, high = _PIXEL_RANGE
    found: dict[int, tuple[float, float] | None] = {tensor: (low, high)}
    while len(users := network.consumers.get(tensor, ())) == 1:
        op = network.ops[users[0]]
        if op.kind in ("MUL", "ADD"):
            numbers = [network.number(constant) for constant in op.constants]
            if (
                len(op.inputs) != 1
                or None in numbers
                or network.has_fused_relu6(users[0])
            ):
                break
            change = operator.mul if op.kind == "MUL" else operator.add
            low, high = sorted(change(level, numbers[0]) for level in (low, high))
        elif op.kind != "CAST":
            break
        tensor = op.outputs[0]
        found[tensor] = (low, high)
    return found


def _heatmap_ranges(
    network: FloatGraph, heatmap: int
) -> dict[int, tuple[float, float] | None]:
    """Gives a heatmap that is bounded in the graph, see `export`, its full range."""
    bound = network.producers.get(heatmap)
    if bound is None:
        return {}
    before = [
        t
        for t in network.ops[bound].inputs
        if t in network.producers and network.has_fused_relu6(network.producers[t])
    ]
    if not before:
        return {}
    return {heatmap: _HEATMAP_RANGE, **dict.fromkeys(before, _RELU6_RANGE)}


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
