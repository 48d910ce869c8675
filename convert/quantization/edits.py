"""Small changes to finished flatbuffers."""

import copy
import functools
from collections.abc import Collection
from typing import Any

import numpy as np

from deeplab2_edge.convert.quantization.float_graph import PIXEL_INPUTS
from deeplab2_edge.optional import require

tf = require("tensorflow", extra="convert")


def take_pixels(graph: bytes) -> bytes:
    """Makes a quantized graph take its pictures as uint8, one step per grey level.

    Quantizers give all inputs one type, float32 or int8. A QUANTIZE op in front of
    int8 pixels takes uint8 as well; where pixels go to float32, a CAST is added.

    Args:
        graph: A flatbuffer with one signature.
    """
    from tensorflow.lite.python import schema_py_generated as schema

    model = unpack(graph)
    network = model.subgraphs[0]
    for entry in model.signatureDefs[0].inputs:
        if entry.name.decode() in PIXEL_INPUTS:
            _take_pixels(schema, model, network, int(entry.tensorIndex))
    return pack(model)


def prepare_float(graph: bytes, apart: Collection[int]) -> bytes:
    """Removes ranges, and gives some ops constants of their own.

    Args:
        graph: A flatbuffer of a float graph.
        apart: Places of ops that must not share constants with the others.
    """
    model = unpack(graph)
    network = model.subgraphs[0]
    for tensor in network.tensors:
        tensor.quantization = None
    shared = {
        int(tensor)
        for place, op in enumerate(network.operators)
        if place not in apart
        for tensor in op.inputs
        if tensor >= 0
        and model.buffers[network.tensors[tensor].buffer].data is not None
    }
    copies: dict[int, int] = {}
    for place in sorted(apart):
        op = network.operators[place]
        for tensor in {int(i) for i in op.inputs} & shared:
            if tensor not in copies:
                copies[tensor] = _copy_constant(model, network, tensor)
        op.inputs = [copies.get(int(i), int(i)) for i in op.inputs]
    return pack(model)


def expose(graph: bytes, tensors: Collection[int]) -> bytes:
    """Makes tensors outputs of a graph, so that they keep their values after a run.

    Args:
        graph: A flatbuffer.
        tensors: That ops of the graph give.
    """
    model = unpack(graph)
    network = model.subgraphs[0]
    outputs = dict.fromkeys([*(int(i) for i in network.outputs), *tensors])
    network.outputs = list(outputs)
    return pack(model)


def restore_signature(graph: bytes, original: bytes) -> bytes:
    """Lets the signature speak of the inputs and outputs that the graph has.

    A quantizer may put an op behind an output and forget to tell the signature.

    Args:
        graph: A flatbuffer made from another, its inputs and outputs in the same order.
        original: The other flatbuffer.
    """
    model, before = unpack(graph), unpack(original)
    for name in ("inputs", "outputs"):
        old = [int(i) for i in getattr(before.subgraphs[0], name)]
        new = [int(i) for i in getattr(model.subgraphs[0], name)]
        places = {
            entry.name: old.index(int(entry.tensorIndex))
            for entry in getattr(before.signatureDefs[0], name)
        }
        for entry in getattr(model.signatureDefs[0], name):
            entry.tensorIndex = new[places[entry.name]]
    return pack(model)


def _copy_constant(model: Any, network: Any, index: int) -> int:
    constant = copy.copy(network.tensors[index])
    constant.name = constant.name + b"_float"
    model.buffers.append(copy.copy(model.buffers[constant.buffer]))
    constant.buffer = len(model.buffers) - 1
    network.tensors.append(constant)
    return len(network.tensors) - 1


def _take_pixels(schema: Any, model: Any, network: Any, index: int) -> None:
    pixels = network.tensors[index]
    types, builtins = schema.TensorType, schema.BuiltinOperator
    if pixels.type == types.UINT8:
        return
    users = [op for op in network.operators if index in list(op.inputs)]
    kinds = {_kind(model, op) for op in users}
    if pixels.type == types.FLOAT32 and kinds == {builtins.QUANTIZE}:
        pixels.type, pixels.quantization = types.UINT8, _steps(schema, 0)
        return
    inner = schema.TensorT()
    inner.name = pixels.name + b"_values"
    inner.shape, inner.type = pixels.shape, pixels.type
    inner.buffer, inner.quantization = pixels.buffer, pixels.quantization
    network.tensors.append(inner)
    for op in users:
        op.inputs = [len(network.tensors) - 1 if i == index else i for i in op.inputs]
    is_float = pixels.type == types.FLOAT32
    first = schema.OperatorT()
    first.opcodeIndex = _code(schema, model, "CAST" if is_float else "QUANTIZE")
    first.inputs, first.outputs = [index], [len(network.tensors) - 1]
    if is_float:
        first.builtinOptionsType = schema.BuiltinOptions.CastOptions
        options = schema.CastOptionsT()
        options.inDataType, options.outDataType = types.UINT8, types.FLOAT32
        first.builtinOptions = options
    network.operators.insert(0, first)
    pixels.type = types.UINT8
    pixels.quantization = None if is_float else _steps(schema, 0)


def _steps(schema: Any, zero_point: int) -> Any:
    quantization = schema.QuantizationParametersT()
    quantization.scale = np.array([1.0], np.float32)
    quantization.zeroPoint = np.array([zero_point], np.int64)
    return quantization


def _kind(model: Any, op: Any) -> int:
    code = model.operatorCodes[op.opcodeIndex]
    return max(int(code.builtinCode), int(code.deprecatedBuiltinCode))


def kind_of(model: Any, op: Any) -> str:
    """Gives the name of an op, for example `CONV_2D`."""
    return _names()[_kind(model, op)]


@functools.cache
def _names() -> dict[int, str]:
    from tensorflow.lite.python import schema_py_generated as schema

    return {
        number: name
        for name, number in vars(schema.BuiltinOperator).items()
        if isinstance(number, int)
    }


def _code(schema: Any, model: Any, kind: str) -> int:
    """Returns the place of an operator code, added if it is missing."""
    number = getattr(schema.BuiltinOperator, kind)
    for place, code in enumerate(model.operatorCodes):
        if max(int(code.builtinCode), int(code.deprecatedBuiltinCode)) == number:
            return place
    code = schema.OperatorCodeT()
    code.builtinCode, code.version = number, 1
    code.deprecatedBuiltinCode = min(number, 127)
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def unpack(graph: bytes) -> Any:
    """Reads a flatbuffer; constants that lie behind it are taken in."""
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(graph, 0)
    for buffer in model.buffers:
        if buffer.offset > 1:
            end = buffer.offset + buffer.size
            buffer.data = np.frombuffer(graph[buffer.offset : end], np.uint8)
            buffer.offset = buffer.size = 0
    return model


def pack(model: Any) -> bytes:
    """Writes a flatbuffer."""
    flatbuffers = require("flatbuffers", extra="convert")
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
