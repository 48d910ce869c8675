"""Reads and extends ONNX files without the onnx package.

An ONNX file is one protobuf message without a magic number. Protobuf allows the
entries of a repeated field anywhere, so properties (`metadata_props`) appended behind
the last byte are part of the model for every reader, while the bytes before them stay
as the converter wrote them. A file of this project is

    the model as converted | metadata_props with keys `deeplab2_edge.*`

Nothing here trusts a length, a count or a nesting depth of the file.

References:
    onnx.proto of ONNX 1.23; protobuf.dev/programming-guides/encoding.
"""

import collections
import dataclasses
from collections.abc import Iterator, Mapping

from deeplab2_edge.errors import ModelFileError

PROPERTY_PREFIX = "deeplab2_edge."
# All standard ops live here; the first is how files usually write it.
STANDARD_DOMAINS = ("", "ai.onnx")

# Above what any parser of protobuf takes.
_MAX_BYTES = (1 << 31) - 1
# A model of this family has some 100 000 fields in all its nodes.
_MAX_FIELDS = 1 << 20
_MAX_DEPTH = 16
_MAX_VARINT_BYTES = 10

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}

# Field numbers of onnx.proto.
_MODEL_IR_VERSION = 1
_MODEL_GRAPH = 7
_MODEL_OPSET_IMPORT = 8
_MODEL_PROPERTIES = 14
_MODEL_TRAINING = 20
_MODEL_FUNCTIONS = 25
_PROPERTY_KEY, _PROPERTY_VALUE = 1, 2
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2
_GRAPH_INITIALIZER, _GRAPH_OUTPUT = 5, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_OP_TYPE, _NODE_DOMAIN = 1, 2, 4, 7
_VALUE_NAME = 1
_TENSOR_TYPE, _TENSOR_INTEGERS, _TENSOR_NAME, _TENSOR_BYTES = 2, 7, 8, 9
_TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION = 13, 14
_INT64 = 7  # of TensorProto.DataType

# Message kind -> field -> kind of the message in it. All else is not looked into.
_NESTED: dict[str, dict[int, str]] = {
    "graph": {1: "node", 5: "tensor", _GRAPH_OUTPUT: "value", 15: "sparse tensor"},
    "value": {},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse tensor",
        23: "sparse tensor",
    },
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "tensor": {},
}


# What moves values without changing them.
_MOVES = frozenset({"Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
# Ops that run graphs of their own, perhaps forever. No network here has them; what
# makes maps inside a file has loops that end after a number of rounds that it states.
_LOOP = "Loop"
_CONTROL_FLOW = frozenset({"If", _LOOP, "Scan", "SequenceMap"})
# Of all loops together: those that group pixels times those that search plateaus.
_MAX_ROUNDS = 1 << 17


@dataclasses.dataclass(frozen=True)
class OnnxSummary:
    """Says what an ONNX model is made of.

    Attributes:
        ir_version: Of the file format.
        opsets: Version of each operator set, by domain; `""` is the standard one.
        op_counts: Number of nodes by op, most frequent first; ops of other domains
            as `domain.Op`.
        num_tensors: All that nodes take or give, constants included.
        has_external_data: Whether some constant is to be read from another file.
        has_functions: Whether the model brings operators of its own, or a training
            graph.
        integer_outputs: Names of outputs that were integers before they left the
            graph dequantized.
        loop_rounds: The most rounds of all loops, as if they were nested; None if
            there is one without a constant bound.
    """

    ir_version: int
    opsets: Mapping[str, int]
    op_counts: Mapping[str, int]
    num_tensors: int
    has_external_data: bool
    has_functions: bool
    integer_outputs: frozenset[str] = frozenset()
    loop_rounds: int | None = 0

    def check_self_contained(self) -> None:
        """Refuses what reaches outside the file or outside a plain standard graph.

        Raises:
            ModelFileError: If constants lie in other files, ops are not standard, or
                there are branches, or loops that may run for long.
        """
        if self.has_external_data:
            raise ModelFileError(
                "constants of this model lie in other files (external data), which "
                "is not allowed; a model file holds all it needs"
            )
        if self.has_functions:
            raise ModelFileError(
                "the model defines functions or a training graph; only plain "
                "inference graphs are run"
            )
        foreign = [op for op in self.op_counts if "." in op]
        domains = sorted(set(self.opsets) - set(STANDARD_DOMAINS))
        if foreign or domains:
            raise ModelFileError(
                f"the model needs operators outside standard ONNX "
                f"({', '.join([*domains, *foreign][:5])}), which are not run"
            )
        branching = sorted(_CONTROL_FLOW.intersection(self.op_counts))
        if self.loop_rounds is not None and self.loop_rounds <= _MAX_ROUNDS:
            branching = [op for op in branching if op != _LOOP]
        if branching:
            raise ModelFileError(
                f"the model has loops or branches ({', '.join(branching)}) that may "
                "run for long, which are not run"
            )


def append_properties(content: bytes, properties: Mapping[str, str]) -> bytes:
    """Adds properties behind a model; its own bytes stay as they are.

    Args:
        content: An ONNX model.
        properties: By key; keys start with `PROPERTY_PREFIX`.

    Raises:
        ModelFileError: If `content` is not an ONNX model or has one of the keys.
        ValueError: If a key lacks the prefix.
    """
    present = read_properties(content)
    entries = []
    for key, value in properties.items():
        if not key.startswith(PROPERTY_PREFIX):
            raise ValueError(f"key {key!r} does not start with {PROPERTY_PREFIX!r}")
        if key in present:
            raise ModelFileError(f"the model has a property {key!r} already")
        entry = _field(_PROPERTY_KEY, key.encode()) + _field(
            _PROPERTY_VALUE, value.encode()
        )
        entries.append(_field(_MODEL_PROPERTIES, entry))
    extended = content + b"".join(entries)
    if len(extended) > _MAX_BYTES:
        raise ModelFileError(
            f"the model has {len(extended)} bytes; an ONNX file has at most "
            f"{_MAX_BYTES}"
        )
    return extended


def read_properties(content: bytes) -> dict[str, str]:
    """Reads all properties of a model, ours or not.

    Raises:
        ModelFileError: If `content` is not an ONNX model, is damaged, or gives a
            property twice.
    """
    found: dict[str, str] = {}
    for field in _model_fields(content):
        if field.number == _MODEL_PROPERTIES:
            key, value = _read_property(content, field)
            if key in found:
                raise ModelFileError(f"property {key!r} is there twice")
            found[key] = value
    return found


def graph_length(content: bytes) -> int:
    """Finds where the model as converted ends and appended properties begin.

    Only what stands behind the last byte that is not one of our properties counts
    as appended, so whatever is hidden behind or between them belongs to the model,
    and its hash.

    Raises:
        ModelFileError: If `content` is not an ONNX model or is damaged.
    """
    end = 0
    for field in _model_fields(content):
        is_ours = field.number == _MODEL_PROPERTIES and _read_property(content, field)[
            0
        ].startswith(PROPERTY_PREFIX)
        if not is_ours:
            end = field.end
    return end


def is_onnx(content: bytes) -> bool:
    """Says whether bytes are a complete ONNX model, as far as its outer layer says."""
    try:
        _model_fields(content)
    except ModelFileError:
        return False
    return True


def summarize(content: bytes) -> OnnxSummary:
    """Goes through all nodes and constants of a model.

    Raises:
        ModelFileError: If `content` is not an ONNX model or is damaged.
    """
    fields = _model_fields(content)
    ir_version = next(f.value for f in fields if f.number == _MODEL_IR_VERSION)
    opsets: dict[str, int] = {}
    has_functions = False
    counts: collections.Counter[str] = collections.Counter()
    has_external_data = False
    budget = _Budget(_MAX_FIELDS)
    makers: dict[str, tuple[str, str]] = {}
    tensors: set[str] = set()
    outputs: list[str] = []
    bounds: dict[str, int] = {}
    loops: list[str] = []
    for field in fields:
        if field.number == _MODEL_OPSET_IMPORT:
            domain, version = _read_opset(content, field)
            opsets[domain] = max(version, opsets.get(domain, 0))
        elif field.number in (_MODEL_TRAINING, _MODEL_FUNCTIONS):
            has_functions = True
        elif field.number == _MODEL_GRAPH:
            for kind, message in _walk(content, "graph", field, budget, 0):
                if kind == "node":
                    op = _op_name(content, message)
                    counts[op] += 1
                    taken = list(_texts(content, message, _NODE_INPUT))
                    tensors.update(name for name in taken if name)
                    source = taken[0] if taken else ""
                    if op == _LOOP:
                        loops.append(source)
                    for name in _texts(content, message, _NODE_OUTPUT):
                        makers[name] = op, source
                elif kind == "value":
                    outputs += _texts(content, message, _VALUE_NAME)
                elif kind == "tensor":
                    has_external_data |= _is_external(message)
            for name, value in _single_integers(content, field):
                bounds[name] = max(value, bounds.get(name, 0))
    return OnnxSummary(
        ir_version=ir_version,
        opsets=opsets,
        op_counts=dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
        num_tensors=len(tensors.union(makers)),
        has_external_data=has_external_data,
        has_functions=has_functions,
        integer_outputs=frozenset(n for n in outputs if _was_integer(n, makers)),
        loop_rounds=_rounds(
            [None if name in makers else bounds.get(name) for name in loops]
        ),
    )


@dataclasses.dataclass(frozen=True)
class _Field:
    """Is one field of a message.

    Attributes:
        number: Of the field.
        wire: Its wire type.
        value: Of a varint; else 0.
        start: Where the content of a field with a length begins.
        end: One behind the last byte of the field.
    """

    number: int
    wire: int
    value: int
    start: int
    end: int


class _Budget:
    """Counts fields down and refuses files with absurdly many."""

    def __init__(self, fields: int) -> None:
        self._left = fields

    def spend(self) -> None:
        """Takes one field."""
        self._left -= 1
        if self._left < 0:
            raise ModelFileError(
                f"the ONNX model has more than {_MAX_FIELDS} fields; it is damaged"
            )


def _model_fields(content: bytes) -> list[_Field]:
    """Reads the outermost fields and checks that they make a model."""
    if len(content) > _MAX_BYTES:
        raise ModelFileError(
            f"{len(content)} bytes; an ONNX file has at most {_MAX_BYTES}"
        )
    try:
        fields = list(_fields(content, 0, len(content), _Budget(_MAX_FIELDS)))
    except ModelFileError as error:
        raise ModelFileError(
            f"not an ONNX file, cut off or damaged ({error}; it starts with "
            f"{content[:8]!r})"
        ) from None
    wires = {_MODEL_IR_VERSION: _VARINT, _MODEL_GRAPH: _LENGTH}
    for number, wire in wires.items():
        found = [field.wire for field in fields if field.number == number]
        if found != [wire]:
            what = "graph" if number == _MODEL_GRAPH else "version number"
            raise ModelFileError(
                f"not an ONNX file: it has {len(found)} {what}s where a model has "
                f"exactly one (it starts with {content[:8]!r})"
            )
    return fields


def _fields(content: bytes, start: int, end: int, budget: _Budget) -> Iterator[_Field]:
    position = start
    while position < end:
        budget.spend()
        key, position = _varint(content, position, end)
        number, wire = key >> 3, key & 7
        if not 1 <= number < 1 << 29:
            raise ModelFileError(f"field number {number} at byte {position}")
        value, body = 0, position
        if wire == _VARINT:
            value, position = _varint(content, position, end)
        elif wire == _LENGTH:
            length, body = _varint(content, position, end)
            position = body + length
        elif wire in _FIXED_BYTES:
            position += _FIXED_BYTES[wire]
        else:
            raise ModelFileError(f"wire type {wire} at byte {position}")
        if position > end:
            raise ModelFileError(f"field {number} ends behind byte {end}")
        yield _Field(number, wire, value, body, position)


def _varint(content: bytes, position: int, end: int) -> tuple[int, int]:
    value = 0
    for place in range(_MAX_VARINT_BYTES):
        if position + place >= end:
            raise ModelFileError(f"a number is cut off at byte {end}")
        byte = content[position + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value & (1 << 64) - 1, position + place + 1
    raise ModelFileError(f"a number at byte {position} never ends")


def _walk(
    content: bytes, kind: str, message: _Field, budget: _Budget, depth: int
) -> Iterator[tuple[str, list[_Field]]]:
    """Gives the fields of a message and of the messages in it, as far as of use."""
    if depth > _MAX_DEPTH:
        raise ModelFileError(f"graphs within graphs, more than {_MAX_DEPTH} deep")
    fields = list(_fields(content, message.start, message.end, budget))
    yield kind, fields
    nested = _NESTED[kind]
    for field in fields:
        if field.number in nested and field.wire == _LENGTH:
            yield from _walk(content, nested[field.number], field, budget, depth + 1)


def _read_property(content: bytes, field: _Field) -> tuple[str, str]:
    if field.wire != _LENGTH:
        raise ModelFileError(f"a property with wire type {field.wire}")
    texts = {_PROPERTY_KEY: "", _PROPERTY_VALUE: ""}
    budget = _Budget(_MAX_FIELDS)
    for part in _fields(content, field.start, field.end, budget):
        if part.number in texts and part.wire == _LENGTH:
            texts[part.number] = _text(content, part)
    return texts[_PROPERTY_KEY], texts[_PROPERTY_VALUE]


def _read_opset(content: bytes, field: _Field) -> tuple[str, int]:
    domain, version = "", 0
    for part in _fields(content, field.start, field.end, _Budget(_MAX_FIELDS)):
        if part.number == _OPSET_DOMAIN and part.wire == _LENGTH:
            domain = _text(content, part)
        elif part.number == _OPSET_VERSION:
            version = part.value
    return domain, version


def _op_name(content: bytes, fields: list[_Field]) -> str:
    texts = {_NODE_OP_TYPE: "", _NODE_DOMAIN: ""}
    for field in fields:
        if field.number in texts and field.wire == _LENGTH:
            texts[field.number] = _text(content, field)
    name, domain = texts[_NODE_OP_TYPE], texts[_NODE_DOMAIN]
    return name if domain in STANDARD_DOMAINS else f"{domain}.{name}"


def _texts(content: bytes, fields: list[_Field], number: int) -> Iterator[str]:
    for field in fields:
        if field.number == number and field.wire == _LENGTH:
            yield _text(content, field)


def _was_integer(output: str, makers: Mapping[str, tuple[str, str]]) -> bool:
    name = output
    for _ in makers:  # a damaged graph may run in a circle
        op, source = makers.get(name, ("", ""))
        if op not in _MOVES:
            return op == "DequantizeLinear"
        name = source
    return False


def _single_integers(content: bytes, graph: _Field) -> Iterator[tuple[str, int]]:
    """Gives the constants of the main graph that are one int64."""
    budget = _Budget(_MAX_FIELDS)
    for field in _fields(content, graph.start, graph.end, budget):
        if field.number != _GRAPH_INITIALIZER or field.wire != _LENGTH:
            continue
        name, kind, values = "", 0, []
        for part in _fields(content, field.start, field.end, budget):
            data = content[part.start : part.end]
            if part.number == _TENSOR_NAME and part.wire == _LENGTH:
                name = _text(content, part)
            elif part.number == _TENSOR_TYPE:
                kind = part.value
            elif part.number == _TENSOR_INTEGERS and part.wire == _VARINT:
                values.append(part.value)
            elif part.number == _TENSOR_INTEGERS and part.wire == _LENGTH:
                value, end = _varint(content, part.start, part.end)
                values += [value] if end == part.end else []
            elif part.number == _TENSOR_BYTES and len(data) == 8:
                values.append(int.from_bytes(data, "little"))
        if kind == _INT64 and len(values) == 1:
            yield name, values[0]


def _rounds(bounds: list[int | None]) -> int | None:
    product = 1 if bounds else 0
    for bound in bounds:
        if bound is None:
            return None
        # Unsigned here, so that a negative bound is the largest of all.
        product *= max(bound, 1)
    return product


def _is_external(fields: list[_Field]) -> bool:
    return any(
        field.number == _TENSOR_EXTERNAL_DATA
        or (field.number == _TENSOR_DATA_LOCATION and field.value != 0)
        for field in fields
    )


def _text(content: bytes, field: _Field) -> str:
    try:
        return content[field.start : field.end].decode()
    except UnicodeDecodeError:
        raise ModelFileError(f"text at byte {field.start} is not UTF-8") from None


def _field(number: int, data: bytes) -> bytes:
    return _encode_varint(number << 3 | _LENGTH) + _encode_varint(len(data)) + data


def _encode_varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
