"""The float graph that waits for quantization: its ops, its ranges, its layers.

It is what the converter makes before it quantizes: float32 throughout, batch norms
folded, and a range on every tensor that may become integer. The quantizer knows an op
by the name of its first output.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.optional import require

tf = require("tensorflow", extra="convert")

# Ops with weights: what is quantized for size and speed.
WEIGHTED = frozenset(
    {"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED"}
)
# Inputs that hold pixels, 0 to 255.
PIXEL_INPUTS = frozenset({keys.IMAGE, keys.PREVIOUS_IMAGE, keys.NEXT_IMAGE})

_NAMELESS = re.compile(r"StatefulPartitionedCall|arith\.|PartitionedCall|Identity")


@dataclass(frozen=True)
class Op:
    """Is one op of the graph.

    Attributes:
        kind: Builtin name, for example `CONV_2D`.
        name: By which the quantizer knows it.
        inputs: Tensors it takes that are not constant.
        constants: Tensors it takes that are.
        outputs: Tensors it gives.
        layer: Path of the layer it comes from, for example
            `semantic_decoder/_aspp/_aspp_pool/_conv_bn_act/_conv`.
    """

    kind: str
    name: str
    inputs: tuple[int, ...]
    constants: tuple[int, ...]
    outputs: tuple[int, ...]
    layer: str


class FloatGraph:
    """Reads a flatbuffer of one subgraph with one signature, and sets its ranges.

    Args:
        graph: The flatbuffer.

    Attributes:
        ops: In the order they run.
        inputs: Tensor of each input by its name in the signature.
        heads: Tensor of each output by its name in the signature.
        ranged: Tensors that have a range, in ascending order.
    """

    def __init__(self, graph: bytes) -> None:
        from tensorflow.lite.python import schema_py_generated as schema

        self._buffer = bytearray(graph)
        document = schema.Model.GetRootAs(self._buffer, 0)
        self._document = document
        self._graph = document.Subgraphs(0)
        self._tensors = [
            self._graph.Tensors(i) for i in range(self._graph.TensorsLength())
        ]
        self._constant = [
            document.Buffers(tensor.Buffer()).DataLength() > 0
            for tensor in self._tensors
        ]
        signature = document.SignatureDefs(0)
        self.inputs = {
            signature.Inputs(i).Name().decode(): signature.Inputs(i).TensorIndex()
            for i in range(signature.InputsLength())
        }
        self.heads = {
            signature.Outputs(i).Name().decode(): signature.Outputs(i).TensorIndex()
            for i in range(signature.OutputsLength())
        }
        self.ranged = [
            index
            for index, tensor in enumerate(self._tensors)
            if tensor.Quantization() is not None
            and tensor.Quantization().MinLength() == 1
        ]
        kinds = op_kinds(document)
        self.ops = tuple(
            self._op(kinds, self._graph.Operators(i))
            for i in range(self._graph.OperatorsLength())
        )

    @property
    def content(self) -> bytes:
        """The flatbuffer as it is now."""
        return bytes(self._buffer)

    @cached_property
    def producers(self) -> Mapping[int, int]:
        """The op that gives a tensor; inputs and constants have none."""
        return {t: index for index, op in enumerate(self.ops) for t in op.outputs}

    @cached_property
    def consumers(self) -> Mapping[int, tuple[int, ...]]:
        """The ops that take a tensor."""
        found: dict[int, tuple[int, ...]] = {}
        for index, op in enumerate(self.ops):
            for tensor in dict.fromkeys(op.inputs):
                found[tensor] = (*found.get(tensor, ()), index)
        return found

    def name(self, tensor: int) -> str:
        """Returns the name of a tensor."""
        return str(self._tensors[tensor].Name().decode())

    def dtype(self, tensor: int) -> np.dtype[Any]:
        """Returns the type of the values of a tensor, float32 or uint8."""
        from tensorflow.lite.python import schema_py_generated as schema

        is_bytes = self._tensors[tensor].Type() == schema.TensorType.UINT8
        return np.dtype(np.uint8 if is_bytes else np.float32)

    def size(self, tensor: int) -> int:
        """Returns the number of values in a tensor."""
        shape = self._tensors[tensor].ShapeAsNumpy()
        return int(np.prod(shape)) if self._tensors[tensor].ShapeLength() else 1

    def number(self, tensor: int) -> float | None:
        """Returns the value of a float32 constant of one value, None of another."""
        if not self._constant[tensor] or self.size(tensor) != 1:
            return None
        buffer = self._document.Buffers(self._tensors[tensor].Buffer())
        data = bytes(buffer.DataAsNumpy())
        return float(np.frombuffer(data, np.float32)[0]) if len(data) == 4 else None

    def layer_of(self, tensor: int) -> str:
        """Returns the path of the layer a tensor comes from; of a head, its name."""
        for head, index in self.heads.items():
            if index == tensor:
                return str(head)
        producer = self.producers.get(tensor)
        return self.name(tensor) if producer is None else self.ops[producer].layer

    def has_fused_relu6(self, op: int) -> bool:
        """Says whether the values an op gives are cut to 0..6."""
        from tensorflow.lite.python import schema_py_generated as schema

        options = self._graph.Operators(op).BuiltinOptions()
        if self.ops[op].kind not in ("CONV_2D", "MUL", "ADD") or options is None:
            return False
        readers = {
            "CONV_2D": schema.Conv2DOptions,
            "MUL": schema.MulOptions,
            "ADD": schema.AddOptions,
        }
        reader = readers[self.ops[op].kind]()
        reader.Init(options.Bytes, options.Pos)
        activation = reader.FusedActivationFunction()
        return bool(activation == schema.ActivationFunctionType.RELU6)

    def set_ranges(self, ranges: NDArray[np.float64]) -> None:
        """Sets the ranges `[tensors, 2]` of the tensors in `ranged`."""
        for index, (low, high) in zip(self.ranged, ranges, strict=True):
            quantization = self._tensors[index].Quantization()
            quantization.MinAsNumpy()[0] = low
            quantization.MaxAsNumpy()[0] = high

    def ranges(self) -> NDArray[np.float32]:
        """Returns the ranges `[tensors, 2]` of the tensors in `ranged`."""
        quantizations = [self._tensors[i].Quantization() for i in self.ranged]
        return np.asarray([(q.Min(0), q.Max(0)) for q in quantizations], np.float32)

    def _op(self, kinds: Sequence[str], operator: Any) -> Op:
        taken = [int(i) for i in operator.InputsAsNumpy() if i >= 0]
        outputs = tuple(int(i) for i in operator.OutputsAsNumpy())
        name = self.name(outputs[0])
        # A head is called after the call; its weights still know their layer.
        constants = [i for i in taken if self._constant[i]]
        names = [name, *(self.name(i) for i in constants)]
        return Op(
            kind=kinds[operator.OpcodeIndex()],
            name=name,
            inputs=tuple(i for i in taken if not self._constant[i]),
            constants=tuple(constants),
            outputs=outputs,
            layer=layer_path(names),
        )


def op_kinds(document: Any) -> list[str]:
    """Returns the builtin name of each operator code of a flatbuffer."""
    from tensorflow.lite.python import schema_py_generated as schema

    builtins = vars(schema.BuiltinOperator).items()
    names = {code: name for name, code in builtins if not name.startswith("_")}
    codes = [document.OperatorCodes(i) for i in range(document.OperatorCodesLength())]
    return [names[max(c.BuiltinCode(), c.DeprecatedBuiltinCode())] for c in codes]


def layer_path(names: Iterable[str]) -> str:
    """Finds the layer in names such as `model/a/_b/_conv/Conv2D;model/a/_b/Relu1`.

    The first part is the Keras model, the last an op of the layer.
    """
    first = ""
    for name in names:
        for part in name.split(";"):
            first = first or part
            if "/" not in part or _NAMELESS.match(part):
                continue
            *steps, _ = part.removesuffix("/ReadVariableOp").split("/")
            return "/".join(steps[1:] if len(steps) > 1 else steps)
    return first
