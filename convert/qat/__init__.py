"""Quantization-aware training: a float network learns to live with integers.

`graph` rewrites a network so that every layer is one op of an integer device,
`annotate` puts quantizers where such a device rounds, `ranges` finds out what they
cover, `fine_tuning` trains on, and `export` traces the result for the converter.
"""

from deeplab2_edge.convert.qat.export import convert_quantized, export_quantized
from deeplab2_edge.convert.qat.fine_tuning import (
    QatModel,
    Trainer,
    check_fine_tuning,
    fine_tune,
)

__all__ = [
    "QatModel",
    "Trainer",
    "check_fine_tuning",
    "convert_quantized",
    "export_quantized",
    "fine_tune",
]
