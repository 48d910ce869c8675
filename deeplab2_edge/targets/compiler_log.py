"""Reads what the Edge TPU compiler wrote, and compares it with a prediction.

The compiler prints a summary and, with `-s` or in the `.log` beside its output, a table
of ops:

    Operator                       Count      Status

    CONV_2D                        67         Mapped to Edge TPU
    ARG_MAX                        1          Operation not supported
"""

import dataclasses
import os
import re
from collections import Counter
from pathlib import Path

from deeplab2_edge.errors import DataError
from deeplab2_edge.targets.verdict import Check, Verdict

MAX_LOG_BYTES = 4 << 20
MAPPED = "Mapped to Edge TPU"

_ROW = re.compile(r"^\s*(\S+)\s+(\d{1,9})\s{2,}(\S.*?)\s*$")
_HEADER = re.compile(r"^\s*Operator\s+Count\s+Status\s*$")
_VERSION = re.compile(r"Edge TPU Compiler version (\S+)")
_NUMBERS = {
    "num_on_tpu": r"operations that will run on Edge TPU: (\d{1,9})",
    "num_on_cpu": r"operations that will run on CPU: (\d{1,9})",
    "num_subgraphs": r"Number of Edge TPU subgraphs: (\d{1,9})",
}
_SIZES = {
    "cached_bytes": r"On-chip memory used for caching model parameters: ",
    "remaining_bytes": r"On-chip memory remaining for caching model parameters: ",
    "streamed_bytes": r"Off-chip memory used for streaming uncached model parameters: ",
}
_SIZE = r"([\d.]{1,20})\s*([KMG]?i?B)"
_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_ERROR = re.compile(
    r"^.*(Internal compiler error|Compilation failed|Model not quantized|Invalid model"
    r"|could not be compiled|did not complete within).*$",
    re.IGNORECASE | re.MULTILINE,
)


@dataclasses.dataclass(frozen=True)
class LogRow:
    """Is a row of the table: so many ops of a kind, and what became of them."""

    op: str
    count: int
    status: str

    @property
    def is_mapped(self) -> bool:
        """Whether they run on the Edge TPU."""
        return self.status == MAPPED


@dataclasses.dataclass(frozen=True)
class CompilerLog:
    """Is what the compiler told; None where it did not.

    Attributes:
        version: Of the compiler.
        rows: Of the table of ops.
        num_on_tpu: Ops on the Edge TPU.
        num_on_cpu: Ops on the CPU.
        num_subgraphs: Partitions.
        cached_bytes: Parameters kept on the chip.
        remaining_bytes: Room left for them.
        streamed_bytes: Parameters sent again for every image.
        errors: Lines that say why it gave up.
    """

    version: str | None
    rows: tuple[LogRow, ...]
    num_on_tpu: int | None = None
    num_on_cpu: int | None = None
    num_subgraphs: int | None = None
    cached_bytes: int | None = None
    remaining_bytes: int | None = None
    streamed_bytes: int | None = None
    errors: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Difference:
    """Is a kind of op of which prediction and compiler disagree.

    Attributes:
        op: Its name.
        predicted: How many were predicted to map.
        possible: How many more might.
        mapped: How many did.
        statuses: What the compiler says of the others.
    """

    op: str
    predicted: int
    possible: int
    mapped: int
    statuses: tuple[str, ...]


def read_compiler_log(path: str | os.PathLike[str]) -> CompilerLog:
    """Reads a log.

    Raises:
        DataError: If there is no such file, it is too large or no log of the compiler.
    """
    source = Path(path)
    try:
        with source.open("rb") as stream:
            content = stream.read(MAX_LOG_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"{source}: cannot be read ({reason}); give the .log that "
            "edgetpu_compiler wrote, or what it printed"
        ) from None
    if len(content) > MAX_LOG_BYTES:
        raise DataError(f"{source}: a log has at most {MAX_LOG_BYTES} bytes")
    log = parse_compiler_log(content.decode("utf-8", "replace"))
    if not log.rows and not log.errors:
        raise DataError(
            f"{source}: no table with the columns Operator, Count and Status; give the "
            ".log that edgetpu_compiler wrote, or what it printed with -s"
        )
    return log


def parse_compiler_log(text: str) -> CompilerLog:
    """Reads what it can from a log; lines that say something else are passed over."""
    rows: list[LogRow] = []
    is_table = False
    for line in text.splitlines():
        if _HEADER.match(line):
            is_table, rows = True, []  # the last of several tables counts
            continue
        row = _ROW.match(line) if is_table else None
        if row is not None:
            rows.append(LogRow(row[1], int(row[2]), row[3]))
        elif line.strip():
            is_table = False
    numbers = {
        name: int(found[1]) if (found := re.search(pattern, text)) else None
        for name, pattern in _NUMBERS.items()
    }
    sizes = {
        name: _bytes(found[1], found[2])
        if (found := re.search(pattern + _SIZE, text))
        else None
        for name, pattern in _SIZES.items()
    }
    if rows and numbers["num_on_tpu"] is None:  # the .log has the table alone
        numbers["num_on_tpu"] = sum(row.count for row in rows if row.is_mapped)
        numbers["num_on_cpu"] = sum(row.count for row in rows if not row.is_mapped)
    version = _VERSION.search(text)
    return CompilerLog(
        version=version[1] if version else None,
        rows=tuple(rows),
        errors=tuple(match[0].strip() for match in _ERROR.finditer(text)),
        **numbers,
        **sizes,
    )


def compare(check: Check, log: CompilerLog) -> list[Difference]:
    """Finds the kinds of ops of which prediction and compiler disagree.

    An op of unknown fate agrees with either. Ops of the log that the network does not
    have, and the other way round, count too: then the log is of another file.
    """
    predicted: Counter[str] = Counter()
    possible: Counter[str] = Counter()
    for judged in check.ops:
        predicted[judged.op.name] += judged.verdict is Verdict.MAPS
        possible[judged.op.name] += judged.verdict in (
            Verdict.UNKNOWN,
            Verdict.DEPENDS,
        )
    mapped: Counter[str] = Counter()
    statuses: dict[str, list[str]] = {}
    for row in log.rows:
        mapped[row.op] += row.count if row.is_mapped else 0
        if not row.is_mapped:
            statuses.setdefault(row.op, []).append(f"{row.count} {row.status}")
    return [
        Difference(
            op,
            predicted[op],
            possible[op],
            mapped[op],
            tuple(statuses.get(op, ())),
        )
        for op in sorted(set(predicted) | set(mapped) | set(statuses))
        if not predicted[op] <= mapped[op] <= predicted[op] + possible[op]
    ]


def is_of_same_network(check: Check, log: CompilerLog) -> bool:
    """Tells whether a log counts the ops that the network has."""
    counts = Counter(judged.op.name for judged in check.ops)
    told: Counter[str] = Counter()
    for row in log.rows:
        told[row.op] += row.count
    return counts == told


def _bytes(number: str, unit: str) -> int | None:
    try:
        return round(float(number) * _UNITS.get(unit, 1))
    except ValueError:
        return None
