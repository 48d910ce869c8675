"""From a traced network to a TFLite flatbuffer made of builtin ops only."""

import collections
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from deeplab2_edge import keys
from deeplab2_edge.convert.export import ExportedGraph, export_graph
from deeplab2_edge.convert.finishing import finish
from deeplab2_edge.convert.modes import (
    AI_EDGE,
    FP16,
    INT8,
    INT8_MIXED,
    INT16X8,
    MODE_NAMES,
    NONE,
    QUANTIZERS,
    TFLITE,
    find_mode,
)
from deeplab2_edge.convert.quantization import ai_edge, edits
from deeplab2_edge.convert.quantization.calibration import (
    QUANTILE,
    Calibration,
    Inputs,
    Measurement,
    measure,
    ranges_of,
)
from deeplab2_edge.convert.quantization.float_graph import (
    PIXEL_INPUTS,
    FloatGraph,
    layer_path,
    op_kinds,
)
from deeplab2_edge.convert.quantization.mixed import (
    float_part,
    fragile_ops,
    ops_of_layers,
)
from deeplab2_edge.convert.quiet import quiet_native_notes
from deeplab2_edge.errors import ConversionError, DataError, UsageError
from deeplab2_edge.optional import require

tf = require("tensorflow", extra="convert")

QUANTIZATIONS = MODE_NAMES

_OFFENDERS = re.compile(r"(?:TF Select|Custom) ops: (.+)")
_LOCATION = re.compile(r"loc\(.*?\"([^\"]+)\"")
_FAILED_OP = re.compile(r"'(tf[a-z]*\.\w+)' op ([^\n]*)")
# Ops that only change the type of values.
_TYPE_CHANGES = frozenset({"QUANTIZE", "DEQUANTIZE", "CAST"})


@dataclass(frozen=True, eq=False)
class ConvertedGraph:
    """Is a flatbuffer and what must be known to use it.

    Attributes:
        graph: The TFLite flatbuffer.
        input_names: Tensor name of each input, by the names in `keys`.
        output_names: Tensor name of each head, by the names in `keys`.
        op_counts: Number of ops by builtin name, most frequent first.
        pixel_ranges: Of pictures that come as int8 steps, the values of the grey levels
            0 and 255; other pictures come as uint8 levels.
        float_ops: Of them those that compute in float32, in a file of integers.
        calibration: What set the ranges, where images did.
        quantization: One of `modes.MODE_NAMES`.
        quantizer: Which engine set the integers, one of `modes.QUANTIZERS`.
        float_layers: Layers kept in float32 beyond the rules of `mixed`.
    """

    graph: bytes
    input_names: Mapping[str, str]
    output_names: Mapping[str, str]
    op_counts: Mapping[str, int]
    pixel_ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    float_ops: Mapping[str, int] = field(default_factory=dict)
    calibration: Calibration | None = None
    quantization: str = NONE
    quantizer: str | None = None
    float_layers: tuple[str, ...] = ()

    @property
    def input_name(self) -> str:
        """Tensor name of the image."""
        return self.input_names[keys.IMAGE]


def hard_swish_form(quantization: str) -> str:
    """Says in which form a model must be built for a quantization.

    int8 HARD_SWISH has no XNNPACK kernel (LiteRT 2.3) and would cut the graph into
    some twenty parts; decomposed it halves the time and keeps the values, and its
    factor of 1/6 costs nothing, see `finishing`. With 16-bit activations the converter
    refuses it.
    """
    is_integer = quantization in (INT8, INT8_MIXED, INT16X8)
    return "decomposed" if is_integer else "fused"


def is_for_integers(quantization: str) -> bool:
    """Says whether a mode wants the graph that `export_graph` makes for integers.

    int16x8 does not: there is no op from uint8 pixels to int16, so the graph casts.
    """
    return quantization in (INT8, INT8_MIXED)


def convert_model(
    model: Any,
    quantization: str,
    *,
    config: Any = None,
    calibration: Iterable[tuple[str, Inputs]] = (),
    quantizer: str = TFLITE,
) -> ConvertedGraph:
    """Converts a Keras model to TFLite: exports it and calls `convert_graph`.

    Args:
        model: A model of `build_model` with `batch_size=1` and the `hard_swish` of
            `hard_swish_form`.
        quantization: One of `modes.MODE_NAMES`.
        config: The experiment, see `export_graph`.
        calibration: See `convert_graph`.
        quantizer: See `convert_graph`.
    """
    find_mode(quantization)
    exported = export_graph(model, config, for_integers=is_for_integers(quantization))
    return convert_graph(
        exported, quantization, calibration=calibration, quantizer=quantizer
    )


def convert_graph(
    exported: ExportedGraph,
    quantization: str,
    *,
    calibration: Iterable[tuple[str, Inputs]] = (),
    quantile: float = QUANTILE,
    keep_float: Iterable[str] = (),
    quantizer: str = TFLITE,
) -> ConvertedGraph:
    """Converts a traced network to TFLite.

    Inputs and outputs of the result are those of the runtime: pixels as uint8
    `[1, H, W, 3]`, normalized inside the graph, or int8 steps where the graph is of
    integers, see `finishing`; other inputs float32, and the raw heads, float32
    or, with `int8`, int8.

    Args:
        exported: Of `export_graph`, for integers where `is_for_integers` says so.
        quantization: One of `modes.MODE_NAMES`.
        calibration: Names and inputs by name, without batch, that set ranges; gone
            through once.
        quantile: Share of the calibration images whose range is covered.
        keep_float: Paths of layers that stay in float32, with all below them; for
            `int8` and `int8-mixed`.
        quantizer: One of `modes.QUANTIZERS`, for `int8` and `int8-mixed`.

    Raises:
        ConversionError: If the network needs ops that are not builtin, or the
            converter fails.
        UsageError: If `quantization` or `quantizer` is unknown.
        DataError: If there are no calibration images where they are needed, or they
            say nothing.
        MissingExtraError: If the engine is not installed.
    """
    mode = find_mode(quantization)
    if not mode.needs_calibration:
        converter = _converter(exported)
        if quantization != NONE:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantization == FP16:
            converter.target_spec.supported_types = [tf.float16]
        with quiet_native_notes():
            return _examine(_run(converter.convert, exported), quantization)
    if quantization == INT16X8:
        samples = list(calibration)
        return _to_int16(Quantizable.measure(exported, samples), samples)
    return Quantizable.measure(exported, calibration).quantize(
        quantization, quantile=quantile, keep_float=keep_float, quantizer=quantizer
    )


@dataclass(frozen=True, eq=False)
class Quantizable:
    """Is a float graph with all that was measured in it.

    Each quantization of it takes a fraction of a second, so that many can be tried.

    Attributes:
        graph: The flatbuffer, float32, with a place for a range on every tensor that
            needs one.
        measured: What the calibration images did in it.
    """

    graph: bytes
    measured: Measurement

    @classmethod
    def measure(
        cls, exported: ExportedGraph, calibration: Iterable[tuple[str, Inputs]]
    ) -> "Quantizable":
        """Converts to float32 and measures.

        Raises:
            ConversionError: If the converter fails.
            DataError: If there are no images, they do not fit, or all are of a single
                color.
        """
        converter = _converter(exported)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        # One grey image, only to learn which tensors need a range.
        grey = {
            tensor.name.split(":")[0]: np.full(
                tensor.shape, 128, tensor.dtype.as_numpy_dtype
            )
            for tensor in exported.function.inputs
            if tensor.dtype != tf.resource
        }
        converter.representative_dataset = lambda: (grey for _ in "1")
        converter._experimental_calibrate_only = True
        with quiet_native_notes():
            graph = _run(converter.convert, exported)
            measured = measure(FloatGraph(graph), calibration)
        if len(measured.plain_images) == len(measured.image_names):
            raise DataError(
                f"every calibration image is of a single color, for example "
                f"{measured.image_names[0]}; ranges need images like those the model "
                "will see"
            )
        return cls(graph, measured)

    def ranged(self, quantile: float = QUANTILE) -> tuple[FloatGraph, Calibration]:
        """Gives the float graph with its ranges set, and what set them.

        Raises:
            ConversionError: If a value is not finite.
        """
        graph = FloatGraph(self.graph)
        ranges, calibration = ranges_of(graph, self.measured, quantile)
        graph.set_ranges(ranges)
        plain = self.measured.plain_images
        return graph, replace(calibration, plain_images=plain)

    def quantize(
        self,
        quantization: str = INT8,
        *,
        quantile: float = QUANTILE,
        keep_float: Iterable[str] = (),
        quantizer: str = TFLITE,
    ) -> ConvertedGraph:
        """Quantizes to `int8` or `int8-mixed`; for the arguments see `convert_graph`.

        Raises:
            UsageError: If the mode is another, or the engine unknown.
            ConversionError: If the quantizer fails.
            MissingExtraError: If the engine is not installed.
        """
        if quantization not in (INT8, INT8_MIXED):
            raise UsageError(
                f"only int8 and int8-mixed have ranges, not {quantization}"
            )
        graph, calibration = self.ranged(quantile)
        layers = tuple(keep_float)
        kept = set(ops_of_layers(graph, layers))
        if quantization == INT8_MIXED:
            kept |= fragile_ops(graph)
        flat = quantize_ops(
            graph, kept, has_integer_heads=quantization == INT8, quantizer=quantizer
        )
        return _examine(flat, quantization, calibration, quantizer, layers)


def quantize_ops(
    graph: FloatGraph,
    kept: Collection[int],
    *,
    has_integer_heads: bool,
    quantizer: str = TFLITE,
    fill_gaps: bool = True,
) -> bytes:
    """Quantizes a float graph with ranges to int8.

    Args:
        graph: The graph.
        kept: Places of ops that stay in float32.
        has_integer_heads: Whether heads leave as int8 and not as float32.
        quantizer: One of `modes.QUANTIZERS`.
        fill_gaps: Whether ops between float ones are float too, see `mixed`.

    Returns:
        A flatbuffer that takes pixels as uint8.
    """
    if quantizer not in QUANTIZERS:
        raise UsageError(
            f"quantizer is {quantizer!r}; must be {' or '.join(QUANTIZERS)}"
        )
    part = float_part(graph, kept, fill_gaps=fill_gaps)
    if quantizer == AI_EDGE:
        content = ai_edge.quantize(graph, part, has_integer_heads=has_integer_heads)
        return edits.take_pixels(content)
    takes_only_pixels = PIXEL_INPUTS.issuperset(graph.inputs)
    content = _run(
        lambda: _quantize(
            graph.content,
            denylisted_nodes=set(part.names),
            denylisted_ops=set(part.kinds),
            input_data_type=tf.uint8 if takes_only_pixels else tf.float32,
            output_data_type=tf.int8 if has_integer_heads else tf.float32,
        )
    )
    return content if takes_only_pixels else edits.take_pixels(content)


def _quantize(graph: bytes, **options: Any) -> bytes:
    from tensorflow.lite.python.convert import mlir_quantize

    with quiet_native_notes():
        return bytes(mlir_quantize(graph, **options))


def _to_int16(
    quantizable: Quantizable, samples: list[tuple[str, Inputs]]
) -> ConvertedGraph:
    """Quantizes activations to int16 with TensorFlow's own calibrator.

    The quantizer with ranges of ours fails on constants of sums and products (TF
    2.21). With 16 bits the calibrator's weaknesses cost nothing, as long as it does
    not see the images that stand out: all else is to be covered, not cut.
    """
    from tensorflow.lite.python.optimize.calibrator import Calibrator

    graph, calibration = quantizable.ranged(quantile=1.0)
    left_out = {outlier.name for outlier in calibration.outliers}
    kept = [inputs for name, inputs in samples if name not in left_out]

    def feed() -> Any:
        for inputs in kept:
            values = inputs if isinstance(inputs, Mapping) else {keys.IMAGE: inputs}
            yield {
                name: np.asarray(values[name])[np.newaxis].astype(graph.dtype(tensor))
                for name, tensor in graph.inputs.items()
            }

    def quantize() -> bytes:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"\s*Warning: tf\.lite\.Interp")
            return bytes(
                Calibrator(quantizable.graph).calibrate_and_quantize(
                    feed,
                    tf.float32,
                    tf.float32,
                    allow_float=True,
                    activations_type=tf.int16,
                    bias_type=tf.int64,
                )
            )

    with quiet_native_notes():
        return _examine(_run(quantize), INT16X8, calibration, TFLITE)


def convert_with_quantizers(
    exported: ExportedGraph, calibration: Calibration
) -> ConvertedGraph:
    """Converts a network that says itself where and how to quantize, to `int8`.

    Args:
        exported: Of `qat.export_quantized`.
        calibration: What set the ranges of its quantizers.

    Raises:
        ConversionError: If the converter fails.
    """
    converter = _converter(exported)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = tf.uint8
    converter.inference_output_type = tf.int8
    with quiet_native_notes():
        return _examine(_run(converter.convert), INT8, calibration, TFLITE)


def _converter(exported: ExportedGraph) -> Any:
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [exported.function], exported.module
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    return converter


def _run(convert: Callable[[], bytes], exported: ExportedGraph | None = None) -> bytes:
    try:
        return bytes(convert())
    except MemoryError:
        raise
    except Exception as error:  # the converter raises whatever its parts raise
        raise ConversionError(_reason(error, exported)) from error


def _reason(error: Exception, exported: ExportedGraph | None) -> str:
    """Says why the converter failed: the op, its layer, and what to try."""
    text = str(error)
    offenders = [
        kind.strip() for kinds in _OFFENDERS.findall(text) for kind in kinds.split(",")
    ]
    if offenders:
        named = (f"{kind}{_place_of(kind, exported)}" for kind in offenders)
        return (
            f"the network needs ops that are not TFLite builtins: "
            f"{', '.join(named)}; replace the layers that make them"
        )
    place = _LOCATION.search(text)
    layer = f" (in {place[1][:200]})" if place else ""
    failed = _FAILED_OP.search(text)
    if failed:
        return (
            f"the TFLite converter failed at {failed[1]}{layer}: {failed[2][:300]}; "
            "try another --quantize (fp16 changes the least), or --format onnx"
        )
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error:" in line] or lines[-1:] or [repr(error)]
    return (
        f"the TFLite converter failed{layer}: {errors[0][:500]}; try another "
        "--quantize (fp16 changes the least), or --format onnx"
    )


def _place_of(kind: str, exported: ExportedGraph | None) -> str:
    """Names the layer that an op of a kind comes from, in brackets."""
    if exported is None:
        return ""
    operations = exported.function.graph.get_operations()
    names = [operation.name for operation in operations if operation.type == kind]
    return f" (in {layer_path(names)})" if names else ""


def _examine(
    flat: bytes,
    quantization: str,
    calibration: Calibration | None = None,
    quantizer: str | None = None,
    float_layers: tuple[str, ...] = (),
) -> ConvertedGraph:
    """Finishes a flatbuffer, reads names and ops back and checks what must hold."""
    from tensorflow.lite.python import schema_py_generated as schema

    graph, ranges = finish(flat)
    document = schema.Model.GetRootAs(graph, 0)
    network = document.Subgraphs(0)
    signature = document.SignatureDefs(0)
    inputs, outputs = (
        {
            entry.Name().decode(): network.Tensors(entry.TensorIndex())
            for entry in entries
        }
        for entries in (
            [signature.Inputs(i) for i in range(signature.InputsLength())],
            [signature.Outputs(i) for i in range(signature.OutputsLength())],
        )
    )
    for name in PIXEL_INPUTS.intersection(inputs).difference(ranges):
        _check_pixels(name, inputs[name], schema.TensorType)
    counts, floats = _count_ops(document, network, schema)
    return ConvertedGraph(
        graph=graph,
        input_names={name: t.Name().decode() for name, t in inputs.items()},
        pixel_ranges=ranges,
        output_names={name: t.Name().decode() for name, t in outputs.items()},
        op_counts=counts,
        float_ops=floats if calibration is not None else {},
        calibration=calibration,
        quantization=quantization,
        quantizer=quantizer,
        float_layers=float_layers,
    )


def _check_pixels(name: str, tensor: Any, types: Any) -> None:
    quantization = tensor.Quantization()
    scales, zero_points = [1.0], [0]
    if quantization is not None and quantization.ScaleLength():
        scales = list(quantization.ScaleAsNumpy())
        zero_points = list(quantization.ZeroPointAsNumpy())
    if tensor.Type() != types.UINT8 or scales != [1.0] or zero_points != [0]:
        raise ConversionError(
            f"the input {name} of the graph is of type {tensor.Type()} with scale "
            f"{scales} and zero point {zero_points}; expected uint8 with 1 and 0, "
            "pixels as they are"
        )


def _count_ops(
    document: Any, network: Any, schema: Any
) -> tuple[dict[str, int], dict[str, int]]:
    """Counts all ops, and those that compute in float32."""
    kinds = op_kinds(document)
    everything: collections.Counter[str] = collections.Counter()
    floats: collections.Counter[str] = collections.Counter()
    for place in range(network.OperatorsLength()):
        operator = network.Operators(place)
        kind = kinds[operator.OpcodeIndex()]
        everything[kind] += 1
        result = network.Tensors(operator.Outputs(0)).Type()
        if result == schema.TensorType.FLOAT32 and kind not in _TYPE_CHANGES:
            floats[kind] += 1
    return _by_frequency(everything), _by_frequency(floats)


def _by_frequency(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
