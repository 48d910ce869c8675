"""Writes checkpoint indexes by hand, sound ones and impossible ones."""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

FLOAT = 1
_MAGIC = 0xDB4775248B80FB57


def varint(number: int) -> bytes:
    """Writes a number of 7 bits per byte; a negative one as 64 bits."""
    number &= 2**64 - 1
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def number_field(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def bytes_field(number: int, value: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(value)) + value


def entry(
    shape: Sequence[int],
    *,
    size: int | None = None,
    dtype: int = FLOAT,
    shard: int = 0,
    offset: int = 0,
    extra: bytes = b"",
) -> bytes:
    """Writes a `BundleEntryProto`."""
    if size is None:
        size = 4
        for side in shape:
            size *= side
    sides = b"".join(bytes_field(2, number_field(1, side)) for side in shape)
    return (
        number_field(1, dtype)
        + bytes_field(2, sides)
        + number_field(3, shard)
        + number_field(4, offset)
        + number_field(5, size)
        + extra
    )


def header(num_shards: int = 1) -> bytes:
    """Writes a `BundleHeaderProto`."""
    return number_field(1, num_shards)


def block(entries: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Writes a block and its trailer, without a true checksum."""
    data = b"".join(
        varint(0) + varint(len(key)) + varint(len(value)) + key + value
        for key, value in entries
    )
    return data + struct.pack("<II", 0, 1) + bytes(5)


def table(*blocks: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Writes a table of blocks of sorted entries."""
    data, handles = b"", []
    for entries in blocks:
        written = block(entries)
        place = varint(len(data)) + varint(len(written) - 5)
        handles.append((entries[-1][0], place))
        data += written
    return finish(data, handles)


def finish(data: bytes, handles: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Ends a table with the block of handles and the footer."""
    index = block(handles)
    footer = varint(0) * 2 + varint(len(data)) + varint(len(index) - 5)
    return data + index + footer.ljust(40, b"\0") + struct.pack("<Q", _MAGIC)


def write_checkpoint(
    prefix: Path,
    entries: Mapping[str, bytes],
    *,
    num_shards: int = 1,
    data_bytes: int = 4096,
) -> str:
    """Writes a checkpoint of zeros with the given entries."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    rows = [(b"", header(num_shards))]
    rows += sorted((key.encode(), value) for key, value in entries.items())
    Path(f"{prefix}.index").write_bytes(table(rows))
    for shard in range(num_shards):
        name = f"{prefix}.data-{shard:05d}-of-{num_shards:05d}"
        Path(name).write_bytes(bytes(data_bytes))
    return str(prefix)
