"""Ways to damage a file, each drawn from a number."""

import dataclasses
import hashlib
import json
import struct
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

from deeplab2_edge.errors import ModelFileError
from deeplab2_edge.model_file import ModelFile
from deeplab2_edge.model_file.container import join_file

Draw = Random

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def flip_bits(data: bytearray, draw: Draw) -> None:
    """Turns single bits, as bad memory does."""
    for _ in range(draw.choice((1, 1, 1, 2, 4, 8))):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def set_bytes(data: bytearray, draw: Draw) -> None:
    """Writes bytes that matter: ends of ranges, and any."""
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        value = draw.choice((0, 1, 2, 127, 128, 255, draw.randrange(256)))
        data[draw.randrange(len(data))] = value


def cut_off(data: bytearray, draw: Draw) -> None:
    """Ends early, as a copy that was broken off."""
    del data[draw.randrange(len(data)) :]


def take_out(data: bytearray, draw: Draw) -> None:
    """Loses a piece."""
    start = draw.randrange(len(data))
    del data[start : start + draw.choice((1, 4, 16, 64, 512))]


def put_in(data: bytearray, draw: Draw) -> None:
    """Gains a piece."""
    start = draw.randrange(len(data))
    data[start:start] = draw.randbytes(draw.choice((1, 4, 16, 64)))


def empty_block(data: bytearray, draw: Draw) -> None:
    """Loses what stands in a block, as bad disks do."""
    size = draw.choice((16, 64, 512))
    start = draw.randrange(len(data)) // size * size
    end = min(start + size, len(data))
    data[start:end] = bytes(end - start)


def copy_block(data: bytearray, draw: Draw) -> None:
    """Writes one part of the file over another."""
    size = draw.choice((2, 4, 8, 32, 128))
    source, target = (draw.randrange(max(len(data) - size, 1)) for _ in range(2))
    data[target : target + size] = data[source : source + size]


def change_number(data: bytearray, draw: Draw) -> None:
    """Changes what looks like an offset, an index, a length or a side."""
    for _ in range(draw.choice((1, 1, 2))):
        for _ in range(50):
            place = draw.randrange(max(len(data) - 4, 4)) // 4 * 4
            (value,) = struct.unpack_from("<I", data, place)
            if 0 < value < len(data):
                break
        step = draw.choice((-64, -8, -4, -2, -1, 1, 2, 4, 8, 64))
        new = draw.choice(
            (value + step, value + step, 0, 1, value * 2, 1 << 16, 1 << 30, 0xFFFFFFFF)
        )
        struct.pack_into("<I", data, place, new & 0xFFFFFFFF)


def change_field(data: bytearray, draw: Draw) -> None:
    """Changes what looks like an entry of a list of fields (a vtable)."""
    for _ in range(50):
        place = draw.randrange(max(len(data) - 2, 2)) // 2 * 2
        (value,) = struct.unpack_from("<H", data, place)
        if 0 < value < 64 and value % 2 == 0:
            break
    new = draw.choice((0, 2, 4, 6, 8, 12, 16, value + 4, value + 2, 60, 0xFFFF))
    struct.pack_into("<H", data, place, new)


DAMAGES: tuple[Callable[[bytearray, Draw], None], ...] = (
    flip_bits,
    set_bytes,
    cut_off,
    take_out,
    put_in,
    empty_block,
    copy_block,
    change_number,
    change_field,
)


def damaged(content: bytes, draw: Draw) -> tuple[str, bytes]:
    """Damages a whole file; no digest is written anew."""
    while True:
        damage = draw.choice(DAMAGES)
        data = bytearray(content)
        damage(data, draw)
        if data != content:
            return damage.__name__, bytes(data)


def resealed(model: ModelFile, draw: Draw) -> tuple[str, bytes]:
    """Damages the graph and writes a digest that fits, as only a person would."""
    while True:
        name, graph = damaged(model.graph, draw)
        metadata = dataclasses.replace(
            model.metadata, graph_sha256=hashlib.sha256(graph).hexdigest()
        )
        try:
            return name, join_file(
                model.format, graph, metadata.to_json(), model.golden
            )
        except ModelFileError:
            continue  # no ONNX model any more


def with_other_metadata(model: ModelFile, draw: Draw) -> tuple[str, bytes]:
    """Changes a field of the metadata; checksums fit."""
    document = json.loads(model.metadata.to_json())
    field = _change(document, draw)
    return field, join_file(
        model.format, model.graph, json.dumps(document), model.golden
    )


def damaged_image(content: bytes, draw: Draw) -> tuple[str, bytes]:
    """Damages an image file; chunks of a PNG may get checksums that fit."""
    if content.startswith(_PNG_SIGNATURE) and draw.random() < 0.7:
        return _resealed_png(content, draw)
    return damaged(content, draw)


def _resealed_png(content: bytes, draw: Draw) -> tuple[str, bytes]:
    chunks = []
    position = len(_PNG_SIGNATURE)
    while position < len(content):
        length, kind = struct.unpack_from(">I4s", content, position)
        chunks.append((kind, content[position + 8 : position + 8 + length]))
        position += 12 + length
    number = draw.choice([i for i, (_, body) in enumerate(chunks) if body])
    kind, body = chunks[number]
    damage, body = damaged(body, draw)
    chunks[number] = kind, body
    parts = [_PNG_SIGNATURE]
    for kind, body in chunks:
        checksum = zlib.crc32(body, zlib.crc32(kind))
        parts += [struct.pack(">I", len(body)), kind, body, struct.pack(">I", checksum)]
    return f"{damage} in {kind.decode()}", b"".join(parts)


def _change(document: Any, draw: Draw) -> str:
    path, node = "", document
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = draw.choice(keys)
        path += f".{key}"
        if isinstance(node[key], dict | list) and node[key] and draw.random() < 0.9:
            node = node[key]
            continue
        node[key] = draw.choice(
            (None, 0, 1, -1, 2, 3, 1e308, 1 << 31, 1 << 40, "", "image", [], {}, True)
        )
        if draw.random() < 0.2:
            del node[key]
        return path
