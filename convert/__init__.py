"""From checkpoints to verified model files for devices."""

from deeplab2_edge.convert.calibration import Calibration, calibrate
from deeplab2_edge.convert.pipeline import (
    METRICS,
    ConversionOptions,
    ConversionResult,
    DropLimit,
    convert_checkpoint,
)
from deeplab2_edge.convert.tflite import QUANTIZATIONS, ConvertedGraph, convert_model
from deeplab2_edge.convert.verification import (
    Verification,
    format_verification,
    verify,
)

__all__ = [
    "METRICS",
    "QUANTIZATIONS",
    "Calibration",
    "ConversionOptions",
    "ConversionResult",
    "ConvertedGraph",
    "DropLimit",
    "Verification",
    "calibrate",
    "convert_checkpoint",
    "convert_model",
    "format_verification",
    "verify",
]
