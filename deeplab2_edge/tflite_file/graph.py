"""What is inside a TFLite graph, read without any runtime.

For all that must be known before an interpreter sees a file: which ops, on tensors of
which type and size, with which options.
"""

import dataclasses
import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from deeplab2_edge.errors import ModelFileError
from deeplab2_edge.tflite_file import schema
from deeplab2_edge.tflite_file.decode import Fields, Options, decode

# Of all ops together. The largest networks have thousands.
_MAX_EDGES = 1 << 18
_UNPACKING = ("DEQUANTIZE", "DENSIFY")
_MAX_RANK = 8
_MAX_NAME = 200  # characters
_MAX_SIDE = 1 << 30


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """Is one tensor.

    Attributes:
        name: As in the file.
        shape: Of one run; empty for a scalar.
        dtype: For example `int8`.
        num_scales: 0 for a tensor that is not quantized, 1 for one scale, else one for
            each channel.
        is_dynamic: Whether a side is known only at run time.
        data: Of a constant, else empty.
        is_folded: Whether it is unpacked of a constant, as weights of float16 are.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    num_scales: int = 0
    is_dynamic: bool = False
    data: memoryview = dataclasses.field(default=memoryview(b""), repr=False)
    is_folded: bool = False

    @property
    def is_constant(self) -> bool:
        """Whether the file holds its values."""
        return len(self.data) > 0

    @property
    def num_elements(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """Memory of its values."""
        if self.is_constant:
            return len(self.data)
        return math.ceil(self.num_elements * schema.BITS.get(self.dtype, 32) / 8)

    def integers(self) -> tuple[int, ...] | None:
        """Returns the values of a constant of indices; None if it is not one."""
        kind = {"int32": "<i4", "int64": "<i8"}.get(self.dtype)
        if kind is None or len(self.data) != self.num_elements * int(kind[-1]):
            return None
        return tuple(int(value) for value in np.frombuffer(self.data, kind))


@dataclasses.dataclass(frozen=True, eq=False)
class Op:
    """Is one op, in the order of execution.

    Attributes:
        index: Its place in that order.
        name: Builtin name, for example `CONV_2D`, or the name of a custom op.
        version: Of the op.
        inputs: None for optional ones that are left out.
        outputs: Its results.
        options: Those that `schema` knows, by name.
        is_custom: Whether it is no builtin.
    """

    index: int
    name: str
    version: int
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    is_custom: bool = False

    @cached_property
    def activations(self) -> tuple[Tensor, ...]:
        """Inputs that every run computes, then outputs."""
        return (*self.computed, *self.outputs)

    @cached_property
    def computed(self) -> tuple[Tensor, ...]:
        """Inputs that every run computes."""
        return tuple(
            t
            for t in self.inputs
            if t is not None and not (t.is_constant or t.is_folded)
        )

    @cached_property
    def constants(self) -> tuple[Tensor, ...]:
        """Inputs that the file holds."""
        return tuple(t for t in self.inputs if t is not None and t.is_constant)

    def input(self, index: int) -> Tensor | None:
        """Returns an input; None if there is none."""
        return self.inputs[index] if index < len(self.inputs) else None


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """Is a network as a TFLite file holds it.

    Attributes:
        ops: In the order of execution.
        inputs: Of the network.
        outputs: Of the network.
        num_tensors: All of them, constants included.
        num_subgraphs: More than one where there are branches or loops.
    """

    ops: tuple[Op, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    num_tensors: int
    num_subgraphs: int = 1

    @property
    def constant_bytes(self) -> int:
        """Memory of all constants that ops read, each counted once."""
        return sum(len(tensor.data) for tensor in unique_constants(self.ops))


def unique_constants(ops: tuple[Op, ...]) -> list[Tensor]:
    """Returns the constants that ops read, each once."""
    return list({id(t): t for op in ops for t in op.constants}.values())


def read_graph(content: bytes) -> Graph:
    """Reads the network of a TFLite file; what follows the flatbuffer is left alone.

    Raises:
        ModelFileError: If it is damaged or no TFLite file.
    """
    model = decode(content, allow_unknown=True)
    codes = [_op_name(code) for code in model["operator_codes"]]
    subgraphs = model["subgraphs"]
    if not subgraphs:
        raise ModelFileError("damaged: it holds no network")
    buffers = [_buffer(fields, content) for fields in model["buffers"]]
    network = subgraphs[0]
    tensors = [_tensor(fields, buffers) for fields in network["tensors"]]
    tables = network["operators"]
    _mark_folded(tables, codes, tensors)
    ops = []
    num_edges = 0
    for index, table in enumerate(tables):
        ops.append(_op(index, table, codes, tensors))
        num_edges += len(ops[-1].inputs) + len(ops[-1].outputs)
        if num_edges > _MAX_EDGES:
            raise ModelFileError(f"damaged: its ops have over {_MAX_EDGES} tensors")
    return Graph(
        ops=tuple(ops),
        inputs=tuple(_find(index, tensors) for index in network["inputs"]),
        outputs=tuple(_find(index, tensors) for index in network["outputs"]),
        num_tensors=len(tensors),
        num_subgraphs=len(subgraphs),
    )


def _mark_folded(
    ops: list[Fields], codes: list[tuple[str, int, bool]], tensors: list[Tensor]
) -> None:
    """Marks what is unpacked of constants, in place."""
    for index, op in enumerate(ops):
        if _code(index, op, codes)[0] not in _UNPACKING:
            continue
        inputs = op["inputs"]
        if inputs and all(_find(number, tensors).is_constant for number in inputs):
            for number in op["outputs"]:
                tensors[number] = dataclasses.replace(
                    _find(number, tensors), is_folded=True
                )


def _op_name(code: Fields) -> tuple[str, int, bool]:
    # Older files have the code in a byte, newer ones in both fields.
    number = max(code["deprecated_code"], code["code"])
    version = code["version"] or 1  # the default, which is not stored
    if number == schema.CUSTOM:
        return _name(code["custom_code"]) or "CUSTOM", version, True
    if not 0 <= number < len(schema.OPS):
        return f"BUILTIN_{number}", version, False
    return schema.OPS[number], version, False


def _name(text: str) -> str:
    """Makes of a name what a terminal can show as it is."""
    return "".join(c if c.isprintable() else "?" for c in text[:_MAX_NAME])


def _buffer(buffer: Fields, content: bytes) -> memoryview:
    offset, size = buffer["offset"], buffer["size"]
    if offset <= 1:
        data: memoryview = buffer["data"]
        return data
    if offset + size > len(content):
        raise ModelFileError("damaged: a constant lies behind the end of the file")
    return memoryview(content)[offset : offset + size]


def _tensor(fields: Fields, buffers: list[memoryview]) -> Tensor:
    shape, signature = _shape(fields["shape"]), _shape(fields["signature"])
    number = fields["type"]
    dtype = schema.DTYPES[number] if 0 <= number < len(schema.DTYPES) else str(number)
    index = fields["buffer"]
    if index >= max(len(buffers), 1):
        raise ModelFileError(f"damaged: a tensor has buffer {index} of {len(buffers)}")
    quantization = fields["quantization"]
    return Tensor(
        name=_name(fields["name"]),
        shape=tuple(max(side, 1) for side in shape) if any(shape) else shape,
        dtype=dtype,
        num_scales=0 if quantization is None else len(quantization["scale"]),
        is_dynamic=-1 in signature or -1 in shape,
        data=buffers[index] if buffers else memoryview(b""),
    )


def _shape(sides: tuple[int, ...]) -> tuple[int, ...]:
    if len(sides) > _MAX_RANK or any(not -1 <= side <= _MAX_SIDE for side in sides):
        raise ModelFileError(f"damaged: a tensor of shape {list(sides)[:8]}")
    return sides


def _find(index: int, tensors: list[Tensor]) -> Tensor:
    if not 0 <= index < len(tensors):
        raise ModelFileError(f"damaged: it refers to tensor {index} of {len(tensors)}")
    return tensors[index]


def _op(
    index: int, op: Fields, codes: list[tuple[str, int, bool]], tensors: list[Tensor]
) -> Op:
    name, version, is_custom = _code(index, op, codes)
    return Op(
        index=index,
        name=name,
        version=version,
        inputs=tuple(
            None if number == -1 else _find(number, tensors) for number in op["inputs"]
        ),
        outputs=tuple(_find(number, tensors) for number in op["outputs"]),
        options={} if is_custom else _options(name, op),
        is_custom=is_custom,
    )


def _code(
    index: int, op: Fields, codes: list[tuple[str, int, bool]]
) -> tuple[str, int, bool]:
    code = op["code"]
    if code >= len(codes):
        raise ModelFileError(f"damaged: op {index} has code {code} of {len(codes)}")
    return codes[code]


def _options(name: str, op: Fields) -> dict[str, Any]:
    """Reads the options that matter; those of an op without a table are defaults."""
    known = schema.OPTIONS.get(name)
    if known is None:
        return {}
    table: Options | None = op["options"]
    if op["options_type"] != known.kind:
        table = None
    options: dict[str, Any] = {}
    for option in known.fields:
        value: Any = option.default
        if table is not None:
            if option.kind == "f":
                value = table.real(option.field, float(option.default))
            else:
                value = table.number(option.field, option.kind, option.default)
        if option.name == "activation":
            value = schema.ACTIVATIONS.get(value, str(value))
        elif option.name == "padding":
            value = schema.PADDINGS.get(value, str(value))
        options[option.name] = value
    return options
