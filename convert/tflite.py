"""From a traced network to a TFLite flatbuffer made of builtin ops only."""

import collections
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.convert.calibration import Calibration, calibrate
from deeplab2_edge.convert.export import INPUT_NAME, export_graph
from deeplab2_edge.convert.quiet import quiet_native_notes
from deeplab2_edge.errors import ConversionError, UsageError
from deeplab2_edge.optional import require

tf = require("tensorflow", extra="convert")

NONE = "none"
FP16 = "fp16"
DYNAMIC = "dynamic"
INT8 = "int8"
QUANTIZATIONS = (NONE, FP16, DYNAMIC, INT8)

_OFFENDERS = re.compile(r"(?:TF Select|Custom) ops: (.+)")


@dataclass(frozen=True, eq=False)
class ConvertedGraph:
    """Is a flatbuffer and what must be known to use it.

    Attributes:
        graph: The TFLite flatbuffer.
        input_name: Tensor name of the input.
        output_names: Tensor name of each head, by the names in `keys`.
        op_counts: Number of ops by builtin name, most frequent first.
        calibration: What set the ranges, for `int8`.
    """

    graph: bytes
    input_name: str
    output_names: Mapping[str, str]
    op_counts: Mapping[str, int]
    calibration: Calibration | None = None


def hard_swish_form(quantization: str) -> str:
    """Says in which form a model must be built for a quantization.

    int8 HARD_SWISH has no XNNPACK kernel (LiteRT 2.3) and would cut the graph into
    some twenty parts; decomposed it halves the time and keeps the values.
    """
    return "decomposed" if quantization == INT8 else "fused"


def convert_model(
    model: Any,
    quantization: str,
    *,
    calibration: Iterable[tuple[str, NDArray[np.uint8]]] = (),
) -> ConvertedGraph:
    """Converts a Keras model to TFLite.

    Input and outputs of the result are those of the runtime: `image` uint8
    `[1, H, W, 3]`, normalized inside the graph, and the raw heads, float32 or, with
    `int8`, int8.

    Args:
        model: A model of `build_model` with `batch_size=1` and the `hard_swish` of
            `hard_swish_form`.
        quantization: `none` (float32), `fp16` (weights), `dynamic` (int8 weights),
            `int8` (weights per channel, activations and heads).
        calibration: Names and canvases, uint8 `[H, W, 3]`, that set the ranges for
            `int8`; gone through once.

    Raises:
        ConversionError: If the network needs ops that are not builtin, or the
            converter fails.
        UsageError: If `quantization` is unknown.
        DataError: If there are no calibration images for `int8`.
    """
    if quantization not in QUANTIZATIONS:
        raise UsageError(
            f"quantization is {quantization!r}; must be {', '.join(QUANTIZATIONS)}"
        )
    exported = export_graph(model, for_integers=quantization == INT8)
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [exported.function], exported.module
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if quantization != NONE:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantization == FP16:
        converter.target_spec.supported_types = [tf.float16]
    with quiet_native_notes():
        if quantization != INT8:
            return _examine(_run(converter.convert), None)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        # One grey image, only to learn which tensors need a range.
        grey = np.full(model.input_shape, 128, np.float32)
        converter.representative_dataset = lambda: ({INPUT_NAME: grey} for _ in "1")
        converter._experimental_calibrate_only = True
        ranged, summary = calibrate(_run(converter.convert), calibration)
        return _examine(_run(lambda: _quantize(ranged)), summary)


def _quantize(ranged: bytes) -> bytes:
    from tensorflow.lite.python.convert import mlir_quantize

    return bytes(
        mlir_quantize(ranged, input_data_type=tf.uint8, output_data_type=tf.int8)
    )


def _run(convert: Callable[[], bytes]) -> bytes:
    try:
        return bytes(convert())
    except MemoryError:
        raise
    except Exception as error:  # the converter raises whatever its parts raise
        raise ConversionError(_reason(error)) from error


def _reason(error: Exception) -> str:
    """Says why the converter failed: the ops, or its own first error line."""
    text = str(error)
    offenders = _OFFENDERS.findall(text)
    if offenders:
        return (
            f"the network needs ops that are not TFLite builtins: "
            f"{', '.join(offenders)}; replace the layers that make them"
        )
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error:" in line] or lines[-1:] or [repr(error)]
    return f"the TFLite converter failed: {errors[0][:500]}"


def _examine(graph: bytes, calibration: Calibration | None) -> ConvertedGraph:
    """Reads names and ops back from the flatbuffer and checks what must hold."""
    from tensorflow.lite.python import schema_py_generated as schema

    document = schema.Model.GetRootAs(graph, 0)
    network = document.Subgraphs(0)
    signature = document.SignatureDefs(0)
    pixels = network.Tensors(signature.Inputs(0).TensorIndex())
    if calibration is not None:
        scales = pixels.Quantization().ScaleAsNumpy()
        zero_points = pixels.Quantization().ZeroPointAsNumpy()
        if list(scales) != [1.0] or list(zero_points) != [0]:
            raise ConversionError(
                f"the input of the int8 graph has scale {scales} and zero point "
                f"{zero_points}; expected 1 and 0, pixels as they are"
            )
    outputs = [signature.Outputs(i) for i in range(signature.OutputsLength())]
    return ConvertedGraph(
        graph=graph,
        input_name=pixels.Name().decode(),
        output_names={
            output.Name().decode(): network.Tensors(output.TensorIndex())
            .Name()
            .decode()
            for output in outputs
        },
        op_counts=_count_ops(document, network, schema.BuiltinOperator),
        calibration=calibration,
    )


def _count_ops(document: Any, network: Any, builtins: Any) -> dict[str, int]:
    names = {
        code: name for name, code in vars(builtins).items() if not name.startswith("_")
    }
    codes = [document.OperatorCodes(i) for i in range(document.OperatorCodesLength())]
    counts = collections.Counter(
        names[codes[network.Operators(i).OpcodeIndex()].BuiltinCode()]
        for i in range(network.OperatorsLength())
    )
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
