"""Frames from the standard input: raw, or JPEG and PNG images one after the other.

What `ffmpeg -f rawvideo` and `-f image2pipe`, `rpicam-vid --codec mjpeg` and cameras of
the network write. The stream comes from a stranger: frames and images have the caps of
files, and an image's end is found by its structure, before anything is decoded.
"""

import re
import sys
from collections.abc import Iterator
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import DataError, UsageError
from deeplab2_edge.images import MAX_FILE_BYTES, MAX_PIXELS, decode_image
from deeplab2_edge.runtime.sources.source import Image
from deeplab2_edge.runtime.timing import WAIT, StageTimer

# Name, as FFmpeg calls it -> conversion by OpenCV, None if it is RGB already. Color
# differences are those of BT.601 with limited range.
RAW_FORMATS: dict[str, int | None] = {
    "rgb24": None,
    "bgr24": cv2.COLOR_BGR2RGB,
    "yuv420p": cv2.COLOR_YUV2RGB_I420,
    "nv12": cv2.COLOR_YUV2RGB_NV12,
    "gray8": cv2.COLOR_GRAY2RGB,
}
_YUV = ("yuv420p", "nv12")
_READ_BYTES = 1 << 16

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_JPEG_END, _JPEG_SCAN = 0xD9, 0xDA
# In a scan FF 00 is a data byte, FF D0..D7 restart the decoder and FF FF is filler.
_JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")


def check_raw(size: tuple[int, int], pixel_format: str) -> None:
    """Checks what is said of raw frames.

    Raises:
        UsageError: If the format is unknown, or the size cannot be.
    """
    height, width = size
    if pixel_format not in RAW_FORMATS:
        raise UsageError(
            f"--raw-format is {pixel_format!r}; there are {', '.join(RAW_FORMATS)}"
        )
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise UsageError(
            f"--raw-size is {height}x{width}; at least one and at most {MAX_PIXELS} "
            "pixels are accepted"
        )
    if pixel_format in _YUV and (height % 2 or width % 2):
        raise UsageError(
            f"--raw-size is {height}x{width}; {pixel_format} has even sides"
        )


def read_pipe(
    raw_size: tuple[int, int] | None,
    raw_format: str | None,
    timer: StageTimer,
    stream: BinaryIO | None = None,
) -> Iterator[Image]:
    """Yields the frames that come through a pipe.

    Args:
        raw_size: (height, width) of raw frames; None if the images tell their own.
        raw_format: Of `RAW_FORMATS`.
        timer: Of the waits for bytes.
        stream: Unbuffered; default: the standard input.

    Raises:
        DataError: If it is a terminal, ends within a frame, or holds something else.
    """
    if stream is None:
        if sys.stdin is None or sys.stdin.isatty():
            raise DataError(
                "stdin: this is a terminal; - reads frames from a pipe, as in "
                "ffmpeg ... -f image2pipe -c:v mjpeg - | deeplab2-edge run MODEL -"
            )
        # Its buffer has a lock that a thread within a read does not give back.
        stream = open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)
    if raw_size is not None and raw_format is not None:
        yield from _raw_frames(stream, raw_size, raw_format, timer)
    else:
        yield from _images(_Bytes(stream, timer))


def _raw_frames(
    stream: BinaryIO, size: tuple[int, int], pixel_format: str, timer: StageTimer
) -> Iterator[Image]:
    height, width = size
    shape: tuple[int, ...] = (height, width, 3)
    if pixel_format in _YUV:
        shape = (height * 3 // 2, width)
    elif pixel_format == "gray8":
        shape = (height, width)
    conversion = RAW_FORMATS[pixel_format]
    count = 0
    while True:
        pixels = np.empty(shape, np.uint8)
        with timer.stage(WAIT):
            filled = _fill(stream, pixels)
        if filled == 0:
            return
        if filled < pixels.size:
            raise DataError(
                f"stdin: ends within frame {count}, after {filled} of {pixels.size} "
                f"bytes; frames of {height}x{width} {pixel_format} have that many"
            )
        if conversion is not None:
            pixels = np.asarray(cv2.cvtColor(pixels, conversion), np.uint8)
        yield pixels
        count += 1


def _fill(stream: BinaryIO, pixels: NDArray[np.uint8]) -> int:
    """Reads into an array until it is full or the stream ends; gives the bytes read."""
    view = pixels.reshape(-1).data
    filled = 0
    while filled < len(view):
        count = stream.readinto(view[filled:])  # type: ignore[attr-defined]
        if not count:
            break
        filled += count
    return filled


class _Bytes:
    """Holds the part of a stream that is being looked at."""

    def __init__(self, stream: BinaryIO, timer: StageTimer) -> None:
        self.data = bytearray()
        self._stream = stream
        self._timer = timer

    def has(self, count: int) -> bool:
        """Reads on until there are so many bytes; False if the stream ends before."""
        while len(self.data) < count:
            if len(self.data) > MAX_FILE_BYTES:
                raise DataError(
                    f"stdin: an image has more than {MAX_FILE_BYTES} bytes, which is "
                    "what images may have"
                )
            with self._timer.stage(WAIT):
                chunk = self._stream.read(_READ_BYTES)
            if not chunk:
                return False
            self.data += chunk
        return True

    def take(self, count: int) -> bytes:
        """Gives and forgets the first bytes."""
        taken = bytes(self.data[:count])
        del self.data[:count]
        return taken


def _images(stream: _Bytes) -> Iterator[Image]:
    count = 0
    while stream.has(1):
        where = f"stdin, image {count}"
        stream.has(len(_PNG))
        if stream.data.startswith(_PNG):
            end = _png_end(stream)
        elif stream.data.startswith(_JPEG):
            end = _jpeg_end(stream)
        else:
            raise DataError(
                f"{where}: is neither JPEG nor PNG; raw frames need --raw-size HxW and "
                "--raw-format"
            )
        if end is None:
            raise DataError(f"{where}: ends too early, the pipe was closed within it")
        yield decode_image(stream.take(end), where=where)
        count += 1


def _png_end(stream: _Bytes) -> int | None:
    """Finds where a PNG ends by the lengths of its chunks; None if it does not."""
    position = len(_PNG)
    while stream.has(position + 12):
        length = int.from_bytes(stream.data[position : position + 4], "big")
        kind = bytes(stream.data[position + 4 : position + 8])
        position += 12 + length
        if kind == b"IEND":
            return position if stream.has(position) else None
    return None


def _jpeg_end(stream: _Bytes) -> int | None:
    """Finds where a JPEG ends by its segments: thumbnails within have ends, too."""
    position = 2
    while stream.has(position + 2):
        lead, marker = stream.data[position], stream.data[position + 1]
        if lead != 0xFF:
            raise DataError("stdin: a JPEG image is damaged: a marker is missing")
        if marker == 0xFF:  # filler
            position += 1
            continue
        # Nothing is read beyond the end: the next image may be long in coming.
        if marker == _JPEG_END:
            return position + 2
        if not stream.has(position + 4):
            return None
        length = int.from_bytes(stream.data[position + 2 : position + 4], "big")
        position += 2 + max(length, 2)
        if marker == _JPEG_SCAN:
            found = _next_marker(stream, position)
            if found is None:
                return None
            position = found
    return None


def _next_marker(stream: _Bytes, position: int) -> int | None:
    """Finds the next marker in compressed data."""
    while True:
        match = _JPEG_MARKER.search(stream.data, position)
        if match is not None:
            return match.start()
        # The last byte may be the first half of one.
        position = max(position, len(stream.data) - 1)
        if not stream.has(len(stream.data) + 1):
            return None
