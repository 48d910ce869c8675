"""Appends to a finished model file's graph what follows the network."""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from deeplab2_edge.errors import ConversionError
from deeplab2_edge.optional import require
from deeplab2_edge.panoptic import MergeSettings
from deeplab2_edge.runtime.custom_op import (
    OP_INPUTS,
    OP_NAME,
    OP_OUTPUTS,
    pack_options,
)

# Of the parts that a tail brings: names in a file tell where they come from.
_PREFIX = "tail/"


def join_tflite(network: bytes, tail: bytes, heads: Mapping[str, str]) -> bytes:
    """Appends a tail to a network, and gives its outputs in place of the heads it read.

    Heads of integers are dequantized first, as the host does.

    Args:
        network: Flatbuffer with one signature.
        tail: Flatbuffer with one signature, whose inputs are float32 heads.
        heads: Tensor name of each head of the network, by name.

    Returns:
        The flatbuffer. Its outputs are those of the network that the tail does not
        read, then those of the tail, whose tensors have their names.

    Raises:
        ConversionError: If the two do not fit.
    """
    from tensorflow.lite.python import schema_py_generated as schema

    model, added = (_unpack(schema, graph) for graph in (network, tail))
    main, follow = model.subgraphs[0], added.subgraphs[0]
    signature = model.signatureDefs[0]
    tail_signature = added.signatureDefs[0]
    index_of = {tensor.name.decode(): i for i, tensor in enumerate(main.tensors)}

    moved = _Moved(model, added, schema)
    place: dict[int, int] = {}
    dequantize = []
    for entry in tail_signature.inputs:
        name = entry.name.decode()
        head = index_of[heads[name]]
        expected = follow.tensors[entry.tensorIndex]
        found = main.tensors[head]
        is_shape, wanted = ([int(n) for n in t.shape] for t in (found, expected))
        if is_shape != wanted:
            raise ConversionError(
                f"head {name} is {is_shape}; what follows the network reads {wanted}"
            )
        if found.type == schema.TensorType.FLOAT32:
            place[entry.tensorIndex] = head
        else:
            dequantize.append((head, entry.tensorIndex))
    for index, tensor in enumerate(follow.tensors):
        if index not in place:
            place[index] = len(main.tensors)
            main.tensors.append(moved.tensor(tensor))
    read = {index_of[heads[e.name.decode()]] for e in tail_signature.inputs}
    for head, index in dequantize:
        main.operators.append(moved.dequantize(head, place[index]))
    for operator in follow.operators:
        main.operators.append(moved.operator(operator, place))
    for graph in added.subgraphs[1:]:
        unmoved = {i: i for i in range(len(graph.tensors))}
        graph.tensors = [moved.tensor(tensor) for tensor in graph.tensors]
        graph.operators = [moved.operator(o, unmoved) for o in graph.operators]
        model.subgraphs.append(graph)

    kept = [entry for entry in signature.outputs if entry.tensorIndex not in read]
    for entry in tail_signature.outputs:
        given = copy.copy(entry)
        given.tensorIndex = place[entry.tensorIndex]
        main.tensors[given.tensorIndex].name = entry.name
        kept.append(given)
    signature.outputs = kept
    main.outputs = np.array([entry.tensorIndex for entry in kept], np.int32)
    return _pack(model)


def append_custom_op(
    network: bytes,
    heads: Mapping[str, str],
    *,
    canvas: tuple[int, int],
    settings: MergeSettings,
) -> bytes:
    """Appends the custom op that merges; its maps are outputs beside the heads.

    Args:
        network: Flatbuffer with one signature.
        heads: Tensor name of each head of the network, by name.
        canvas: (H, W) of the network input.
        settings: How to merge.
    """
    from tensorflow.lite.python import schema_py_generated as schema

    model = _unpack(schema, network)
    main, signature = model.subgraphs[0], model.signatureDefs[0]
    index_of = {tensor.name.decode(): i for i, tensor in enumerate(main.tensors)}
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = OP_NAME
    code.version = 1
    model.operatorCodes.append(code)
    count = settings.keep_k_centers
    shapes = [[1, *canvas]] * 4 + [[1, count, 2], [1, count]]
    operator = schema.OperatorT()
    operator.opcodeIndex = len(model.operatorCodes) - 1
    operator.inputs = np.array([index_of[heads[n]] for n in OP_INPUTS], np.int32)
    first = len(main.tensors)
    operator.outputs = np.arange(first, first + len(OP_OUTPUTS), dtype=np.int32)
    operator.customOptions = np.frombuffer(pack_options(settings), np.uint8)
    main.operators.append(operator)
    for name, shape in zip(OP_OUTPUTS, shapes, strict=True):
        tensor = schema.TensorT()
        tensor.name = name.encode()
        tensor.shape = np.array(shape, np.int32)
        is_score = "score" in name
        tensor.type = schema.TensorType.FLOAT32 if is_score else schema.TensorType.INT32
        tensor.hasRank = True
        given = schema.TensorMapT()
        given.name, given.tensorIndex = name.encode(), len(main.tensors)
        main.tensors.append(tensor)
        signature.outputs.append(given)
    main.outputs = np.concatenate([main.outputs, operator.outputs]).astype(np.int32)
    return _pack(model)


def join_onnx(network: Any, tail: Any) -> Any:
    """Appends a tail to a network, and gives its outputs in place of the heads it read.

    Args:
        network: `onnx.ModelProto` with heads by name.
        tail: `onnx.ModelProto` of the same opset, whose inputs have the names of heads.

    Returns:
        `onnx.ModelProto`. Its outputs are those of the network that the tail does not
        read, then those of the tail.
    """
    onnx: Any = require("onnx", extra="onnx")
    read = [value.name for value in tail.graph.input]
    kept = [value.name for value in network.graph.output if value.name not in read]
    given = [value.name for value in tail.graph.output]
    # Shapes are those of one file or the other, and neither knows all.
    tail = onnx.compose.add_prefix(
        tail, _PREFIX, rename_inputs=False, rename_outputs=False
    )
    tail.ir_version = network.ir_version
    del tail.opset_import[:]
    tail.opset_import.extend(network.opset_import)
    joined = onnx.compose.merge_models(
        network,
        tail,
        io_map=[(name, name) for name in read],
        outputs=[*kept, *given],
        name=network.graph.name,
        producer_name=network.producer_name,
        producer_version=network.producer_version,
    )
    joined.ir_version = network.ir_version
    return joined


class _Moved:
    """Rewrites the parts of one flatbuffer for another: their numbers change."""

    def __init__(self, model: Any, added: Any, schema: Any) -> None:
        self._model = model
        self._schema = schema
        # Buffer 0 is the empty one in every file.
        self._first_buffer = len(model.buffers) - 1
        model.buffers.extend(added.buffers[1:])
        self._first_code = len(model.operatorCodes)
        model.operatorCodes.extend(added.operatorCodes)
        self._first_graph = len(model.subgraphs) - 1

    def tensor(self, tensor: Any) -> Any:
        """Changes a tensor."""
        tensor.name = _PREFIX.encode() + tensor.name
        if tensor.buffer:
            tensor.buffer += self._first_buffer
        return tensor

    def operator(self, operator: Any, place: Mapping[int, int]) -> Any:
        """Changes an operator, whose tensors go to other places."""
        operator.opcodeIndex += self._first_code
        for name in ("inputs", "outputs"):
            old = getattr(operator, name)
            new = [place[i] if i >= 0 else -1 for i in ([] if old is None else old)]
            setattr(operator, name, np.array(new, np.int32))
        options = operator.builtinOptions
        for name in ("condSubgraphIndex", "bodySubgraphIndex"):
            if hasattr(options, name):
                setattr(options, name, getattr(options, name) + self._first_graph)
        return operator

    def dequantize(self, source: int, target: int) -> Any:
        """Makes an operator from integers to float32."""
        schema, codes = self._schema, self._model.operatorCodes
        builtin = schema.BuiltinOperator.DEQUANTIZE
        known = [i for i, c in enumerate(codes) if c.builtinCode == builtin]
        if not known:
            code = schema.OperatorCodeT()
            code.builtinCode = code.deprecatedBuiltinCode = builtin
            code.version = _DEQUANTIZE_VERSION
            codes.append(code)
            known = [len(codes) - 1]
        operator = schema.OperatorT()
        operator.opcodeIndex = known[-1]
        operator.inputs = np.array([source], np.int32)
        operator.outputs = np.array([target], np.int32)
        operator.builtinOptionsType = schema.BuiltinOptions.DequantizeOptions
        operator.builtinOptions = schema.DequantizeOptionsT()
        return operator


# Of the op in the schema: the one that takes int8.
_DEQUANTIZE_VERSION = 2


def _unpack(schema: Any, graph: bytes) -> Any:
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(graph, 0))


def _pack(model: Any) -> bytes:
    flatbuffers: Any = require("flatbuffers", extra="convert")
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
