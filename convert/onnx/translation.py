"""From a traced network to an ONNX model made of standard ops only.

tf2onnx does the translation; `passes` makes its graph one that loads and
quantizes well, and that comes out the same to the byte in every run.
"""

import collections
import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from deeplab2_edge.convert import modes
from deeplab2_edge.convert.export import ExportedGraph
from deeplab2_edge.convert.modes import check_mode
from deeplab2_edge.convert.onnx.packing import pack_as_half, pack_as_int8
from deeplab2_edge.convert.onnx.passes import infer_shapes, tidy
from deeplab2_edge.convert.onnx.quantization import OnnxQuantizable
from deeplab2_edge.convert.quantization.calibration import (
    QUANTILE,
    QUANTILES,
    Calibration,
    Inputs,
)
from deeplab2_edge.convert.quantization.ladder import Attempt, Rung
from deeplab2_edge.convert.quiet import quiet_native_notes
from deeplab2_edge.convert.tflite import ConvertedGraph
from deeplab2_edge.errors import ConversionError
from deeplab2_edge.optional import require
from deeplab2_edge.version import __version__

onnx: Any = require("onnx", extra="onnx")

# 17 is the first with all ops the networks need, and what most runtimes take.
OPSET = 17
# Of the file format; the one of opset 17, so that old runtimes take it.
IR_VERSION = 8
MAX_RANK = 4
PRODUCER = "deeplab2-edge"

_LOGGERS = ("tf2onnx", "tensorflow")


def convert_to_onnx(
    exported: ExportedGraph,
    quantization: str,
    *,
    calibration: Iterable[tuple[str, Inputs]] = (),
    quantile: float = QUANTILE,
    keep_float: Iterable[str] = (),
) -> ConvertedGraph:
    """Converts a traced network to ONNX.

    Args:
        exported: Of `export_graph`, not for integers: pixels come as uint8 in every
            mode, and the center heatmap needs no bound, its range is one.
        quantization: `none` (float32), `fp16` (weights), `dynamic` (int8 weights),
            `int8` (weights per channel, activations), `int8-mixed`.
        calibration: Names and inputs by name, without batch, that set ranges; gone
            through once.
        quantile: Share of the calibration images whose range is covered.
        keep_float: Paths of layers that stay in float32, with all below them; for
            `int8` and `int8-mixed`.

    Returns:
        The model. Its tensors are called as the inputs and heads are.

    Raises:
        UsageError: If ONNX has no such mode; the message gives the nearest it has.
        DataError: If there are no calibration images where they are needed, or they
            say nothing.
        ConversionError: If the network cannot be expressed in standard ONNX.
        MissingExtraError: If tf2onnx or ONNX Runtime is not installed.
    """
    mode = check_mode(quantization, modes.ONNX)
    model = float_model(exported)
    if mode.needs_calibration:
        measured = OnnxQuantizable.measure(model, calibration)
        return quantize(
            measured, quantization, quantile=quantile, keep_float=keep_float
        )
    if quantization == modes.FP16:
        pack_as_half(model)
    elif quantization == modes.DYNAMIC:
        pack_as_int8(model)
    return _finish(model, quantization)


def quantize(
    measured: OnnxQuantizable,
    quantization: str,
    *,
    quantile: float = QUANTILE,
    keep_float: Iterable[str] = (),
) -> ConvertedGraph:
    """Quantizes a measured model to `int8` or `int8-mixed`; see `convert_to_onnx`."""
    layers = tuple(keep_float)
    model, summary = measured.quantize(
        is_mixed=quantization == modes.INT8_MIXED,
        quantile=quantile,
        keep_float=layers,
    )
    return _finish(model, quantization, summary, layers)


def rungs(
    measured: OnnxQuantizable,
    quantization: str,
    measure: Callable[[str, ConvertedGraph], Attempt],
    *,
    quantile: float = QUANTILE,
) -> Iterator[Rung]:
    """Gives ways to quantize a measured model, the fastest first, see `ladder`.

    Args:
        measured: The model.
        quantization: The mode to begin with, `int8` or `int8-mixed`.
        measure: Says of a name and a graph what it is worth.
        quantile: The one to begin with.
    """

    def rung(name: str, mode: str, share: float) -> Rung:
        return Rung(
            name, lambda: measure(name, quantize(measured, mode, quantile=share))
        )

    yield rung(quantization, quantization, quantile)
    for share in sorted(QUANTILES, key=lambda share: abs(share - quantile)):
        if share != quantile:
            yield rung(f"{quantization}, quantile {share:g}", quantization, share)
    if quantization != modes.INT8_MIXED:
        yield rung(modes.INT8_MIXED, modes.INT8_MIXED, quantile)


def _finish(
    model: Any,
    quantization: str,
    summary: Calibration | None = None,
    layers: tuple[str, ...] = (),
) -> ConvertedGraph:
    _sign(model)
    check_model(model)
    return ConvertedGraph(
        graph=model.SerializeToString(deterministic=True),
        input_names={info.name: info.name for info in model.graph.input},
        output_names={info.name: info.name for info in model.graph.output},
        op_counts=count_ops(model),
        calibration=summary,
        quantization=quantization,
        float_layers=layers,
    )


def float_model(exported: ExportedGraph) -> Any:
    """Translates a traced network.

    Inputs and outputs are called by the names in `keys`, and are as the network has
    them: channels last.

    Args:
        exported: Of `export_graph`, not for integers.

    Returns:
        The model, `onnx.ModelProto`.

    Raises:
        ConversionError: If an op cannot be expressed in standard ONNX; the message
            names op and layer.
        MissingExtraError: If tf2onnx is not installed.
    """
    function = exported.function
    inputs, outputs = _tensor_names(function)
    with quiet_native_notes(), _collected_errors() as errors:
        try:
            model = _translate(function, list(inputs), list(outputs))
        except MemoryError:
            raise
        except Exception as error:  # tf2onnx raises whatever its parts raise
            reason = errors[0] if errors else " ".join(str(error).split())
            raise ConversionError(
                f"the translation to ONNX failed: {reason[:500]}"
            ) from error
    _check_ops(model)
    tidy(model, tensor_names={**inputs, **outputs})
    _sign(model)
    check_model(model)
    return model


def _sign(model: Any) -> None:
    """Writes what every file says of itself, and nothing of where it was made."""
    del model.opset_import[:], model.metadata_props[:]
    model.opset_import.append(onnx.helper.make_opsetid("", OPSET))
    model.ir_version = IR_VERSION
    model.producer_name = PRODUCER
    model.producer_version = __version__
    model.graph.name = "network"
    model.domain = model.doc_string = model.graph.doc_string = ""
    for node in model.graph.node:
        node.doc_string = ""


def check_model(model: Any) -> None:
    """Checks what every file must hold: valid, static, rank 4 at most.

    Raises:
        ConversionError: If it does not.
    """
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        reason = " ".join(str(error).split())[:300]
        raise ConversionError(f"the ONNX graph is not valid: {reason}") from None
    shapes = infer_shapes(model)
    for node in model.graph.node:
        for name in node.output:
            if name and len(shapes[name]) > MAX_RANK:
                raise ConversionError(
                    f"{node.op_type} of layer {node.name!r} gives a tensor with "
                    f"{len(shapes[name])} axes; devices take at most {MAX_RANK}"
                )


def count_ops(model: Any) -> dict[str, int]:
    """Counts nodes by op, most frequent first."""
    counts = collections.Counter(node.op_type for node in model.graph.node)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _tensor_names(function: Any) -> tuple[dict[str, str], dict[str, str]]:
    """Maps tensors of the traced function to the names of inputs and outputs."""
    count = len(function.inputs) - len(function.captured_inputs)
    inputs = {tensor.name: tensor.op.name for tensor in function.inputs[:count]}
    # A dictionary is flattened in the order of its sorted keys.
    names = sorted(function.structured_outputs)
    outputs = {
        tensor.name: name for name, tensor in zip(names, function.outputs, strict=True)
    }
    return inputs, outputs


def _translate(function: Any, inputs: list[str], outputs: list[str]) -> Any:
    tf = require("tensorflow", extra="convert")
    require("tf2onnx", extra="onnx")
    from tf2onnx import optimizer, tf_loader
    from tf2onnx.tfonnx import process_tf_graph

    with tf.device("/cpu:0"):
        frozen = tf_loader.from_function(function, inputs, outputs)
        with tf.Graph().as_default() as network:
            tf.import_graph_def(frozen, name="")
            graph = process_tf_graph(
                network, opset=OPSET, input_names=inputs, output_names=outputs
            )
    chosen = dict(optimizer._get_optimizers())
    del chosen["merge_duplication"]  # see onnx_passes.merge_equal_nodes
    graph = optimizer.optimize_graph(graph, catch_errors=False, optimizers=chosen)
    return graph.make_model("network")


def _check_ops(model: Any) -> None:
    """Refuses ops that ONNX does not have, with the layers they came from."""
    for node in model.graph.node:
        is_standard = node.domain in ("", "ai.onnx") and onnx.defs.has(node.op_type)
        if not is_standard:
            raise ConversionError(
                f"op {node.op_type} of layer {node.name!r} is not in standard ONNX; "
                "replace the layer that makes it"
            )


@contextlib.contextmanager
def _collected_errors() -> Iterator[list[str]]:
    """Collects the errors that tools log, and lets nothing of their logs through."""
    found: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.ERROR:
                found.append(" ".join(record.getMessage().split()))

    with contextlib.ExitStack() as stack:
        for name in _LOGGERS:
            logger = logging.getLogger(name)
            collector = Collector()
            state = logger.propagate, list(logger.handlers)
            logger.propagate = False
            logger.handlers = [collector]
            stack.callback(_restore_logger, logger, *state)
        yield found


def _restore_logger(
    logger: logging.Logger, propagate: bool, handlers: list[logging.Handler]
) -> None:
    logger.propagate = propagate
    logger.handlers = handlers
