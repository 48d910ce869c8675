"""Quantization modes: what they are, and where each can be used.

Nothing here needs TensorFlow, so that the command line can offer the modes at once.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from deeplab2_edge.errors import UsageError

NONE = "none"
FP16 = "fp16"
DYNAMIC = "dynamic"
INT8 = "int8"
INT8_MIXED = "int8-mixed"
INT16X8 = "int16x8"

TFLITE = "tflite"
ONNX = "onnx"

# Engines of static quantization: the TensorFlow converter's and ai-edge-quantizer.
AI_EDGE = "ai-edge"
QUANTIZERS = (TFLITE, AI_EDGE)
DEFAULT_QUANTIZER = TFLITE

# Share of the calibration images whose range a tensor covers, where nothing chooses it.
# On the demo model 0.8 to 0.95 give nearly the same, 1 costs 3 dB of the heads.
QUANTILE = 0.9
# Of quantization-aware training, where no number is asked for.
QAT_STEPS = 200


@dataclass(frozen=True)
class Mode:
    """Describes a quantization mode.

    Attributes:
        name: As `--quantize` takes it.
        description: One line for people who choose.
        needs_calibration: Whether images must set the ranges of activations.
        has_integer_heads: Whether heads leave the network as integers.
        has_plateaus: Whether peaks of the center heatmap are flat: in 256 steps, or
            cut at 1 by the bound of a graph for integers.
        neighbors: What to take where this mode cannot be used, the closest first.
    """

    name: str
    description: str
    needs_calibration: bool = False
    has_integer_heads: bool = False
    has_plateaus: bool = False
    neighbors: tuple[str, ...] = ()


MODES: Mapping[str, Mode] = {
    mode.name: mode
    for mode in (
        Mode(NONE, "float32, equal to the checkpoint", neighbors=(FP16,)),
        Mode(
            FP16,
            "float16 weights: half the size, the same values",
            neighbors=(NONE,),
        ),
        Mode(
            DYNAMIC,
            "int8 weights, float32 activations: a quarter of the size, needs no images",
            neighbors=(FP16, NONE),
        ),
        Mode(
            INT8,
            "integers throughout: smallest and fastest",
            needs_calibration=True,
            has_integer_heads=True,
            has_plateaus=True,
            neighbors=(INT8_MIXED, DYNAMIC, FP16),
        ),
        Mode(
            INT8_MIXED,
            "int8 with the fragile parts (attention, depth, centers and offsets) in "
            "float32",
            needs_calibration=True,
            has_plateaus=True,
            neighbors=(INT8, DYNAMIC, FP16),
        ),
        Mode(
            INT16X8,
            "int8 weights, int16 activations: close to float, small, slow on CPUs",
            needs_calibration=True,
            neighbors=(FP16, INT8_MIXED),
        ),
    )
}
MODE_NAMES = tuple(MODES)

# Where a format or a target is not named here, it takes every mode.
_MODES_OF_FORMAT: Mapping[str, tuple[str, ...]] = {
    # ONNX Runtime has no kernels with int8 weights and int16 activations.
    ONNX: (NONE, FP16, DYNAMIC, INT8, INT8_MIXED),
}
_MODES_OF_TARGET: Mapping[str, tuple[str, ...]] = {
    # One int8 partition is all its compiler maps.
    "edgetpu": (INT8,),
    # The delegate computes in float16; ranges and int16 are of no use to it.
    "gpu": (NONE, FP16, DYNAMIC, INT8),
}


def find_mode(name: str) -> Mode:
    """Returns a mode.

    Raises:
        UsageError: If there is none of this name; the message gives the nearest.
    """
    try:
        return MODES[name]
    except KeyError:
        close = difflib.get_close_matches(name.lower(), MODE_NAMES, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UsageError(
            f"quantization is {name!r}; must be {', '.join(MODE_NAMES)}{hint}"
        ) from None


def supported_modes(format_name: str = TFLITE, target: str = "cpu") -> tuple[str, ...]:
    """Lists the modes of a file format that a target can use, gentlest first."""
    of_format = _MODES_OF_FORMAT.get(format_name, MODE_NAMES)
    of_target = _MODES_OF_TARGET.get(target, MODE_NAMES)
    return tuple(n for n in MODE_NAMES if n in of_format and n in of_target)


def is_searched(name: str, format_name: str = TFLITE) -> bool:
    """Says whether ranges can be tried in many ways, in a fraction of a second each."""
    return format_name == TFLITE and name in (INT8, INT8_MIXED)


def nearest_mode(name: str, format_name: str = TFLITE, target: str = "cpu") -> str:
    """Returns the mode itself if it can be used here, else what comes closest.

    Raises:
        UsageError: If nothing can be used, or the mode is unknown.
    """
    supported = supported_modes(format_name, target)
    for candidate in (name, *find_mode(name).neighbors, *reversed(supported)):
        if candidate in supported:
            return candidate
    raise UsageError(f"target {target} cannot run {format_name} files in any mode")


def check_mode(name: str, format_name: str = TFLITE, target: str = "cpu") -> Mode:
    """Returns a mode that can be used here.

    Raises:
        UsageError: If it cannot; the message gives the nearest that can.
    """
    mode = find_mode(name)
    nearest = nearest_mode(name, format_name, target)
    if nearest != name:
        supported = ", ".join(supported_modes(format_name, target))
        where = f"{format_name} files"
        if target != "cpu" and target != format_name:
            where += f" for {target}"
        raise UsageError(
            f"--quantize {name} is not possible in {where} (possible: {supported}); "
            f"the nearest is --quantize {nearest}"
        )
    return mode
