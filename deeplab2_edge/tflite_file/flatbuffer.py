"""Reads FlatBuffers without trusting them.

The readers of the FlatBuffers project follow offsets wherever they point; runtimes
crash on damaged files. Here every read stays within the file or raises
`ModelFileError`, and no vector is longer than the bytes behind it.

References:
    https://flatbuffers.dev/internals: tables, virtual tables, vectors, strings.
"""

import struct

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import ModelFileError

# Of one vector of tables, strings or indices. The largest networks have thousands.
MAX_ITEMS = 1 << 18


class Table:
    """Is one table of a FlatBuffer.

    Fields are named by their number in the schema. A field that is not stored has its
    default.

    Args:
        content: The whole file.
        position: Where the table begins.

    Raises:
        ModelFileError: If the table does not lie within the file, as all methods do
            for what they read.
    """

    def __init__(self, content: bytes, position: int) -> None:
        self._content = content
        self._position = position
        self._virtual = position - _number(content, position, "<i")
        size = _number(content, self._virtual, "<H")
        if size < 4 or size % 2 or self._virtual + size > len(content):
            raise ModelFileError(f"damaged: a table at byte {position} has no fields")
        self._num_fields = (size - 4) // 2

    def number(self, field: int, kind: str, default: int = 0) -> int:
        """Reads an integer; `kind` is its character in the module `struct`."""
        place = self._place(field)
        return default if place is None else int(_number(self._content, place, kind))

    def real(self, field: int, default: float = 0.0) -> float:
        """Reads a float32."""
        place = self._place(field)
        return default if place is None else _real(self._content, place)

    def text(self, field: int) -> str:
        """Reads a string; what is not UTF-8 is replaced."""
        place = self._place(field)
        if place is None:
            return ""
        start, length = self._vector(place, 1)
        return self._content[start : start + length].decode("utf-8", "replace")

    def table(self, field: int) -> "Table | None":
        """Reads another table."""
        place = self._place(field)
        return None if place is None else Table(self._content, self._follow(place))

    def tables(self, field: int) -> "list[Table]":
        """Reads a vector of tables."""
        place = self._place(field)
        if place is None:
            return []
        start, length = self._vector(place, 4)
        _check_length(length)
        return [
            Table(self._content, self._follow(start + 4 * index))
            for index in range(length)
        ]

    def numbers(self, field: int, dtype: str) -> NDArray[np.generic]:
        """Reads a vector of numbers; `dtype` is little-endian, for example `<i4`."""
        place = self._place(field)
        if place is None:
            return np.zeros(0, dtype)
        start, length = self._vector(place, np.dtype(dtype).itemsize)
        _check_length(length)
        return np.frombuffer(self._content, dtype, length, start)

    def data(self, field: int) -> memoryview:
        """Gives the bytes of a vector, without copying them."""
        place = self._place(field)
        if place is None:
            return memoryview(b"")
        start, length = self._vector(place, 1)
        return memoryview(self._content)[start : start + length]

    def _place(self, field: int) -> int | None:
        if field >= self._num_fields:
            return None
        offset = _number(self._content, self._virtual + 4 + 2 * field, "<H")
        return self._position + offset if offset else None

    def _follow(self, place: int) -> int:
        return place + _number(self._content, place, "<I")

    def _vector(self, place: int, item_bytes: int) -> tuple[int, int]:
        """Returns where a vector begins and how many items it has."""
        start = self._follow(place)
        length = _number(self._content, start, "<I")
        if start + 4 + length * item_bytes > len(self._content):
            raise ModelFileError(
                f"damaged: a list at byte {start} claims {length} entries and ends "
                "behind the file"
            )
        return start + 4, length


def root(content: bytes) -> Table:
    """Returns the table a FlatBuffer begins with."""
    return Table(content, _number(content, 0, "<I"))


def _number(content: bytes, position: int, kind: str) -> int:
    if not 0 <= position <= len(content) - struct.calcsize(kind):
        raise ModelFileError(f"damaged: it refers to byte {position} of {len(content)}")
    value: int = struct.unpack_from(kind, content, position)[0]
    return value


def _real(content: bytes, position: int) -> float:
    _number(content, position, "<I")
    value: float = struct.unpack_from("<f", content, position)[0]
    return value


def _check_length(length: int) -> None:
    if length > MAX_ITEMS:
        raise ModelFileError(
            f"damaged: a list of {length} entries; at most {MAX_ITEMS} make sense"
        )
