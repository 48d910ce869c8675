"""The tiny network with quantizers, built once for all tests of them."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.convert.qat.annotate import annotate, set_ranges
from deeplab2_edge.convert.qat.graph import Expanded, Range, expand
from deeplab2_edge.convert.qat.ranges import calibrate
from deeplab2_edge.convert.quantization.calibration import Calibration
from deeplab2_edge.optional import require
from tests.convert.tiny import build_tiny, picture

tf: Any = require("tensorflow", extra="convert")

NUM_CALIBRATED = 12


@dataclass(frozen=True, eq=False)
class Quantized:
    """Is a float network beside its quantized form."""

    plain: Any
    expanded: Expanded
    model: Any
    ranges: dict[str, Range]
    calibration: Calibration


@functools.lru_cache(maxsize=1)
def tiny() -> Quantized:
    """Quantizes the tiny network; tests must leave it as it is."""
    plain = build_tiny()
    expanded = expand(plain)
    ranges, calibration = calibrate(expanded, images(range(NUM_CALIBRATED)))
    model = annotate(expanded.model)
    set_ranges(model, ranges)
    return Quantized(plain, expanded, model, ranges, calibration)


def images(seeds: range) -> list[tuple[str, dict[str, NDArray[np.uint8]]]]:
    """Draws pictures to calibrate with."""
    return [(f"picture{seed}", {keys.IMAGE: picture(seed)}) for seed in seeds]


def run(model: Any, canvas: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """Runs a Keras network on one image."""
    outputs = model(canvas[np.newaxis].astype(np.float32), training=False)
    return {name: np.asarray(value) for name, value in outputs.items()}


def runner(model: Any) -> Callable[[NDArray[np.uint8]], dict[str, Any]]:
    """Traces a Keras network, for many images."""
    traced = tf.function(lambda pixels: model(pixels, training=False))

    def run_traced(canvas: NDArray[np.uint8]) -> dict[str, Any]:
        outputs = traced(canvas[np.newaxis].astype(np.float32))
        return {name: value.numpy() for name, value in outputs.items()}

    return run_traced


def snr(signal: NDArray[Any], other: NDArray[Any]) -> float:
    """Gives the power of a signal over that of another's error, in dB."""
    noise = np.square(np.float64(signal) - other).sum()
    return float(10 * np.log10(np.square(np.float64(signal)).sum() / max(noise, 1e-30)))


def layer_inputs(model: Any) -> dict[str, list[str]]:
    """Lists the layers in front of every layer, in order, by their float names."""
    givers = {id(layer.output): _plain(layer) for layer in model.layers}
    return {
        _plain(layer): [
            givers[id(tensor)]
            for tensor in (
                layer.input if isinstance(layer.input, list) else [layer.input]
            )
        ]
        for layer in model.layers[1:]
    }


def _plain(layer: Any) -> str:
    return str(getattr(layer, "layer", layer).name)
