"""TFLite files of a few ops, made by hand."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

_TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "float16": schema.TensorType.FLOAT16,
    "int8": schema.TensorType.INT8,
    "uint8": schema.TensorType.UINT8,
    "int16": schema.TensorType.INT16,
    "int32": schema.TensorType.INT32,
    "int64": schema.TensorType.INT64,
    "bool": schema.TensorType.BOOL,
}
ACTIVATIONS = {"none": 0, "relu": 1, "relu6": 3, "tanh": 4}


@dataclass
class TensorSpec:
    """Is a tensor: computed, or a constant where there is `data`."""

    shape: Sequence[int]
    dtype: str = "int8"
    data: NDArray[Any] | None = None
    name: str = ""
    scales: int | None = None
    is_dynamic: bool = False


@dataclass
class OpSpec:
    """Is an op on tensors, by their number; `custom` names an op of one's own."""

    name: str
    inputs: Sequence[int]
    outputs: Sequence[int]
    options: Any = None
    version: int = 1
    custom: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)


def constant(values: Any, dtype: str = "int32") -> TensorSpec:
    """Makes a constant of these values."""
    array = np.array(values, dtype)
    return TensorSpec(array.shape, dtype, array)


def weights(*shape: int, dtype: str = "int8") -> TensorSpec:
    """Makes a constant of ones."""
    return TensorSpec(shape, dtype, np.ones(shape, dtype))


def options(name: str, **values: Any) -> Any:
    """Makes the options of an op; names as in the schema, in camel case."""
    made = getattr(schema, f"{name}T")()
    for key, value in values.items():
        assert hasattr(made, key), (name, key)
        setattr(made, key, value)
    return made


def conv(*, dilation: tuple[int, int] = (1, 1), activation: str = "none") -> Any:
    """Makes options of a convolution."""
    return options(
        "Conv2DOptions",
        strideH=1,
        strideW=1,
        dilationHFactor=dilation[0],
        dilationWFactor=dilation[1],
        fusedActivationFunction=ACTIVATIONS[activation],
    )


def model(
    tensors: Sequence[TensorSpec],
    ops: Sequence[OpSpec],
    inputs: Sequence[int],
    outputs: Sequence[int],
) -> bytes:
    """Writes a file."""
    made = schema.ModelT()
    made.version = 3
    made.buffers = [schema.BufferT()]
    network = schema.SubGraphT()
    network.tensors = [_tensor(spec, made, i) for i, spec in enumerate(tensors)]
    network.operators = [_op(spec, made) for spec in ops]
    network.inputs, network.outputs = list(inputs), list(outputs)
    made.subgraphs = [network]
    builder = flatbuffers.Builder(1024)
    builder.Finish(made.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def one_op(
    name: str,
    *tensors: TensorSpec,
    options: Any = None,
    version: int = 1,
    num_outputs: int = 1,
) -> bytes:
    """Writes a file of one op on `tensors`, the last of which are its results."""
    first = len(tensors) - num_outputs
    op = OpSpec(name, range(first), range(first, len(tensors)), options, version)
    computed = [i for i in range(first) if tensors[i].data is None]
    return model(tensors, [op], computed, range(first, len(tensors)))


def changed(content: bytes, change: Callable[[Any], None]) -> bytes:
    """Changes a file through the writer of the schema."""
    made = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    change(made)
    builder = flatbuffers.Builder(1024)
    builder.Finish(made.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def make_loop(made: Any, *, body: int = 2) -> None:
    """Makes the first op of a file a loop that never ends and does nothing."""
    main = made.subgraphs[0]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.WHILE
    made.operatorCodes.append(code)
    op = main.operators[0]
    op.opcodeIndex = len(made.operatorCodes) - 1
    op.builtinOptions = options(
        "WhileOptions", condSubgraphIndex=1, bodySubgraphIndex=body
    )
    op.builtinOptionsType = schema.BuiltinOptions.WhileOptions
    for has_test in (True, False):
        graph = schema.SubGraphT()
        tensor = main.tensors[0]
        truth = schema.TensorT()
        truth.shape, truth.type = [], schema.TensorType.BOOL
        truth.buffer = len(made.buffers)
        graph.tensors = [tensor, truth]
        graph.inputs, graph.outputs = [0], [1] if has_test else [0]
        graph.operators = []
        made.subgraphs.append(graph)
    made.buffers.append(schema.BufferT())
    made.buffers[-1].data = np.ones(1, np.uint8)


def _tensor(spec: TensorSpec, made: Any, index: int) -> Any:
    tensor = schema.TensorT()
    tensor.shape = list(spec.shape)
    if spec.is_dynamic:
        tensor.shapeSignature = [-1, *list(spec.shape)[1:]]
    tensor.type = _TYPES[spec.dtype]
    tensor.name = (spec.name or f"tensor{index}").encode()
    scales = spec.scales
    if scales is None:
        scales = int(spec.dtype in ("int8", "uint8", "int16"))
    if scales:
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale = [0.1] * scales
        tensor.quantization.zeroPoint = [0] * scales
        tensor.quantization.quantizedDimension = 0
    tensor.buffer = 0
    if spec.data is not None:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(spec.data.tobytes(), np.uint8)
        made.buffers.append(buffer)
        tensor.buffer = len(made.buffers) - 1
    return tensor


def _op(spec: OpSpec, made: Any) -> Any:
    code = schema.OperatorCodeT()
    number = schema.BuiltinOperator.CUSTOM
    if spec.custom:
        code.customCode = spec.custom.encode()
    else:
        number = getattr(schema.BuiltinOperator, spec.name)
    code.builtinCode, code.deprecatedBuiltinCode = number, min(number, 127)
    code.version = spec.version
    made.operatorCodes = [*(made.operatorCodes or []), code]
    op = schema.OperatorT()
    op.opcodeIndex = len(made.operatorCodes) - 1
    op.inputs, op.outputs = list(spec.inputs), list(spec.outputs)
    if spec.options is not None:
        kind = type(spec.options).__name__.removesuffix("T")
        op.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
        op.builtinOptions = spec.options
    return op
