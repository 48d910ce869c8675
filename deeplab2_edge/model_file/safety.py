"""Judges the graph of a model file before a runtime sees it."""

from collections.abc import Collection, Mapping

from deeplab2_edge.errors import ModelFileError
from deeplab2_edge.model_file.container import TFLITE, ModelFile
from deeplab2_edge.model_file.metadata import GRAPH, InputSpec, OutputSpec
from deeplab2_edge.onnx_file import OnnxSummary, summarize
from deeplab2_edge.tflite_file.checking import Port, check_content

# What `deeplab2-edge convert --format onnx` writes, over all families and modes.
ONNX_OPS = frozenset(
    """
    Abs Add And ArgMax AveragePool BatchNormalization Cast Clip Concat ConstantOfShape
    Conv DequantizeLinear Div Equal Exp Expand Flatten Floor Gather Gemm
    GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual HardSigmoid HardSwish
    Identity Less LessOrEqual Loop MatMul Max MaxPool Min Mod Mul Neg Not Or Pad
    QuantizeLinear Reciprocal ReduceMax ReduceMean ReduceMin ReduceSum Relu Reshape
    Resize ScatterElements Shape Sigmoid Slice Softmax Split Sqrt Squeeze Sub TopK
    Transpose Unsqueeze Where
    """.split()
)


def check_graph(model: ModelFile) -> None:
    """Refuses a graph that a runtime should not be given.

    `read_model_file` has compared digests: a file that was damaged by chance never
    comes here. This is for files that somebody made: of a TFLite graph every offset,
    index, size, shape and type must be right, and every op one that `deeplab2-edge
    convert` writes. An ONNX graph must hold all it needs and have ops of that kind
    alone; ONNX Runtime checks shapes and types by itself.

    All engines call it. What is refused for its ops or its size can be allowed where
    it is read, see `read_model_file`.

    Args:
        model: A file that was read.

    Raises:
        ModelFileError: If something is wrong. The message names the file.

    Example:
        >>> check_graph(read_model_file("model.tflite"))  # doctest: +SKIP
    """
    try:
        if model.format == TFLITE:
            _check_tflite(model)
        else:
            _check_onnx(summarize(model.graph), model.allow_ops)
    except ModelFileError as error:
        raise ModelFileError(f"{model.label}: {error}") from None


def _check_tflite(model: ModelFile) -> None:
    metadata = model.metadata
    ports = check_content(
        model.graph,
        allow_ops=model.allow_ops,
        allow_loops=metadata.merge_place == GRAPH,
        limits=model.limits,
    )
    if len(ports.inputs) != len(metadata.inputs):
        raise ModelFileError(
            f"the graph takes {len(ports.inputs)} tensors, its metadata describes "
            f"{len(metadata.inputs)}; convert it again"
        )
    _check_ports(ports.inputs, metadata.inputs, "inputs")
    _check_ports(ports.outputs, metadata.outputs, "outputs")


def _check_ports(
    ports: tuple[Port, ...],
    specs: Mapping[str, InputSpec] | Mapping[str, OutputSpec],
    field: str,
) -> None:
    by_name = {port.name: port for port in ports}
    if len(by_name) != len(ports):
        raise ModelFileError(f"damaged: two {field} of the graph have one name")
    for name, spec in specs.items():
        port = by_name.get(spec.name)
        if port is None:
            raise ModelFileError(
                f"{field}.{name} is {spec.name!r}, but the graph has "
                f"{sorted(by_name)}; convert it again"
            )
        dtype = spec.dtype if isinstance(spec, InputSpec) else port.dtype
        if port.shape != (1, *spec.shape) or port.dtype != dtype:
            raise ModelFileError(
                f"{field}.{name} is {port.dtype} {list(port.shape)}; its metadata says "
                f"{dtype} {[1, *spec.shape]}; convert it again"
            )


def _check_onnx(summary: OnnxSummary, allow_ops: Collection[str]) -> None:
    summary.check_self_contained()
    unknown = sorted(set(summary.op_counts) - ONNX_OPS - set(allow_ops))
    if unknown:
        raise ModelFileError(
            f"op {unknown[0]} is none that deeplab2-edge writes; if you trust the "
            f"file, allow it: read_model_file(path, allow_ops={unknown!r})"
        )
