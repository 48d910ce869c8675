"""The second engine of static quantization: ai-edge-quantizer, an optional package.

It quantizes the same float graph with the same ranges as the converter. They differ in
details: it gives each input of a concatenation its own scale and adds QUANTIZE ops,
where the converter gives all of them one scale.
"""

import contextlib
import io
import re
import warnings
from typing import Any

import numpy as np

from deeplab2_edge.convert.quantization import edits
from deeplab2_edge.convert.quantization.float_graph import FloatGraph
from deeplab2_edge.convert.quantization.mixed import FloatPart
from deeplab2_edge.errors import ConversionError
from deeplab2_edge.optional import require

EXTRA = "ai-edge"
_PACKAGE = "ai_edge_quantizer"


def quantize(graph: FloatGraph, part: FloatPart, *, has_integer_heads: bool) -> bytes:
    """Quantizes a float graph with ranges to int8.

    Args:
        graph: The graph.
        part: What stays in float32.
        has_integer_heads: Whether heads leave as int8 and not as float32.

    Returns:
        A flatbuffer whose inputs are float32.

    Raises:
        ConversionError: If the engine fails.
        MissingExtraError: If the package is not installed.
    """
    quantizer = require(f"{_PACKAGE}.quantizer", extra=EXTRA)
    names = require(f"{_PACKAGE}.qtyping", extra=EXTRA).TFLOperationName
    recipe = require(f"{_PACKAGE}.recipe", extra=EXTRA)
    try:
        # It draws bars and tables on both streams, and warns of its own doings.
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stderr(io.StringIO()),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            engine = quantizer.Quantizer(edits.prepare_float(graph.content, part.ops))
            engine.load_quantization_recipe(recipe.static_wi8_ai8())
            no = quantizer.AlgorithmName.NO_QUANTIZE
            _keep(engine, graph, part, names, no)
            engine.update_quantization_recipe(".*", names.INPUT, None, no)
            if not has_integer_heads:
                engine.update_quantization_recipe(".*", names.OUTPUT, None, no)
            result = engine.quantize(_statistics(graph), enable_progress_report=False)
    except Exception as error:  # the engine raises whatever its parts raise
        reason = " ".join(str(error).split())[:400]
        raise ConversionError(
            f"ai-edge-quantizer failed: {reason}; try --quantizer tflite"
        ) from error
    return edits.restore_signature(bytes(result.quantized_model), graph.content)


def _keep(engine: Any, graph: FloatGraph, part: FloatPart, names: Any, no: Any) -> None:
    kept: dict[str, list[str]] = {}
    for place in sorted(part.ops):
        op = graph.ops[place]
        if hasattr(names, op.kind):
            kept.setdefault(op.kind, []).append(re.escape(op.name))
    for kind, found in kept.items():
        # The engine matches all outputs of an op, joined.
        pattern = f"^(?:{'|'.join(found)})(?:;|$)"
        engine.update_quantization_recipe(pattern, getattr(names, kind), None, no)


def _statistics(graph: FloatGraph) -> dict[str, dict[str, Any]]:
    return {
        graph.name(tensor): {"min": np.float32(low), "max": np.float32(high)}
        for tensor, (low, high) in zip(graph.ranged, graph.ranges(), strict=True)
    }
