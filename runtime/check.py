"""Checks that this machine computes what the maker of a model file computed.

A file carries one input and what it must give. Float networks give nearly the same
everywhere; integers and half floats are rounded differently by other processors, within
bounds that are stated here. What lies beyond is a runtime or a delegate that computes
something else.
"""

import math
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.model_file import GRAPH, ModelFile, is_picture
from deeplab2_edge.runtime.engine import Engine, open_engine

LARGEST = "largest difference"
TYPICAL = "typical difference"
OTHER_CLASS = "pixels of another class"
NOT_FINITE = "values that are not finite"

# Largest and typical (root mean square) difference of a head, as shares of its range,
# and the share of pixels of another class where the graph makes maps.
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


@dataclass(frozen=True)
class SelfTest:
    """Holds what a self test found.

    Attributes:
        has_golden: Whether there was something to compare with. Without, the network
            ran on a plain image, and values must at least be finite.
        measurements: All of them.
        machine: Architecture of this machine.
    """

    has_golden: bool
    measurements: tuple[Measurement, ...]
    machine: str

    @property
    def passed(self) -> bool:
        """Whether every bound holds."""
        return all(measurement.is_kept for measurement in self.measurements)

    def to_json(self) -> dict[str, Any]:
        """Gives plain JSON values."""
        return {
            "has_golden": self.has_golden,
            "passed": self.passed,
            "architecture": self.machine,
            "measurements": [m.to_json() for m in self.measurements],
        }


def check_model(
    model: ModelFile, *, num_threads: int | None = None, delegate: str | None = None
) -> SelfTest:
    """Runs the self test of a file with this machine's runtime.

    Args:
        model: A file that was read, and so has the digest it says.
        num_threads: Of the engine.
        delegate: Path of an external delegate library; half floats are allowed then.

    Raises:
        ModelFileError: If the runtime refuses the graph.
        UsageError: If `num_threads` or `delegate` cannot be used.
        MissingExtraError: If the engine is not installed.
    """
    engine = open_engine(model, num_threads=num_threads, delegate=delegate)
    if model.golden is None:
        found = engine.run(_plain_inputs(engine))
        measurements = tuple(
            Measurement(name, NOT_FINITE, float((~np.isfinite(values)).mean()), 0.0)
            for name, values in found.items()
        )
    else:
        found = engine.run(model.golden.inputs)
        limits = _limits_of(model.metadata.quantization, has_delegate=bool(delegate))
        with np.errstate(all="ignore"):
            measurements = tuple(_compare(model, found, limits))
    return SelfTest(model.golden is not None, measurements, platform.machine())


def format_self_test(test: SelfTest) -> str:
    """Formats a self test as a table."""
    width = max((len(m.output) for m in test.measurements), default=0) + 2
    lines = []
    for measurement in test.measurements:
        mark = "" if measurement.is_kept else "  FAILED"
        lines.append(
            f"  {measurement.output:<{width}}{measurement.kind:<26}"
            f"{measurement.found:>9.3%}  (at most {measurement.limit:.2%}){mark}"
        )
    return "\n".join(lines)


def _limits_of(quantization: str, *, has_delegate: bool) -> tuple[float, float, float]:
    if quantization == "none" and has_delegate:
        quantization = "fp16"
    return _LIMITS.get(quantization, _LIMITS["integers"])


def _compare(
    model: ModelFile,
    found: Mapping[str, NDArray[Any]],
    limits: tuple[float, float, float],
) -> Iterator[Measurement]:
    assert model.golden is not None
    largest, typical, other_class = limits
    # A custom op gives maps beside heads, but not on every machine.
    makes_maps = model.metadata.merge_place == GRAPH
    for name, expected in model.golden.heads.items():
        if not makes_maps:
            spread = max(float(np.ptp(expected)), 1e-6)
            error = (found[name] - expected).astype(np.float64) / spread
            root = float(np.sqrt(np.square(error).mean()))
            yield Measurement(name, LARGEST, float(np.abs(error).max()), largest)
            yield Measurement(name, TYPICAL, root, typical)
        elif name in _MAPS:
            # Numbers of instances depend on the order of their scores.
            divisor = model.metadata.label_divisor if name == keys.PANOPTIC_PRED else 1
            share = (found[name] // divisor != expected // divisor).mean()
            yield Measurement(name, OTHER_CLASS, float(share), other_class)


def _plain_inputs(engine: Engine) -> dict[str, NDArray[Any]]:
    """Makes a grey image, and nothing of any frame before."""
    return {
        name: np.full(spec.shape, 128, np.uint8)
        if is_picture(name)
        else np.zeros(spec.shape, np.float32)
        for name, spec in engine.metadata.inputs.items()
    }
