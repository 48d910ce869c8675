"""The index of a checkpoint: which variables it holds, of what shape, and where.

TensorFlow ends the whole process when an index declares an impossible shape, so the
index of a file from the net is read and checked here before TensorFlow sees it. That
also tells what a checkpoint holds without TensorFlow.

The file is a sorted string table of LevelDB's kind: blocks of prefix-compressed keys,
whose values are small protocol buffers (`BundleHeaderProto` under the empty key,
`BundleEntryProto` under all others).

References:
    tensorflow/core/protobuf/tensor_bundle.proto, tensorflow/core/lib/io/table.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deeplab2_edge.errors import CheckpointError

# The largest published one has 0.5 MB and 1700 keys, five times that with optimizer.
MAX_INDEX_BYTES = 64 * 2**20
MAX_ENTRIES = 200_000
MAX_TENSOR_BYTES = 8 * 2**30
_MAX_KEY = 4096
_MAX_RANK = 32
_MAX_SHARDS = 10_000
_MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
_FOOTER_BYTES = 48
_TRAILER_BYTES = 5  # compression type and checksum
_NOT_COMPRESSED = 0
# `DataType` of TensorFlow: name and bytes of an element; strings have any number.
_DTYPES = {
    1: ("float32", 4),
    2: ("float64", 8),
    3: ("int32", 4),
    4: ("uint8", 1),
    5: ("int16", 2),
    6: ("int8", 1),
    7: ("string", 0),
    8: ("complex64", 8),
    9: ("int64", 8),
    10: ("bool", 1),
    14: ("bfloat16", 2),
    17: ("uint16", 2),
    18: ("complex128", 16),
    19: ("float16", 2),
    22: ("uint32", 4),
    23: ("uint64", 8),
}


@dataclass(frozen=True)
class Entry:
    """Says what a checkpoint holds under one key.

    Attributes:
        dtype: Name of the type.
        shape: Of the tensor.
        shard: Number of the data file.
        offset: Byte where it begins there.
        size: Its bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int


def read_index(prefix: str, *, name: str | None = None) -> dict[str, Entry]:
    """Reads and checks the index of a checkpoint and the sizes of its data files.

    Args:
        prefix: Path of its files without `.index` and `.data-...`.
        name: What to call it, if that is not its prefix.

    Returns:
        Entries by key.

    Raises:
        CheckpointError: If the index is damaged or declares what cannot be, or a data
            file is missing or too short.
    """
    path = Path(f"{prefix}.index")
    name = name or prefix
    try:
        if path.stat().st_size > MAX_INDEX_BYTES:
            raise CheckpointError(
                f"{name}.index: has more than {MAX_INDEX_BYTES} bytes; the index of a "
                "checkpoint is small"
            )
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{name}.index: cannot be read ({error.strerror})"
        ) from None
    try:
        num_shards, entries = _parse(data)
    except (_DamagedError, IndexError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{name}.index: cannot be read as the index of a TensorFlow 2 checkpoint "
            f"({error}); was it copied or downloaded completely?"
        ) from None
    _check_data_files(prefix, name, num_shards, entries)
    return entries


def is_cut_off(prefix: str) -> bool:
    """Says whether an index ends too early: its last bytes are written last."""
    try:
        return not Path(f"{prefix}.index").read_bytes().endswith(_MAGIC)
    except OSError:
        return False


class _DamagedError(Exception):
    """Says what is wrong with an index."""


def _check_data_files(
    prefix: str, name: str, num_shards: int, entries: dict[str, Entry]
) -> None:
    suffixes = [f".data-{i:05d}-of-{num_shards:05d}" for i in range(num_shards)]
    stem = Path(prefix).name
    missing = [stem + s for s in suffixes if not Path(prefix + s).is_file()]
    if missing:
        shown = ", ".join(missing[:4]) + (" ..." if len(missing) > 4 else "")
        raise CheckpointError(
            f"{name}: {len(missing)} of its {num_shards} data files missing, "
            f"{shown}; put them beside {stem}.index"
        )
    ends = [0] * num_shards
    for entry in entries.values():
        ends[entry.shard] = max(ends[entry.shard], entry.offset + entry.size)
    for suffix, end in zip(suffixes, ends, strict=True):
        found = Path(prefix + suffix).stat().st_size
        if found < end:
            raise CheckpointError(
                f"{name}{suffix}: cut short, it has {found} bytes of {end}; copy or "
                "download it again"
            )


def _parse(data: bytes) -> tuple[int, dict[str, Entry]]:
    if len(data) < _FOOTER_BYTES or not data.endswith(_MAGIC):
        raise _DamagedError("its last bytes are not those of an index")
    footer = data[-_FOOTER_BYTES:]
    position = 0
    for _ in range(2):  # where another block lies, which is of no use here
        _, position = _varint(footer, position)
    blocks = _entries_of(_block(data, *_handle(footer, position)))
    num_shards = None
    entries: dict[str, Entry] = {}
    last_key, last_end = None, 0
    for _, value in blocks:
        offset, size = _handle(value, 0)
        if offset < last_end:
            raise _DamagedError("its blocks overlap")
        last_end = offset + size
        for key, content in _entries_of(_block(data, offset, size)):
            if last_key is not None and key <= last_key:
                raise _DamagedError("its keys are not sorted")
            if len(entries) > MAX_ENTRIES:
                raise _DamagedError(f"it has more than {MAX_ENTRIES} keys")
            last_key = key
            if key:
                entries[key.decode()] = _entry(key.decode(), content, num_shards or 0)
            else:
                num_shards = _first(content, 1)
    if num_shards is None or not 1 <= num_shards <= _MAX_SHARDS:
        raise _DamagedError(f"it names {num_shards or 0} data files")
    return num_shards, entries


def _block(data: bytes, offset: int, size: int) -> bytes:
    if offset + size + _TRAILER_BYTES > len(data) - _FOOTER_BYTES:
        raise _DamagedError("a block lies outside of it")
    if data[offset + size] != _NOT_COMPRESSED:
        raise _DamagedError("it is compressed")
    return data[offset : offset + size]


def _entries_of(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields key and value of the entries of a block."""
    num_restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 * (num_restarts + 1)
    if end < 0:
        raise _DamagedError("a block is too short")
    key, position = b"", 0
    while position < end:
        shared, position = _varint(block, position)
        added, position = _varint(block, position)
        length, position = _varint(block, position)
        if shared > len(key) or shared + added > _MAX_KEY:
            raise _DamagedError("a key is impossible")
        if position + added + length > end:
            raise _DamagedError("an entry is longer than its block")
        key = key[:shared] + block[position : position + added]
        position += added
        yield key, block[position : position + length]
        position += length


def _entry(key: str, content: bytes, num_shards: int) -> Entry:
    dtype, shard, offset, size = 0, 0, 0, 0
    shape: tuple[int, ...] = ()
    for number, value in _fields(content):
        if number == 2 and isinstance(value, bytes):
            shape = _shape(key, value)
        elif number == 7:
            raise _DamagedError(f"{key} is stored in slices, which is not supported")
        elif isinstance(value, int):
            dtype = value if number == 1 else dtype
            shard = value if number == 3 else shard
            offset = value if number == 4 else offset
            size = value if number == 5 else size
    if dtype not in _DTYPES:
        raise _DamagedError(f"{key} is of an unknown type, number {dtype}")
    name, item_bytes = _DTYPES[dtype]
    declared = math.prod(shape) * item_bytes
    if max(declared, size) > MAX_TENSOR_BYTES:
        raise _DamagedError(f"{key} declares a tensor of {max(declared, size)} bytes")
    if item_bytes and declared != size:
        raise _DamagedError(f"{key} has {size} bytes and a shape of {declared}")
    if shard >= num_shards:
        raise _DamagedError(f"{key} is in data file {shard} of {num_shards}")
    if offset >= 2**62:
        raise _DamagedError(f"{key} begins at byte {offset}")
    return Entry(name, shape, shard, offset, size)


def _shape(key: str, content: bytes) -> tuple[int, ...]:
    shape = []
    for number, value in _fields(content):
        if number == 3 and value:
            raise _DamagedError(f"{key} has no shape")
        if number == 2 and isinstance(value, bytes):
            shape.append(_first(value, 1))
    # A negative number reads as one of 64 bits.
    if len(shape) > _MAX_RANK or any(side >= 2**48 for side in shape):
        raise _DamagedError(f"{key} has an impossible shape")
    return tuple(shape)


def _first(content: bytes, wanted: int) -> int:
    """Returns an integer field of a protocol buffer, 0 if it is not there."""
    for number, value in _fields(content):
        if number == wanted and isinstance(value, int):
            return value
    return 0


def _fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yields number and value of the fields of a protocol buffer."""
    position = 0
    while position < len(content):
        tag, position = _varint(content, position)
        kind = tag & 7
        if kind == 0:
            value, position = _varint(content, position)
            yield tag >> 3, value
            continue
        if kind == 2:
            length, position = _varint(content, position)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise _DamagedError("an entry is damaged")
        if position + length > len(content):
            raise _DamagedError("an entry is cut short")
        yield tag >> 3, content[position : position + length]
        position += length


def _handle(data: bytes, position: int) -> tuple[int, int]:
    offset, position = _varint(data, position)
    size, _ = _varint(data, position)
    return offset, size


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Returns a number of 7 bits per byte and the position behind it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, position
    raise _DamagedError("a number is too long")
