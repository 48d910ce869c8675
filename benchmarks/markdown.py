"""Markdown, as the tables of all benchmarks need it."""

from collections.abc import Iterable, Sequence
from typing import Any


def section(*paragraphs: str) -> str:
    """Puts paragraphs and tables below each other."""
    return "\n\n".join(paragraphs)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Formats a table."""
    lines = [_line(columns), "|---" * len(columns) + "|", *map(_line, rows)]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"|{'|'.join(f' {cell} ' if cell else ' ' for cell in cells)}|"


def size(height_width: Sequence[int]) -> str:
    """Formats height and width."""
    return "x".join(map(str, height_width))


def megabytes(number: float) -> str:
    """Formats bytes as whole megabytes."""
    return f"{number / 1e6:.0f}"


def machine(document: dict[str, Any], *more: str) -> str:
    """Describes the machine of a result in one line.

    Args:
        document: Has an entry `machine`, of `describe_machine`.
        more: What else takes part.
    """
    found = document["machine"]
    versions = (f"{name} {version}" for name, version in found["versions"].items())
    return ", ".join(
        [
            found["board"] or found["cpu"],
            f"{found['usable_cores']} cores",
            f"{found['memory_bytes'] / 2**30:.0f} GiB",
            f"governor {found['governor'] or 'unknown'}",
            found["system"],
            f"Python {found['python']}",
            *versions,
            *more,
        ]
    )
