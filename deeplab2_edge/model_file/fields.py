"""Typed fields of a JSON document that anybody may have written."""

from collections.abc import Callable
from typing import Any, TypeVar

from deeplab2_edge.errors import ModelFileError

_T = TypeVar("_T")


class Fields:
    """Reads typed fields of a JSON object and names the field that is wrong.

    Args:
        document: What the JSON reader gave.
        source: Name of the document.
        prefix: Of its fields.

    Raises:
        ModelFileError: If it is no object.
    """

    def __init__(self, document: object, source: str, prefix: str = "") -> None:
        if not isinstance(document, dict):
            raise ModelFileError(f"{prefix or source} must be a JSON object")
        self._document = document
        self._source = source
        self._prefix = prefix

    def get(self, name: str, parse: Callable[[Any], _T]) -> _T:
        """Returns what a parser of this module makes of a field.

        Raises:
            ModelFileError: If it is missing or of another type.
        """
        field = self._path(name)
        if name not in self._document:
            raise ModelFileError(f"{self._source}: {field} is missing")
        value = self._document[name]
        try:
            return parse(value)
        except (TypeError, ValueError, OverflowError):
            wanted = parse.__name__.replace("_", " ")
            raise ModelFileError(
                f"{self._source}: {field} is {str(value)[:80]!r}, not {wanted}"
            ) from None

    def section(self, name: str) -> "Fields":
        """Returns a field that is an object."""
        return Fields(self.get(name, mapping), self._source, self._path(name))

    def optional_section(self, name: str) -> "Fields | None":
        """Returns a field that is an object or null."""
        value = self.get(name, mapping_or_none)
        return None if value is None else Fields(value, self._source, self._path(name))

    def sections(self) -> "dict[str, Fields]":
        """Returns all fields, each an object."""
        return {name: self.section(name) for name in self._document}

    def _path(self, name: str) -> str:
        return f"{self._prefix}.{name}" if self._prefix else name


def text(value: Any) -> str:
    """Takes a string."""
    if not isinstance(value, str):
        raise TypeError
    return value


def integer(value: Any) -> int:
    """Takes an integer of 32 bits."""
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 1 << 31:
        raise TypeError
    return value


def number(value: Any) -> float:
    """Takes a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return float(value)


def truth(value: Any) -> bool:
    """Takes true or false."""
    if not isinstance(value, bool):
        raise TypeError
    return value


def mapping(value: Any) -> dict[str, Any]:
    """Takes an object."""
    if not isinstance(value, dict):
        raise TypeError
    return value


def mapping_or_none(value: Any) -> dict[str, Any] | None:
    """Takes an object or null."""
    return None if value is None else mapping(value)


def texts(value: Any) -> tuple[str, ...]:
    """Takes a list of strings."""
    return tuple(text(entry) for entry in _items(value))


def integers(value: Any) -> tuple[int, ...]:
    """Takes a list of integers."""
    return tuple(integer(entry) for entry in _items(value))


def pair(value: Any) -> tuple[int, int]:
    """Takes two integers."""
    height, width = integers(value)
    return height, width


def pair_or_none(value: Any) -> tuple[int, int] | None:
    """Takes two integers or null."""
    return None if value is None else pair(value)


def range_of_numbers(value: Any) -> tuple[float, float]:
    """Takes two numbers."""
    low, high = (number(entry) for entry in _items(value))
    return low, high


def rgb_colors(value: Any) -> tuple[tuple[int, int, int], ...]:
    """Takes a list of three integers each."""
    colors = [integers(entry) for entry in _items(value)]
    return tuple((red, green, blue) for red, green, blue in colors)


def _items(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError
    return value
