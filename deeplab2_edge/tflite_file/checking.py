"""Judges a TFLite graph before an interpreter sees it.

Interpreters check little: kernels index constants by what ops say, shapes decide about
memory, and a file that passes the checks of FlatBuffers alone can still crash them.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deeplab2_edge.errors import ModelFileError
from deeplab2_edge.graph_limits import GraphLimits
from deeplab2_edge.tflite_file import schema
from deeplab2_edge.tflite_file.decode import Fields, decode
from deeplab2_edge.tflite_file.rules import (
    ANY_NUMBER_OF_OUTPUTS,
    CUSTOM_OPS,
    NUM_OUTPUTS,
    OPTIONAL,
    RULES,
    WHILE,
    OpRule,
)
from deeplab2_edge.tflite_file.shapes import Misfit, Operands

_DTYPES = frozenset(
    "float32 float16 int32 uint8 int64 bool int16 int8".split()
)  # all that can be counted in bytes and holds no pointer
_INTEGERS = {"int32": "<i4", "int64": "<i8"}
_BOUNDS = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767)}
_MAX_RANK = 8
_MAX_SHAPE_VALUES = 64  # of a constant that decides about shapes
_VERSION = 3


@dataclass(frozen=True)
class Port:
    """Is a tensor at the edge of a graph.

    Attributes:
        name: As in the file.
        shape: With the batch.
        dtype: For example `int8`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Ports:
    """Is what a graph takes and gives."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def check_content(
    content: bytes,
    *,
    allow_ops: Collection[str] = (),
    allow_loops: bool = True,
    limits: GraphLimits,
) -> Ports:
    """Checks a whole TFLite graph.

    Args:
        content: The graph alone.
        allow_ops: Ops to accept beside those of `rules`, unseen: builtin names as in
            `schema.OPS`, or names of custom ops.
        allow_loops: Whether there may be WHILE, which may run for ever.
        limits: Of memory.

    Returns:
        What it takes and gives.

    Raises:
        ModelFileError: If the file is damaged, an op is unknown, is given what it
            cannot take or gives another shape than it says, or memory is short.
    """
    model = decode(content)
    if model["version"] != _VERSION or not model["subgraphs"]:
        raise ModelFileError(f"version {model['version']} of TFLite, or no network")
    codes = [_op_name(code) for code in model["operator_codes"]]
    constants = [_constant(buffer, content) for buffer in model["buffers"]]
    for entry in model["metadata"]:
        _entry(constants, entry["buffer"], "buffer")
    graphs = [
        _Subgraph(fields, codes, constants, allow_ops, limits)
        for fields in model["subgraphs"]
    ]
    if not allow_loops and any(graph.calls for graph in graphs):
        raise ModelFileError("the graph has loops where none are needed")
    _check_calls(graphs)
    for signature in model["signatures"]:
        graph = _entry(graphs, signature["subgraph"], "graph")
        for tensor in (*signature["inputs"], *signature["outputs"]):
            _entry(graph.tensors, tensor["tensor"], "tensor")
    limits.check_activations(sum(graph.peak_bytes() for graph in graphs))
    main = graphs[0]
    return Ports(*(tuple(main.port(i) for i in ends) for ends in main.ends))


class _Tensor:
    """Is one tensor, checked by itself."""

    __slots__ = ("data", "dtype", "name", "num_bytes", "shape")

    def __init__(
        self, fields: Fields, constants: Sequence[memoryview], limits: GraphLimits
    ) -> None:
        self.name = _printable(fields["name"])
        self.shape: tuple[int, ...] = fields["shape"]
        if len(self.shape) > _MAX_RANK or any(side < 1 for side in self.shape):
            raise ModelFileError(
                f"tensor {self.name!r} has sides {list(self.shape)[: _MAX_RANK + 1]}"
            )
        if fields["signature"] and fields["signature"] != self.shape:
            raise ModelFileError(f"tensor {self.name!r} has sides that change")
        number = fields["type"]
        self.dtype = schema.DTYPES[number] if 0 <= number < len(schema.DTYPES) else "?"
        if self.dtype not in _DTYPES:
            raise ModelFileError(f"tensor {self.name!r} has type {number}")
        if (
            fields["is_variable"]
            or fields["sparsity"] is not None
            or fields["variants"]
            or fields["external_buffer"]
        ):
            raise ModelFileError(
                f"tensor {self.name!r} is sparse, a variable or stored elsewhere"
            )
        bits = schema.BITS.get(self.dtype, 32)
        self.num_bytes = math.prod(self.shape) * bits // 8
        limits.check_tensor(self.name, self.num_bytes)
        self.data: memoryview = _entry(constants, fields["buffer"], "buffer")
        if len(self.data) not in (0, self.num_bytes):
            raise ModelFileError(
                f"damaged: tensor {self.name!r} of {self.dtype} {list(self.shape)} has "
                f"{len(self.data)} bytes of values"
            )
        if fields["quantization"] is not None:
            self._check_quantization(fields["quantization"])

    @property
    def is_constant(self) -> bool:
        return len(self.data) > 0

    def integers(self) -> tuple[int, ...] | None:
        """Gives the values of a small constant of indices or sizes."""
        kind = _INTEGERS.get(self.dtype)
        if kind is None or not self.data:
            return None
        if len(self.data) > _MAX_SHAPE_VALUES * 8:
            return None
        return tuple(np.frombuffer(self.data, kind).tolist())

    def _check_quantization(self, fields: Fields) -> None:
        scales, zeros = fields["scale"], fields["zero_point"]
        if fields["details_type"]:
            raise ModelFileError(f"tensor {self.name!r} is quantized in a foreign way")
        count = len(scales)
        if not count:
            return
        low, high = _BOUNDS.get(self.dtype, (0, 0))
        axis = fields["dimension"]
        if (
            len(zeros) not in (count, 1)
            or (count > 1 and not 0 <= axis < len(self.shape))
            or (count > 1 and self.shape[axis] != count)
            or not (np.isfinite(scales).all() and (scales > 0).all())
            or (zeros < low).any()
            or (zeros > high).any()
        ):
            raise ModelFileError(
                f"damaged: tensor {self.name!r} of {self.dtype} {list(self.shape)} has "
                f"{count} scales and {len(zeros)} zero points that do not fit"
            )


class _Subgraph:
    """Is one graph of a file, checked by itself."""

    def __init__(
        self,
        fields: Fields,
        codes: Sequence[str],
        constants: Sequence[memoryview],
        allow_ops: Collection[str],
        limits: GraphLimits,
    ) -> None:
        self.tensors = [_Tensor(t, constants, limits) for t in fields["tensors"]]
        self.ends = fields["inputs"], fields["outputs"]
        self.calls: list[tuple[int, int, Fields]] = []  # condition, body, op
        for index in (*self.ends[0], *self.ends[1]):
            _entry(self.tensors, index, "tensor")
        is_given = [tensor.is_constant for tensor in self.tensors]
        for index in self.ends[0]:
            if is_given[index]:
                raise ModelFileError("damaged: an input is a constant, or there twice")
            is_given[index] = True
        self._ops = fields["operators"]
        for place, op in enumerate(self._ops):
            name = _entry(codes, op["code"], "kind of op")
            try:
                self._check_op(name, op, is_given, allow_ops)
            except Misfit as misfit:
                raise ModelFileError(f"op {place} ({name}) {misfit}") from None
        if not all(is_given[index] for index in self.ends[1]):
            raise ModelFileError("damaged: nothing gives one of the outputs")

    def port(self, index: int) -> Port:
        """Describes a tensor."""
        tensor = self.tensors[index]
        return Port(tensor.name, tensor.shape, tensor.dtype)

    def kinds(self, indices: Sequence[int]) -> list[tuple[tuple[int, ...], str]]:
        """Gives shapes and types of tensors."""
        return [(self.tensors[i].shape, self.tensors[i].dtype) for i in indices]

    def peak_bytes(self) -> int:
        """Gives what all tensors take that are needed at the same time."""
        last = dict.fromkeys(self.ends[0], -1)
        for place, op in enumerate(self._ops):
            last.update(dict.fromkeys((*op["inputs"], *op["outputs"]), place))
        last.update(dict.fromkeys(self.ends[1], len(self._ops)))
        dying: list[list[int]] = [[] for _ in range(len(self._ops) + 2)]
        for index, place in last.items():
            if index >= 0 and not self.tensors[index].is_constant:
                dying[place + 1].append(index)
        alive: int = sum(self.tensors[index].num_bytes for index in self.ends[0])
        peak = alive
        for place, op in enumerate(self._ops):
            alive -= sum(self.tensors[i].num_bytes for i in dying[place])
            alive += sum(self.tensors[i].num_bytes for i in op["outputs"])
            peak = max(peak, alive)
        return peak

    def _check_op(
        self, name: str, op: Fields, is_given: list[bool], allow_ops: Collection[str]
    ) -> None:
        rule = RULES.get(name)
        if rule is None and name not in CUSTOM_OPS and name not in allow_ops:
            raise Misfit(
                "is none that deeplab2-edge writes; if you trust the file, allow it: "
                f"read_model_file(path, allow_ops=[{name!r}])"
            )
        if op["options_2_type"] or op["large_options_offset"] or len(op["mutating"]):
            raise Misfit("has options or variables of another kind")
        if op["intermediates"]:
            raise Misfit("has tensors of its own")
        optional = OPTIONAL.get(name, frozenset())
        for position, index in enumerate(op["inputs"]):
            if index == -1 and (position in optional or rule is None):
                continue
            _entry(self.tensors, index, "tensor")
            if not is_given[index]:
                raise Misfit(f"takes tensor {index}, which nothing before it gives")
        if not op["outputs"]:
            raise Misfit("gives nothing")
        for index in op["outputs"]:
            _entry(self.tensors, index, "tensor")
            if is_given[index]:
                raise Misfit(f"gives tensor {index}, which has values already")
            is_given[index] = True
        if rule is not None and name not in allow_ops:
            self._check_rule(name, rule, op)

    def _check_rule(self, name: str, rule: OpRule, op: Fields) -> None:
        inputs, outputs = op["inputs"], op["outputs"]
        least, most = rule.inputs
        if not least <= len(inputs) <= most:
            raise Misfit(f"has {len(inputs)} inputs")
        wanted = NUM_OUTPUTS.get(name, 1)
        if len(outputs) != wanted and name not in ANY_NUMBER_OF_OUTPUTS:
            raise Misfit(f"has {len(outputs)} outputs")
        options = op["options"]
        kind = op["options_type"]
        has_none = kind == 0 and options is None
        if not (kind == rule.options and options is not None) and not (
            has_none and (rule.has_defaults or not rule.options)
        ):
            raise Misfit(f"has options of kind {kind}")
        if name == WHILE:
            self.calls.append((options.number(0, "i"), options.number(1, "i"), op))
            return
        taken = [None if i < 0 else self.tensors[i] for i in inputs]
        found = [self.tensors[i] for i in outputs]
        for position in rule.alike:
            source = taken[position]
            if source is not None and source.dtype != found[0].dtype:
                raise Misfit(f"makes {found[0].dtype} of {source.dtype}")
        given = rule.shapes(
            Operands(
                tuple(None if t is None else t.shape for t in taken),
                tuple(None if t is None else t.integers() for t in taken),
                options,
            )
        )
        if len(given) != len(found):
            raise Misfit(f"gives {len(given)} results of {len(found)}")
        for shape, tensor in zip(given, found, strict=True):
            if shape is not None and shape != tensor.shape:
                raise Misfit(f"gives {list(shape)} where {list(tensor.shape)} stands")


def _check_calls(graphs: Sequence[_Subgraph]) -> None:
    """Checks loops: a graph runs others behind it only, so none runs itself."""
    for number, graph in enumerate(graphs):
        for condition, body, op in graph.calls:
            if not (number < condition < len(graphs) and number < body < len(graphs)):
                raise ModelFileError("damaged: a loop runs a graph that is not there")
            carried = graph.kinds(op["inputs"])
            (before, test), (start, end) = graphs[condition].ends, graphs[body].ends
            if not (
                carried == graph.kinds(op["outputs"])
                and carried == graphs[condition].kinds(before)
                and carried == graphs[body].kinds(start)
                and carried == graphs[body].kinds(end)
                and [dtype for _, dtype in graphs[condition].kinds(test)] == ["bool"]
            ):
                raise ModelFileError("damaged: a loop does not fit what it runs")


def _op_name(code: Mapping[str, Any]) -> str:
    number = max(code["deprecated_code"], code["code"])
    if number == schema.CUSTOM:
        return _printable(code["custom_code"]) or "CUSTOM"
    if not 0 <= number < len(schema.OPS):
        return f"BUILTIN_{number}"
    return str(schema.OPS[number])


def _constant(buffer: Fields, content: bytes) -> memoryview:
    data: memoryview = buffer["data"]
    start, size = buffer["offset"], buffer["size"]
    if start <= 1:  # what converters write for "in the table"
        return data
    if len(data) or start + size > len(content):
        raise ModelFileError("damaged: a constant lies behind the end of the graph")
    return memoryview(content)[start : start + size]


def _entry(entries: Sequence[Any], index: int, what: str) -> Any:
    if not 0 <= index < len(entries):
        raise ModelFileError(f"damaged: it refers to {what} {index} of {len(entries)}")
    return entries[index]


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:200])
