"""int8 ONNX models in QDQ form.

Float ops stand between pairs of QuantizeLinear and DequantizeLinear, which runtimes
fuse into integer kernels. Ranges come from `calibration.choose_ranges`, and the float
part of `int8-mixed` from `mixed`: the same rules as for TFLite. The calibrators of ONNX
Runtime, which take extremes over all images, are not used.
"""

import contextlib
import dataclasses
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.convert.onnx.passes import (
    Graph,
    infer_shapes,
    infer_types,
    name_after_layers,
    order_by_outputs,
    remove_unused,
    walk_back,
)
from deeplab2_edge.convert.quantization.calibration import (
    QUANTILE,
    Calibration,
    Inputs,
    Measurement,
    choose_ranges,
    fit_inputs,
    is_plain,
)
from deeplab2_edge.convert.quantization.float_graph import FloatGraph, Op
from deeplab2_edge.convert.quantization.mixed import (
    float_part,
    fragile_ops,
    ops_of_layers,
)
from deeplab2_edge.errors import ConversionError, DataError
from deeplab2_edge.optional import require

onnx: Any = require("onnx", extra="onnx")

# Ops with integer kernels in ONNX Runtime, on x86 and ARM (1.31).
QUANTIZED_OPS = (
    "Add",
    "AveragePool",
    "Clip",
    "Concat",
    "Conv",
    "Gemm",
    "GlobalAveragePool",
    "HardSwish",
    "MatMul",
    "MaxPool",
    "Mul",
    "Relu",
    "Reshape",
    "Resize",
    "Sigmoid",
    "Slice",
    "Softmax",
    "Split",
    "Squeeze",
    "Sub",
    "Transpose",
    "Unsqueeze",
)
# What the rules of `mixed` call these ops.
_KINDS = {
    "Conv": "CONV_2D",
    "Gemm": "FULLY_CONNECTED",
    "MatMul": "BATCH_MATMUL",
    "Softmax": "SOFTMAX",
    "Sub": "SUB",
    # These make up a division by the length of a vector.
    "Reciprocal": "L2_NORMALIZATION",
    "ReduceSum": "L2_NORMALIZATION",
    "Sqrt": "L2_NORMALIZATION",
}
# What moves values without changing them.
_MOVES = frozenset({"Transpose", "Reshape", "Identity"})
_WEIGHTED = frozenset({"Conv", "Gemm", "MatMul"})
_JOINS = frozenset({"Add", "Concat"})
_UNIT_OPS = frozenset({"Sigmoid", "HardSigmoid", "Softmax"})
_UNIT_RANGE = (0.0, 1.0)
# Heads whose values must not be cut: a cut offset sends a pixel elsewhere.
_UNCUT_HEADS = (
    keys.OFFSET_MAP,
    keys.FRAME_OFFSET_MAP,
    keys.NEXT_OFFSET_MAP,
    keys.DEPTH_PRED,
)
# x / 127.5 - 1 puts zero between two bytes. Half a step lower it falls on 128, so the
# bytes of an image are its quantized values; the bias takes the half step back.
_PIXEL_SCALE = 1 / 127.5
_PIXEL_ZERO = 128


@dataclass(frozen=True, eq=False)
class OnnxQuantizable:
    """Is a float model with all that was measured in it; many quantizations of it
    can be tried.

    Attributes:
        model: Of `onnx.float_model`.
        tensors: Names of the float tensors that were measured.
        measured: What the calibration images did in them.
    """

    model: Any
    tensors: tuple[str, ...]
    measured: Measurement

    @classmethod
    def measure(
        cls, model: Any, calibration: Iterable[tuple[str, Inputs]]
    ) -> "OnnxQuantizable":
        """Runs the calibration images through a float model.

        Raises:
            DataError: If there are no images, they do not fit, or all are of a single
                color.
        """
        tensors = tuple(_float_tensors(model))
        measured = _measure(model, tensors, calibration)
        if len(measured.plain_images) == len(measured.image_names):
            raise DataError(
                f"every calibration image is of a single color, for example "
                f"{measured.image_names[0]}; ranges need images like those the model "
                "will see"
            )
        return cls(model, tensors, measured)

    def ranges(
        self, quantile: float = QUANTILE
    ) -> tuple[dict[str, NDArray[np.float64]], Calibration]:
        """Chooses the range of every tensor, and says what set them.

        Raises:
            ConversionError: If a value is not finite.
        """
        graph = Graph(self.model)
        place = {name: place for place, name in enumerate(self.tensors)}
        layers = {t: node.name for node in graph.nodes for t in node.output}
        chosen, summary = choose_ranges(
            self.measured.image_names,
            self.measured.extremes,
            [layers.get(t, t) for t in self.tensors],
            judged=_judged(graph, place),
            exceptions=_exceptions(graph, place),
            quantile=quantile,
        )
        ranges = dict(zip(self.tensors, chosen, strict=True))
        for name in self.tensors:  # what a frame gives is what the next frame takes
            if name.startswith(keys.PREVIOUS_FEATURES):
                given = keys.FEATURES + name.removeprefix(keys.PREVIOUS_FEATURES)
                ranges[name] = ranges[given]
        plain = self.measured.plain_images
        return ranges, dataclasses.replace(summary, plain_images=plain)

    def quantize(
        self,
        *,
        is_mixed: bool = False,
        quantile: float = QUANTILE,
        keep_float: Iterable[str] = (),
    ) -> tuple[Any, Calibration]:
        """Makes a model with uint8 activations and int8 weights, one scale for each
        output channel.

        Heads leave it as float32, dequantized. The center heatmap is bounded to 0..1
        by its range.

        Args:
            is_mixed: Whether the rules of `mixed` keep parts in float32.
            quantile: Share of the calibration images whose range is covered.
            keep_float: Paths of layers that stay in float32, with all below them.

        Raises:
            ConversionError: If the quantizer fails.
        """
        ranges, summary = self.ranges(quantile)
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        graph = Graph(model)
        pixels = _pixel_tensors(graph)
        left = _float_nodes(graph, is_mixed=is_mixed, layers=keep_float)
        left |= {node.name for node in _before_layers(graph)}
        pixels = {
            name: source
            for name, source in pixels.items()
            if all(node.name not in left for node in graph.takers()[name])
        }
        _center_pixels(graph, pixels)
        for name in pixels:
            ranges[name] = _PIXEL_SCALE * (np.array([0.0, 255.0]) - _PIXEL_ZERO)
        quantized = Graph(_insert_pairs(model, ranges, sorted(left)))
        order_by_outputs(quantized)
        _take_bytes(quantized, pixels)
        name_after_layers(quantized)
        return quantized.model, summary


def _measure(
    model: Any, tensors: Sequence[str], samples: Iterable[tuple[str, Inputs]]
) -> Measurement:
    """Runs samples and keeps the extremes of tensors."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    for place, tensor in enumerate(tensors):
        for op in ("ReduceMin", "ReduceMax"):
            name = f"{op}/{place}"
            probe.graph.node.append(
                onnx.helper.make_node(op, [tensor], [name], name, keepdims=0)
            )
            probe.graph.output.append(
                onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [])
            )
    ort = require("onnxruntime", extra="onnx")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        probe.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    shapes = {
        tensor.name: {
            "shape": tensor.shape,
            "dtype": np.uint8 if tensor.type == "tensor(uint8)" else np.float32,
        }
        for tensor in session.get_inputs()
    }
    names, plain, rows = [], [], []
    for name, sample in samples:
        values = fit_inputs(name, sample, shapes)
        names.append(name)
        if is_plain(values):
            plain.append(name)
        found = session.run(None, values)
        rows.append(np.asarray(found, np.float32).reshape(-1, 2))
    if not rows:
        raise DataError("there are no images to calibrate with")
    return Measurement(tuple(names), np.stack(rows), tuple(plain))


class _Ops:
    """Shows an ONNX graph to the rules of `mixed`, which know `FloatGraph`."""

    def __init__(self, graph: Graph) -> None:
        constants = graph.constants()
        numbers: dict[str, int] = {}

        def number(name: str) -> int:
            return numbers.setdefault(name, len(numbers))

        self.ops = tuple(
            Op(
                kind=_KINDS.get(node.op_type, node.op_type),
                name=node.name,
                inputs=tuple(number(n) for n in node.input if n and n not in constants),
                constants=tuple(number(n) for n in node.input if n in constants),
                outputs=tuple(number(n) for n in node.output),
                layer=node.name.rpartition("/")[0],
            )
            for node in graph.nodes
        )
        self.heads = {name: number(name) for name in graph.output_names()}
        self.producers = {t: i for i, op in enumerate(self.ops) for t in op.outputs}
        self.consumers: dict[int, tuple[int, ...]] = {}
        for index, op in enumerate(self.ops):
            for tensor in dict.fromkeys(op.inputs):
                self.consumers[tensor] = (*self.consumers.get(tensor, ()), index)


def _float_nodes(graph: Graph, *, is_mixed: bool, layers: Iterable[str]) -> set[str]:
    """Returns the names of nodes that stay in float32."""
    view = _Ops(graph)
    ops = cast(FloatGraph, view)
    kept = set(ops_of_layers(ops, layers))
    if is_mixed:
        kept |= fragile_ops(ops)
    names = {view.ops[place].name for place in float_part(ops, kept).ops}
    # Tables of positions in attention: QLinearMatMul (ONNX Runtime 1.31) refuses the
    # scales per channel of a stack of matrices.
    constants = graph.constants()
    names |= {
        node.name
        for node in graph.nodes
        if node.op_type == "MatMul"
        and any(n in constants and len(constants[n].dims) > 2 for n in node.input)
    }
    return names


def _float_tensors(model: Any) -> list[str]:
    """Returns what the nodes make of floats, in the order of the graph."""
    types = infer_types(model)
    inputs = [info.name for info in model.graph.input]
    made = [name for node in model.graph.node for name in node.output if name]
    return [n for n in [*inputs, *made] if types[n] == onnx.TensorProto.FLOAT]


def _judged(graph: Graph, position: Mapping[str, int]) -> list[int]:
    """Returns heads and places where branches meet: what goes wrong arrives there."""
    constants = graph.constants()
    joins = [
        node.output[0]
        for node in graph.nodes
        if node.op_type in _JOINS
        and sum(name not in constants for name in node.input) > 1
    ]
    return [position[name] for name in [*graph.output_names(), *joins]]


def _exceptions(
    graph: Graph, position: Mapping[str, int]
) -> dict[int, tuple[float, float] | None]:
    """Returns the ranges that do not follow the rule, see `choose_ranges`."""
    found: dict[int, tuple[float, float] | None] = {}
    for node in graph.nodes:
        if node.op_type in _UNIT_OPS:
            found[position[node.output[0]]] = _UNIT_RANGE
    for head in graph.output_names():
        if head != keys.CENTER_HEATMAP and head not in _UNCUT_HEADS:
            continue
        rule = _UNIT_RANGE if head == keys.CENTER_HEATMAP else None
        for node in walk_back(graph, head, _MOVES):
            found[position[node.output[0]]] = rule
    if keys.PREVIOUS_HEATMAP in position:
        found[position[keys.PREVIOUS_HEATMAP]] = _UNIT_RANGE
    return found


def _pixel_tensors(graph: Graph) -> dict[str, str]:
    """Finds normalized images: the tensors that convolutions take, and their bytes.

    Only images that nothing but convolutions take.
    """
    bytes_of_image = {
        info.name
        for info in graph.model.graph.input
        if info.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    }
    makers, takers = graph.makers(), graph.takers()
    found = {}
    for node in graph.nodes:
        if node.op_type != "Cast":
            continue
        source = node.input[0]
        origin = makers[source].input[0] if source in makers else source
        multiply = _only(takers.get(node.output[0], []), "Mul")
        add = multiply and _only(takers.get(multiply.output[0], []), "Add")
        if not add or origin not in bytes_of_image:
            continue
        factor, shift = _constant_of(graph, multiply), _constant_of(graph, add)
        users = takers.get(add.output[0], [])
        is_plain = (
            factor is not None
            and shift is not None
            and math.isclose(factor, _PIXEL_SCALE, rel_tol=1e-6)
            and math.isclose(shift, -1.0)
        )
        if is_plain and users and all(_has_kernel(graph, user) for user in users):
            found[add.output[0]] = source
    return found


def _has_kernel(graph: Graph, node: Any) -> bool:
    return node.op_type == "Conv" and node.input[1] in graph.constants()


def _center_pixels(graph: Graph, pixels: Mapping[str, str]) -> None:
    """Moves normalized images half a step down, and the biases behind them back."""
    half_step = _PIXEL_SCALE / 2
    for name in pixels:
        for number, node in enumerate(graph.takers()[name]):
            kernel = graph.value(node.input[1])
            assert kernel is not None
            shift = half_step * kernel.astype(np.float64).sum(axis=(1, 2, 3))
            bias = graph.value(node.input[2]) if len(node.input) > 2 else 0.0
            moved = graph.set_constant(
                f"{name}/bias{number}", (bias + shift).astype(np.float32)
            )
            if len(node.input) > 2:
                node.input[2] = moved
            else:
                node.input.append(moved)


def _before_layers(graph: Graph) -> list[Any]:
    """Returns the nodes that prepare inputs, before any layer with weights.

    There, images of 0 to 255 and heatmaps of 0 to 1 share tensors.
    """
    learned: set[str] = set()
    found = []
    for node in graph.nodes:
        if node.op_type in _WEIGHTED or not learned.isdisjoint(node.input):
            learned.update(node.output)
        else:
            found.append(node)
    return found


def _take_bytes(graph: Graph, pixels: Mapping[str, str]) -> None:
    """Lets the bytes of images be their quantized values; normalization is gone."""
    for name, source in pixels.items():
        (pair,) = [n for n in graph.takers()[name] if n.op_type == "QuantizeLinear"]
        scale, zero = (graph.value(n) for n in pair.input[1:3])
        assert scale is not None and zero is not None
        if not math.isclose(float(scale), _PIXEL_SCALE, rel_tol=1e-6) or zero != 128:
            raise ConversionError(
                f"pixels have scale {scale} and zero point {zero}; expected "
                f"{_PIXEL_SCALE} and {_PIXEL_ZERO}"
            )
        graph.redirect(pair.output[0], source)
    remove_unused(graph)


def _insert_pairs(
    model: Any, ranges: Mapping[str, NDArray[np.float64]], left: Sequence[str]
) -> Any:
    require("onnxruntime", extra="onnx")
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    data = {
        name: (np.float32(low), np.float32(high))
        for name, (low, high) in ranges.items()
    }
    _note_shapes(model)
    with _quiet_logging():
        try:
            quantizer = QDQQuantizer(
                model,
                per_channel=True,
                reduce_range=False,
                weight_qType=QuantType.QInt8,
                activation_qType=QuantType.QUInt8,
                tensors_range=TensorsData(CalibrationMethod.MinMax, data),
                nodes_to_quantize=[],
                nodes_to_exclude=list(left),
                op_types_to_quantize=list(QUANTIZED_OPS),
                extra_options={},
            )
            quantizer.quantize_model()
        except Exception as error:  # the quantizer raises whatever its parts raise
            raise ConversionError(
                f"the ONNX quantizer failed: {' '.join(str(error).split())[:500]}"
            ) from error
    model = quantizer.model.model
    del model.graph.value_info[:]
    return model


def _note_shapes(model: Any) -> None:
    """Writes shapes of all tensors into the model, which the quantizer looks at."""
    shapes, types = infer_shapes(model), infer_types(model)
    del model.graph.value_info[:]
    for node in model.graph.node:
        for name in node.output:
            model.graph.value_info.append(
                onnx.helper.make_tensor_value_info(name, types[name], shapes[name])
            )


def _only(nodes: Sequence[Any], op: str) -> Any:
    return nodes[0] if len(nodes) == 1 and nodes[0].op_type == op else None


def _constant_of(graph: Graph, node: Any) -> float | None:
    for name in node.input:
        value = graph.value(name)
        if value is not None and value.size == 1:
            return float(value.reshape(()))
    return None


@contextlib.contextmanager
def _quiet_logging() -> Iterator[None]:
    """Keeps the quantizer's advice, which it logs to the root logger, to itself."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        root.setLevel(level)
