"""Compares outputs of a network with what they should be, within stated bounds.

Float networks give nearly the same everywhere; integers and half floats are rounded
differently by other processors. What lies beyond the bounds is a runtime or a delegate
that computes something else.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.model_file import GRAPH, ModelFile, ModelMetadata, is_picture

LARGEST = "largest difference"
TYPICAL = "typical difference"
OTHER_CLASS = "pixels of another class"
NOT_FINITE = "values that are not finite"

# Largest and typical (root mean square) difference of a head, as shares of its range
# with 0, and the share of pixels of another class where the graph makes maps.
_LIMITS: Mapping[str, tuple[float, float, float]] = {
    "none": (1e-3, 1e-4, 1e-3),
    # GPUs and some ARM kernels compute in half floats.
    "fp16": (3e-2, 3e-3, 1e-2),
    # A rounding that falls the other way moves all that follows by a step of 1/256;
    # deep networks add up dozens of them at single pixels. Three times what the demo
    # model shows between the kernels of XNNPACK, of LiteRT and its reference ones: of
    # int8 files 8.6 % and 1.1 %, of dynamic ones 2.7 % and 0.3 %.
    "dynamic": (0.08, 0.01, 0.03),
    "integers": (0.25, 0.03, 0.05),
}
_MAPS = (keys.SEMANTIC_PRED, keys.PANOPTIC_PRED)
_PATCHES = 8  # along each side of a sample image


@dataclass(frozen=True)
class Measurement:
    """Is one difference and its bound.

    Attributes:
        output: Name of the head or map.
        kind: `LARGEST`, `TYPICAL`, `OTHER_CLASS` or `NOT_FINITE`.
        found: A share, 0 to 1.
        limit: At most so much is right.
    """

    output: str
    kind: str
    found: float
    limit: float

    @property
    def is_kept(self) -> bool:
        """Whether the bound holds."""
        return self.found <= self.limit  # NaN does not

    def to_json(self) -> dict[str, Any]:
        """Gives plain JSON values."""
        return {
            "output": self.output,
            "kind": self.kind,
            "found": self.found if math.isfinite(self.found) else None,
            "limit": self.limit,
            "kept": self.is_kept,
        }

    def __str__(self) -> str:
        found = f"{self.found:.2%}" if self.found <= 1 else "above 100%"
        if not math.isfinite(self.found):
            found = "not finite"
        return f"{self.output}: {self.kind} {found}, at most {self.limit:.2%} is right"


def compare_outputs(
    metadata: ModelMetadata,
    expected: Mapping[str, NDArray[Any]],
    found: Mapping[str, NDArray[Any]],
    *,
    has_delegate: bool,
) -> tuple[Measurement, ...]:
    """Measures how far outputs are from what they should be.

    Args:
        metadata: Of the model.
        expected: Outputs as `Engine.run` gives them, or golden ones.
        found: Outputs for the same inputs; may hold more.
        has_delegate: Whether half floats are allowed to a float network.
    """
    quantization = metadata.quantization
    if quantization == "none" and has_delegate:
        quantization = "fp16"
    limits = _LIMITS.get(quantization, _LIMITS["integers"])
    with np.errstate(all="ignore"):
        return tuple(_measure(metadata, expected, found, limits))


def check_finite(found: Mapping[str, NDArray[Any]]) -> tuple[Measurement, ...]:
    """Measures what can be said of outputs with nothing to compare them with."""
    return tuple(
        Measurement(name, NOT_FINITE, float((~np.isfinite(values)).mean()), 0.0)
        for name, values in found.items()
    )


def sample_inputs(model: ModelFile) -> Mapping[str, NDArray[Any]]:
    """Gives what to run a model on to compare: its self test, else a fixed sample.

    The sample has soft patches of random colors, always the same, and nothing of any
    frame before.
    """
    if model.golden is not None:
        return model.golden.inputs
    rng = np.random.default_rng(0)
    inputs: dict[str, NDArray[Any]] = {}
    for name, spec in model.metadata.inputs.items():
        if is_picture(name):
            height, width, channels = spec.shape
            patches = rng.integers(0, 256, (_PATCHES, _PATCHES, channels), np.uint8)
            inputs[name] = np.asarray(cv2.resize(patches, (width, height)), np.uint8)
        else:
            inputs[name] = np.zeros(spec.shape, np.float32)
    return inputs


def _measure(
    metadata: ModelMetadata,
    expected: Mapping[str, NDArray[Any]],
    found: Mapping[str, NDArray[Any]],
    limits: tuple[float, float, float],
) -> Iterator[Measurement]:
    largest, typical, other_class = limits
    # A custom op gives maps beside heads, but not on every machine.
    makes_maps = metadata.merge_place == GRAPH
    for name in sorted(set(expected) & set(metadata.outputs)):
        wanted = expected[name]
        if not makes_maps:
            # With 0: an output that is constant on this sample has a range, too.
            spread = max(float(wanted.max(initial=0) - wanted.min(initial=0)), 1e-6)
            error = (found[name] - wanted).astype(np.float64) / spread
            root = float(np.sqrt(np.square(error).mean()))
            yield Measurement(name, LARGEST, float(np.abs(error).max()), largest)
            yield Measurement(name, TYPICAL, root, typical)
        elif name in _MAPS:
            # Numbers of instances depend on the order of their scores.
            divisor = metadata.label_divisor if name == keys.PANOPTIC_PRED else 1
            share = (found[name] // divisor != wanted // divisor).mean()
            yield Measurement(name, OTHER_CLASS, float(share), other_class)
