"""Reads all of a TFLite file by its schema, or refuses it.

The interpreters of TFLite follow offsets wherever they point. What passes here has
every table, string and vector within the file and aligned as its type wants, knows
every field, and is no larger than it looks: shared parts are counted each time.

References:
    https://flatbuffers.dev/internals; the checks are those of its `Verifier`, which
    interpreters in Python do not call.
"""

import struct
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from deeplab2_edge.errors import ModelFileError
from deeplab2_edge.tflite_file.tables import ANY, GONE, TABLES, TEXT

Fields: TypeAlias = Mapping[str, Any]

MAGIC = b"TFL3"  # bytes 4 to 8
_MAX_TABLES = 1 << 18  # the largest networks have some ten thousand
_MAX_DEPTH = 8
_NUMPY = {"i": "<i4", "q": "<i8", "f": "<f4", "?": "u1", "B": "u1"}


class Options:
    """Is the table of options of an op, in a schema that depends on the op.

    Args:
        content: The whole file.
        position: Where it begins.
        offsets: Of its fields from there, 0 for those that are not stored.
        size: Of the table.
    """

    def __init__(
        self, content: bytes, position: int, offsets: tuple[int, ...], size: int
    ) -> None:
        self._content = content
        self._position = position
        self._offsets = offsets
        self._size = size

    def number(self, field: int, kind: str, default: int = 0) -> int:
        """Reads an integer; `kind` is its character in the module `struct`.

        Raises:
            ModelFileError: If it does not lie within the table.
        """
        place = self._place(field, struct.calcsize(kind))
        if place is None:
            return default
        return int(struct.unpack_from("<" + kind, self._content, place)[0])

    def real(self, field: int, default: float = 0.0) -> float:
        """Reads a float32.

        Raises:
            ModelFileError: As `number`.
        """
        place = self._place(field, 4)
        if place is None:
            return default
        return float(struct.unpack_from("<f", self._content, place)[0])

    def _place(self, field: int, size: int) -> int | None:
        if field >= len(self._offsets) or not self._offsets[field]:
            return None
        return _inside(self._position, self._offsets[field], self._size, size)


def decode(content: bytes, *, allow_unknown: bool = False) -> Fields:
    """Reads a TFLite flatbuffer completely.

    Args:
        content: The graph; what follows it is left alone.
        allow_unknown: Whether tables may have fields that `tables` does not know.
            Whoever runs the file may read them, unseen by this function.

    Returns:
        The table `Model` as a mapping from the names in `tables` to numbers, strings,
        tuples of integers, arrays of reals, memoryviews of bytes, mappings, lists of
        mappings and `Options`. What is not stored is 0, empty or None.

    Raises:
        ModelFileError: If anything in it does not lie where it must.
    """
    if content[4:8] != MAGIC:
        raise ModelFileError("not a TFLite file")
    return _Decoder(content, allow_unknown).table(_follow(content, 0), "Model", 0)


class _Decoder:
    def __init__(self, content: bytes, allow_unknown: bool) -> None:
        self._content = content
        self._allow_unknown = allow_unknown
        self._virtual: dict[int, tuple[tuple[int, ...], int]] = {}
        self._tables = _MAX_TABLES
        # What is shared is read again: bounds the time, whatever points where.
        self._items = 4 * len(content)

    def table(self, position: int, name: str, depth: int) -> Fields:
        offsets, size = self._fields(position, depth)
        known = TABLES[name]
        if any(offsets[len(known) :]) and not self._allow_unknown:
            raise ModelFileError(
                f"a table {name} has fields that this deeplab2-edge does not know; "
                "a newer one may read it"
            )
        found: dict[str, Any] = {}
        for index, (field, kind) in enumerate(known):
            offset = offsets[index] if index < len(offsets) else 0
            if kind == GONE:
                continue
            found[field] = (
                self._value(position, offset, size, kind, depth)
                if offset
                else _default(kind)
            )
        return found

    def _value(
        self, position: int, offset: int, size: int, kind: str, depth: int
    ) -> Any:
        if len(kind) == 1:
            place = _inside(position, offset, size, struct.calcsize(kind))
            return struct.unpack_from("<" + kind, self._content, place)[0]
        place = _inside(position, offset, size, 4)
        if kind == TEXT:
            return self._text(place)
        if kind == ANY:
            target = _follow(self._content, place)
            return Options(self._content, target, *self._fields(target, depth + 1))
        if kind[0] != "[":
            return self.table(_follow(self._content, place), kind, depth + 1)
        item = kind[1:-1]
        if len(item) == 1:
            return self._numbers(place, item)
        start, length = self._counted(place, 4)
        return [
            self.table(_follow(self._content, start + 4 * i), item, depth + 1)
            for i in range(length)
        ]

    def _fields(self, position: int, depth: int) -> tuple[tuple[int, ...], int]:
        """Gives the offsets of a table's fields, and its size."""
        self._tables -= 1
        if self._tables < 0 or depth > _MAX_DEPTH:
            raise ModelFileError(
                f"damaged: more than {_MAX_TABLES} tables, or {_MAX_DEPTH} deep"
            )
        virtual = position - _number(self._content, position, "<i")
        if virtual not in self._virtual:
            self._virtual[virtual] = self._read_fields(virtual)
        offsets, size = self._virtual[virtual]
        if position + size > len(self._content):
            raise ModelFileError(f"damaged: a table at byte {position} is cut off")
        return offsets, size

    def _read_fields(self, virtual: int) -> tuple[tuple[int, ...], int]:
        length = _number(self._content, virtual, "<H")
        size = _number(self._content, virtual + 2, "<H")
        end = virtual + length
        if virtual % 2 or length < 4 or length % 2 or end > len(self._content):
            raise ModelFileError(f"damaged: no list of fields at byte {virtual}")
        count = (length - 4) // 2
        return struct.unpack_from(f"<{count}H", self._content, virtual + 4), size

    def _counted(self, place: int, item_bytes: int) -> tuple[int, int]:
        start, length = _vector(self._content, place, item_bytes)
        self._items -= length
        if self._items < 0:
            raise ModelFileError("damaged: its lists are longer than itself")
        return start, length

    def _numbers(self, place: int, kind: str) -> Any:
        if kind == "B":  # not looked at, so not counted
            start, length = _vector(self._content, place, 1)
            return memoryview(self._content)[start : start + length]
        start, length = self._counted(place, struct.calcsize(kind))
        if kind == "i":
            return struct.unpack_from(f"<{length}i", self._content, start)
        return np.frombuffer(self._content, _NUMPY[kind], length, start)

    def _text(self, place: int) -> str:
        start, length = self._counted(place, 1)
        if self._content[start + length : start + length + 1] != b"\0":
            raise ModelFileError(f"damaged: a text at byte {start} has no end")
        try:
            return self._content[start : start + length].decode()
        except UnicodeDecodeError:
            raise ModelFileError(
                f"damaged: a text at byte {start} is not UTF-8"
            ) from None


def _default(kind: str) -> Any:
    if len(kind) == 1:
        return 0
    if kind == TEXT:
        return ""
    if kind == "[i]":
        return ()
    if kind == "[B]":
        return memoryview(b"")
    if kind[0] == "[":
        return [] if len(kind) > 3 else np.zeros(0, _NUMPY[kind[1]])
    return None


def _inside(position: int, offset: int, table: int, size: int) -> int:
    """Gives where a field is that must lie within its table."""
    if not 4 <= offset <= table - size or (position + offset) % size:
        raise ModelFileError(
            f"damaged: a field of the table at byte {position} lies outside of it"
        )
    return position + offset


def _follow(content: bytes, place: int) -> int:
    target = place + _number(content, place, "<I")
    if target % 4 or target == place:
        raise ModelFileError(f"damaged: byte {place} leads to byte {target}")
    return target


def _vector(content: bytes, place: int, item_bytes: int) -> tuple[int, int]:
    """Returns where the items of a vector begin and how many there are."""
    start = _follow(content, place)
    length = _number(content, start, "<I")
    if start + 4 + length * item_bytes > len(content) or (start + 4) % item_bytes:
        raise ModelFileError(
            f"damaged: a list at byte {start} of {length} entries leaves the file"
        )
    return start + 4, length


def _number(content: bytes, position: int, kind: str) -> int:
    if not 0 <= position <= len(content) - struct.calcsize(kind):
        raise ModelFileError(f"damaged: it refers to byte {position} of {len(content)}")
    value: int = struct.unpack_from(kind, content, position)[0]
    return value
