"""Image files are read exactly, upright, and never trusted."""

import os
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from deeplab2_edge import images
from deeplab2_edge.errors import DataError, OutputError

ENCODINGS = (".png", ".jpg", ".webp", ".bmp")


def picture(height: int = 20, width: int = 31) -> NDArray[np.uint8]:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 3), np.uint8)


def encoded(suffix: str) -> bytes:
    return bytes(cv2.imencode(suffix, picture()[..., ::-1])[1].tobytes())


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(content, zlib.crc32(kind))
    return (
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)
    )


def png(
    rows: list[bytes], width: int, depth: int, color_type: int, extra: bytes = b""
) -> bytes:
    """Builds a PNG by hand, for modes that OpenCV does not write."""
    header = struct.pack(">IIBBBBB", width, len(rows), depth, color_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\x00" + row for row in rows))
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + extra
        + png_chunk(b"IDAT", pixels)
        + png_chunk(b"IEND", b"")
    )


def exif(orientation: int, order: str) -> bytes:
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    return mark + struct.pack(order + "IH", 8, 1) + entry + b"\0\0\0\0"


def jpeg_with_exif(block: bytes) -> bytes:
    data = encoded(".jpg")
    content = b"Exif\0\0" + block
    segment = b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content
    return data[:2] + segment + data[2:]


@pytest.mark.parametrize("suffix", [".png", ".bmp"])
def test_lossless_images_come_back_as_rgb(suffix: str) -> None:
    decoded = images.decode_image(encoded(suffix), where="x")
    np.testing.assert_array_equal(decoded, picture())


@pytest.mark.parametrize("suffix", ENCODINGS)
def test_header_tells_the_size_without_decoding(suffix: str) -> None:
    header = images.read_header(encoded(suffix), where="x")
    assert (header.height, header.width) == (20, 31)
    assert header.bit_depth == 8


@pytest.mark.parametrize("suffix", ENCODINGS)
def test_files_cut_anywhere_are_refused(suffix: str) -> None:
    data = encoded(suffix)
    for length in range(1, len(data), 7):
        with pytest.raises(DataError, match="cut.png"):
            images.decode_image(data[:length], where="cut.png")


def test_jpeg_cut_in_its_last_rows_is_refused() -> None:
    # Some decoders fill the rest with grey and say nothing.
    with pytest.raises(DataError, match="end marker is missing"):
        images.decode_image(encoded(".jpg")[:-2], where="photo.jpg")


def test_progressive_jpeg_is_read() -> None:
    parameters = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    data = cv2.imencode(".jpg", picture(), parameters)[1].tobytes()
    assert images.decode_image(data, where="x").shape == (20, 31, 3)
    with pytest.raises(DataError):
        images.decode_image(data[: len(data) * 3 // 4], where="x")


def test_jpeg_with_bytes_after_its_end_is_read() -> None:
    data = encoded(".jpg") + b"\0" * 100  # cameras append previews
    assert images.decode_image(data, where="x").shape == (20, 31, 3)


def test_png_with_a_flipped_bit_is_refused() -> None:
    data = bytearray(encoded(".png"))
    data[len(data) // 2] ^= 1
    with pytest.raises(DataError, match="checksum"):
        images.decode_image(bytes(data), where="x")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, order: str) -> None:
    data = jpeg_with_exif(exif(orientation, order))
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    decoded = images.decode_image(data, where="x")
    np.testing.assert_array_equal(decoded, expected[..., ::-1])
    header = images.read_header(data, where="x")
    assert header.upright_size == decoded.shape[:2]
    assert header.is_plain_rgb == (orientation == 1)


@pytest.mark.parametrize("block", [b"", b"II*\0\xff\xff\xff\xff", exif(77, "<")])
def test_nonsense_in_exif_means_upright(block: bytes) -> None:
    data = jpeg_with_exif(block)
    assert images.read_header(data, where="x").orientation == 1


@pytest.mark.parametrize(
    "data",
    [
        png([], 1, 8, 2).replace(
            struct.pack(">IIBB", 1, 0, 8, 2), struct.pack(">IIBB", 60_000, 60_000, 8, 2)
        ),
        b"BM" + struct.pack("<IIIIiiHHI", 0, 0, 54, 40, 60_000, 60_000, 1, 24, 1),
        b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<II", 10, 0)
        + b"\xff\xff\xff" * 2,
    ],
    ids=["png", "bmp", "webp"],
)  # fmt: skip
def test_bomb_headers_are_refused_before_decoding(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "_decode", lambda *_: pytest.fail("decoded"))
    if data.startswith(b"\x89PNG"):  # the header's checksum must fit its content
        header = png_chunk(b"IHDR", data[16:29])
        data = data[:8] + header + data[8 + len(header) :]
    with pytest.raises(DataError, match="pixels"):
        images.decode_image(data, where="bomb")


@pytest.mark.parametrize("data", [b"x", b"GIF89a", b"\xff\xd8\xff", b"<svg>" * 9])
def test_other_content_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(DataError, match="^thing.jpg: "):
        images.decode_image(data, where="thing.jpg")


def test_missing_empty_and_huge_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="No such file"):
        images.read_image(tmp_path / "none.png")
    with pytest.raises(DataError, match="cannot be read"):
        images.read_image(tmp_path)
    (tmp_path / "empty.png").touch()
    with pytest.raises(DataError, match="empty.png: the file is empty"):
        images.read_image(tmp_path / "empty.png")
    (tmp_path / "big.png").write_bytes(encoded(".png"))
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 100)
    with pytest.raises(DataError, match="at most 100"):
        images.read_image(tmp_path / "big.png")


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (np.arange(12).reshape(3, 4), np.uint8),
        (np.arange(12).reshape(3, 4) * 5000, np.uint16),
        (np.arange(36).reshape(3, 4, 3), np.uint8),
    ],
)
def test_labels_come_back_as_stored(
    array: NDArray[Any], dtype: type, tmp_path: Path
) -> None:
    label = array.astype(dtype)
    images.write_png(tmp_path / "label.png", label)
    read = images.read_label_png(tmp_path / "label.png")
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, label)


@pytest.mark.parametrize("color_type", [0, 3], ids=["grey", "palette"])
def test_low_depth_and_palette_pngs_give_indices(color_type: int) -> None:
    palette = png_chunk(b"PLTE", bytes(range(48))) if color_type == 3 else b""
    two_rows = [b"\x01\x2f", b"\x30\x00"]  # four bits per pixel
    data = png(two_rows, 4, 4, color_type, palette)
    label = images.decode_label_png(data, where="x")
    np.testing.assert_array_equal(label, [[0, 1, 2, 15], [3, 0, 0, 0]])


def test_labels_with_alpha_or_loss_are_refused() -> None:
    rgba = png([b"\1\2\3\4"], 1, 8, 6)
    with pytest.raises(DataError, match="without alpha"):
        images.decode_label_png(rgba, where="x")
    with pytest.raises(DataError, match="lossy"):
        images.decode_label_png(encoded(".jpg"), where="x")


def test_jpeg_is_written_close_to_the_image(tmp_path: Path) -> None:
    images.write_jpeg(tmp_path / "a.jpg", picture())
    read = images.read_image(tmp_path / "a.jpg")
    assert np.abs(read.astype(int) - picture()).mean() < 3


@pytest.mark.skipif(sys.platform == "win32" or os.getuid() == 0, reason="needs a user")
def test_unwritable_folder_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError):
        images.write_png(tmp_path / "a.png", picture())


def test_missing_folder_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="a.png"):
        images.write_png(tmp_path / "missing" / "a.png", picture())
    assert list(tmp_path.iterdir()) == []


def test_images_are_listed_by_name_and_doubles_refused(tmp_path: Path) -> None:
    for name in ("b/2.png", "a.JPG", ".hidden/x.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list(images.list_images(tmp_path)) == ["a", "b/2"]
    (tmp_path / "a.png").touch()
    with pytest.raises(DataError, match="same name"):
        images.list_images(tmp_path)
