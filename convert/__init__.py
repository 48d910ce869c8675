"""From checkpoints to verified model files for devices.

Importing this package loads nothing heavy, so that the command line can offer the
modes at once; public names are resolved on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deeplab2_edge.convert.modes import MODE_NAMES
    from deeplab2_edge.convert.options import ConversionOptions, DropLimit
    from deeplab2_edge.convert.pipeline import ConversionResult, convert_checkpoint
    from deeplab2_edge.convert.quantization.calibration import Calibration, calibrate
    from deeplab2_edge.convert.tflite import ConvertedGraph, convert_model
    from deeplab2_edge.convert.verification import (
        METRICS,
        Verification,
        format_verification,
        verify,
    )

_PUBLIC = {
    "MODE_NAMES": "modes",
    "METRICS": "verification",
    "Calibration": "quantization.calibration",
    "ConversionOptions": "options",
    "ConversionResult": "pipeline",
    "ConvertedGraph": "tflite",
    "DropLimit": "options",
    "Verification": "verification",
    "calibrate": "quantization.calibration",
    "convert_checkpoint": "pipeline",
    "convert_model": "tflite",
    "format_verification": "verification",
    "verify": "verification",
}

__all__ = [
    "METRICS",
    "MODE_NAMES",
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


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'deeplab2_edge.convert' has no attribute {name}")
    module = importlib.import_module(f"deeplab2_edge.convert.{_PUBLIC[name]}")
    return getattr(module, name)
