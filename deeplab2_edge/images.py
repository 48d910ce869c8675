"""Image files: read with care, written whole or not at all.

Image files come from strangers. Nothing is decoded before the file's own header
has been read here: format, declared size and structure. So a "bomb" that declares
a billion pixels costs nothing, and a file cut short is refused, where decoders
would fill the rest with grey.
"""

import os
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import DataError
from deeplab2_edge.files import atomic_write

MAX_FILE_BYTES = 256 * 1024 * 1024
MAX_PIXELS = 100_000_000
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # color type -> channels
_PNG_PALETTE = 3
_EXIF_ORIENTATION_TAG = 0x0112
# Start-of-frame markers of JPEG; C4, C8 and CC in that range mean other things.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_START, _JPEG_END, _JPEG_SCAN, _JPEG_APP1 = 0xD8, 0xD9, 0xDA, 0xE1
# In a scan FF 00 is a data byte, FF D0..D7 restart the decoder and FF FF is filler.
_JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")


@dataclass(frozen=True)
class ImageHeader:
    """Holds what an image file says about itself before anything is decoded.

    Attributes:
        format: `"png"`, `"jpeg"`, `"webp"` or `"bmp"`.
        width: Stored columns, before the orientation is applied.
        height: Stored rows, before the orientation is applied.
        channels: Stored values per pixel; 1 also for a palette PNG, 0 if the
            header of the format does not say (WebP).
        bit_depth: Bits per value.
        orientation: EXIF orientation, 1 (upright) to 8.
        has_palette: The values of a PNG are indices into a color table.
    """

    format: str
    width: int
    height: int
    channels: int
    bit_depth: int
    orientation: int = 1
    has_palette: bool = False

    @property
    def is_plain_rgb(self) -> bool:
        """Says that the pixels are upright 8-bit RGB as stored."""
        return (self.channels, self.bit_depth, self.orientation) == (3, 8, 1)

    @property
    def upright_size(self) -> tuple[int, int]:
        """Height and width of the picture as a viewer shows it."""
        if self.orientation >= 5:  # 5 to 8 lie on their side
            return self.width, self.height
        return self.height, self.width


def read_image(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Reads a photo as `[H, W, 3]` RGB, upright as its EXIF orientation says.

    Grey images are repeated over the channels, alpha is dropped and 16-bit values
    keep their upper 8 bits.

    Raises:
        DataError: If the file is missing, too large, no PNG, JPEG, WebP or BMP,
            cut short or damaged. The message names the file.

    Example:
        >>> read_image("street.jpg").shape  # doctest: +SKIP
        (1024, 2048, 3)
    """
    return decode_image(read_file(path), where=str(path))


def decode_image(data: bytes, *, where: str) -> NDArray[np.uint8]:
    """Decodes the bytes of an image file as `read_image` does.

    Args:
        data: A whole image file.
        where: Its name for error messages.

    Raises:
        DataError: As `read_image`.
    """
    header = read_header(data, where=where)
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = _decode(data, flags, header, where)
    return _orient(np.asarray(image[..., ::-1], np.uint8), header.orientation)


def read_label_png(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Reads a PNG that holds numbers instead of colors, exactly as stored.

    Returns:
        `[H, W]` uint8 for grey PNGs of up to 8 bits and palette PNGs (the indices,
        not the colors), `[H, W]` uint16 for 16-bit grey, `[H, W, 3]` uint8 for RGB.

    Raises:
        DataError: If the file is no PNG, is damaged or has another mode.
    """
    return decode_label_png(read_file(path), where=str(path))


def decode_label_png(data: bytes, *, where: str) -> NDArray[Any]:
    """Decodes the bytes of a label PNG as `read_label_png` does.

    Raises:
        DataError: As `read_label_png`.
    """
    header = read_header(data, where=where)
    if header.format != "png":
        raise DataError(
            f"{where}: labels must be PNG files, found {header.format}; "
            "a lossy format destroys class numbers"
        )
    mode = (header.channels, header.bit_depth)
    if mode not in ((1, 1), (1, 2), (1, 4), (1, 8), (1, 16), (3, 8)):
        raise DataError(
            f"{where}: a PNG of {header.channels} channels with {header.bit_depth} "
            "bits cannot hold labels; save it as 8-bit grey (class), 16-bit grey "
            "(class * divisor + instance) or 8-bit RGB without alpha"
        )
    if header.has_palette:
        data = _palette_to_grey(data)
    label = _decode(data, cv2.IMREAD_UNCHANGED, header, where)
    if header.channels == 3:
        return np.ascontiguousarray(label[..., ::-1])
    if header.bit_depth < 8:  # the decoder stretches low depths to 0..255
        return label // np.uint8(255 // (2**header.bit_depth - 1))
    return label


def list_images(folder: Path) -> dict[str, Path]:
    """Lists images below a folder: name without suffix -> path, sorted.

    Hidden files and folders are passed over.

    Raises:
        DataError: If there are none, or two that differ by their suffix only.
    """
    images: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        is_hidden = any(part.startswith(".") for part in relative.parts)
        if is_hidden or path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        name = relative.with_suffix("").as_posix()
        if name in images:
            raise DataError(
                f"{path}: {images[name].name} has the same name; two images of one "
                "name cannot be told apart, rename one"
            )
        images[name] = path
    if not images:
        suffixes = ", ".join(IMAGE_SUFFIXES)
        raise DataError(f"{folder}: holds no images ({suffixes})")
    return dict(sorted(images.items()))


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Reads a whole image file of at most `MAX_FILE_BYTES`.

    Raises:
        DataError: If it is missing, unreadable, empty or larger.
    """
    try:
        size = os.stat(path).st_size
        if size > MAX_FILE_BYTES:
            raise DataError(
                f"{path}: the file has {size} bytes; images may have at most "
                f"{MAX_FILE_BYTES}"
            )
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if not data:
        raise DataError(f"{path}: the file is empty; copy or export it again")
    return data


def read_header(data: bytes, *, where: str) -> ImageHeader:
    """Reads the header of an image file and checks that the file is whole.

    For PNG every chunk's checksum is verified; for JPEG the segments are walked to
    the end-of-image marker; for WebP and BMP the declared length is compared.

    Args:
        data: A whole image file.
        where: Its name for error messages.

    Raises:
        DataError: If the format is unknown, the file is cut short or damaged, or
            more than `MAX_PIXELS` pixels are declared.
    """
    try:
        if data.startswith(_PNG_SIGNATURE):
            header = _read_png_header(data)
        elif data.startswith(b"\xff\xd8\xff"):
            header = _read_jpeg_header(data)
        elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            header = _read_webp_header(data)
        elif data.startswith(b"BM"):
            header = _read_bmp_header(data)
        else:
            raise DataError(f"{where}: not a PNG, JPEG, WebP or BMP image")
    except (_Damaged, struct.error, IndexError) as error:
        reason = str(error) if isinstance(error, _Damaged) else "it is cut short"
        raise DataError(
            f"{where}: the image is damaged ({reason}); copy or export it again"
        ) from None
    if header.width < 1 or header.height < 1:
        raise DataError(f"{where}: the image declares no pixels")
    if header.width * header.height > MAX_PIXELS:
        raise DataError(
            f"{where}: the image declares {header.width}x{header.height} pixels; "
            f"at most {MAX_PIXELS} are accepted, scale it down"
        )
    return header


def encode_png(array: NDArray[Any]) -> bytes:
    """Encodes `[H, W]` uint8 or uint16, or `[H, W, 3]` uint8 RGB, as PNG."""
    return _encode(array, ".png", [])


def encode_jpeg(image: NDArray[np.uint8], *, quality: int = 95) -> bytes:
    """Encodes `[H, W, 3]` RGB or `[H, W]` grey as JPEG."""
    return _encode(image, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, quality])


def write_png(path: str | os.PathLike[str], array: NDArray[Any]) -> None:
    """Writes `[H, W]` uint8 or uint16, or `[H, W, 3]` uint8 RGB, as a PNG file.

    Raises:
        OutputError: If the file cannot be written.
    """
    _write(path, encode_png(array))


def write_jpeg(
    path: str | os.PathLike[str], image: NDArray[np.uint8], *, quality: int = 95
) -> None:
    """Writes `[H, W, 3]` RGB or `[H, W]` grey as a JPEG file.

    Raises:
        OutputError: If the file cannot be written.
    """
    _write(path, encode_jpeg(image, quality=quality))


class _Damaged(Exception):
    """Carries the reason why a file's structure is wrong."""


def _decode(data: bytes, flags: int, header: ImageHeader, where: str) -> NDArray[Any]:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None or image.shape[:2] != (header.height, header.width):
        raise DataError(f"{where}: the image is damaged and cannot be decoded")
    return np.asarray(image)


def _encode(array: NDArray[Any], suffix: str, parameters: list[int]) -> bytes:
    if array.ndim == 3:
        array = array[..., ::-1]
    is_encoded, data = cv2.imencode(suffix, np.ascontiguousarray(array), parameters)
    if not is_encoded:
        raise ValueError(f"cannot encode {array.shape} {array.dtype} as {suffix}")
    return bytes(data.tobytes())


def _write(path: str | os.PathLike[str], data: bytes) -> None:
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields kind and content of each chunk up to the end chunk, checksums verified."""
    position = len(_PNG_SIGNATURE)
    while True:
        length, kind = struct.unpack_from(">I4s", data, position)
        content = data[position + 8 : position + 8 + length]
        (checksum,) = struct.unpack_from(">I", data, position + 8 + length)
        if zlib.crc32(content, zlib.crc32(kind)) != checksum:
            raise _Damaged(f"wrong checksum in chunk {kind!r}")
        yield kind, content
        if kind == b"IEND":
            return
        position += 12 + length


def _read_png_header(data: bytes) -> ImageHeader:
    chunks = _png_chunks(data)
    kind, content = next(chunks)
    if kind != b"IHDR":
        raise _Damaged("the header chunk is missing")
    width, height, depth, color_type = struct.unpack_from(">IIBB", content)
    if color_type not in _PNG_CHANNELS:
        raise _Damaged(f"unknown color type {color_type}")
    orientation = 1
    for kind, content in chunks:
        if kind == b"eXIf":
            orientation = _exif_orientation(content)
    return ImageHeader(
        format="png",
        width=width,
        height=height,
        channels=_PNG_CHANNELS[color_type],
        bit_depth=depth,
        orientation=orientation,
        has_palette=color_type == _PNG_PALETTE,
    )


def _palette_to_grey(data: bytes) -> bytes:
    """Relabels a palette PNG as grey, so that decoding gives the indices.

    The pixel data of both modes is the same; OpenCV only offers the colors.
    """
    parts = [_PNG_SIGNATURE]
    for kind, content in _png_chunks(data):
        if kind in (b"PLTE", b"tRNS"):
            continue
        if kind == b"IHDR":
            content = content[:9] + b"\x00" + content[10:]
        checksum = zlib.crc32(content, zlib.crc32(kind))
        parts += [struct.pack(">I", len(content)), kind, content]
        parts.append(struct.pack(">I", checksum))
    return b"".join(parts)


def _read_jpeg_header(data: bytes) -> ImageHeader:
    frame: tuple[int, int, int, int] | None = None
    orientation = 1
    position = 2
    while True:
        while data[position] == 0xFF and data[position + 1] == 0xFF:  # filler
            position += 1
        lead, marker = data[position], data[position + 1]
        if lead != 0xFF:
            raise _Damaged("a segment does not start with a marker")
        if marker == _JPEG_END:
            break
        (length,) = struct.unpack_from(">H", data, position + 2)
        content = data[position + 4 : position + 2 + length]
        if marker in _JPEG_FRAMES and frame is None:
            frame = struct.unpack_from(">BHHB", content)
        elif marker == _JPEG_APP1 and content.startswith(b"Exif\x00\x00"):
            orientation = _exif_orientation(content[6:])
        position += 2 + length
        if marker == _JPEG_SCAN:
            match = _JPEG_MARKER.search(data, position)
            if match is None:
                raise _Damaged("it is cut short: the end marker is missing")
            position = match.start()
    if frame is None:
        raise _Damaged("it holds no picture")
    depth, height, width, channels = frame
    return ImageHeader("jpeg", width, height, channels, depth, orientation)


def _read_webp_header(data: bytes) -> ImageHeader:
    (length,) = struct.unpack_from("<I", data, 4)
    if length + 8 > len(data):
        raise _Damaged("it is cut short")
    kind = data[12:16]
    if kind == b"VP8X":
        width = 1 + int.from_bytes(data[24:27], "little")
        height = 1 + int.from_bytes(data[27:30], "little")
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    else:
        raise _Damaged(f"unknown WebP chunk {kind!r}")
    orientation = 1
    position = 12
    while kind == b"VP8X" and position + 8 <= len(data):
        chunk, size = struct.unpack_from("<4sI", data, position)
        if chunk == b"EXIF":
            content = data[position + 8 : position + 8 + size]
            orientation = _exif_orientation(content.removeprefix(b"Exif\x00\x00"))
        position += 8 + size + size % 2
    return ImageHeader("webp", width, height, 0, 8, orientation)


def _read_bmp_header(data: bytes) -> ImageHeader:
    offset, _, width, height, _, bits, compression = struct.unpack_from(
        "<IIiiHHI", data, 10
    )
    height = abs(height)  # negative: rows run from the top
    row_bytes = (width * bits + 31) // 32 * 4
    if compression == 0 and offset + row_bytes * height > len(data):
        raise _Damaged("it is cut short")
    return ImageHeader("bmp", width, height, max(bits // 8, 1), min(bits, 8))


def _exif_orientation(exif: bytes) -> int:
    """Returns the orientation of an EXIF block, 1 if it is absent or nonsense."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    try:
        if order is None:
            return 1
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
        for index in range(count):
            entry = start + 2 + 12 * index
            tag, _, _, value = struct.unpack_from(order + "HHIH", exif, entry)
            if tag == _EXIF_ORIENTATION_TAG:
                return value if 1 <= value <= 8 else 1
    except (struct.error, OverflowError):  # the latter of offsets, on 32 bits
        pass  # a broken EXIF block says nothing about the pixels
    return 1


def _orient(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turns stored pixels upright (EXIF 2.3, tag 0x0112)."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)
