"""Frames through a pipe: raw or as images, whole or not at all, never too large."""

import io
import os
import threading
import time
from typing import BinaryIO, cast

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from deeplab2_edge.errors import DataError, UsageError
from deeplab2_edge.images import encode_jpeg, encode_png
from deeplab2_edge.runtime.sources import SourceOptions, open_sources, pipe
from deeplab2_edge.runtime.sources.pipe import check_raw, read_pipe
from deeplab2_edge.runtime.timing import StageTimer
from tests.runtime.tiny_model import draw_scene

SIZE = (64, 128)


class Dribble(io.RawIOBase):
    """Gives a few bytes at a time, as pipes may."""

    def __init__(self, data: bytes, step: int) -> None:
        self._data = io.BytesIO(data)
        self._step = step

    def readable(self) -> bool:
        return True

    def readinto(self, target: object) -> int:
        view = memoryview(target).cast("B")  # type: ignore[arg-type]
        chunk = self._data.read(min(self._step, len(view)))
        view[: len(chunk)] = chunk
        return len(chunk)


def stream(data: bytes, step: int = 1 << 20) -> BinaryIO:
    return cast(BinaryIO, Dribble(data, step))


def scene() -> NDArray[np.uint8]:
    return draw_scene()[: SIZE[0], : SIZE[1]]


def smooth() -> NDArray[np.uint8]:
    """Draws slow changes of color, which survive halved color differences."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    return np.stack([80 + x, 60 + 2 * y, 200 - x], axis=-1).astype(np.uint8)


def _nv12(i420: NDArray[np.uint8]) -> bytes:
    height, width = SIZE
    flat = i420.ravel()
    u, v = flat[height * width :].reshape(2, -1)
    return flat[: height * width].tobytes() + np.stack([u, v], axis=1).tobytes()


@pytest.mark.parametrize(
    ("pixel_format", "tolerance"),
    [("rgb24", 0), ("bgr24", 0), ("yuv420p", 4), ("nv12", 4)],
)
def test_raw_frames_come_as_rgb(pixel_format: str, tolerance: int) -> None:
    image = smooth()
    i420 = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420), np.uint8)
    data = {
        "rgb24": image.tobytes(),
        "bgr24": image[..., ::-1].tobytes(),
        "yuv420p": i420.tobytes(),
        "nv12": _nv12(i420),
    }[pixel_format]
    found = list(
        read_pipe(SIZE, pixel_format, StageTimer(), stream(data * 3, step=1000))
    )
    assert len(found) == 3
    for frame in found:
        difference = np.abs(frame.astype(int) - image)
        assert difference.max() <= tolerance


def test_gray_frames_have_three_equal_channels() -> None:
    gray = smooth()[..., 0]
    (frame,) = read_pipe(SIZE, "gray8", StageTimer(), stream(gray.tobytes()))
    np.testing.assert_array_equal(frame, np.repeat(gray[..., None], 3, axis=2))


def test_raw_frames_do_not_share_memory() -> None:
    first, second = read_pipe(
        SIZE, "rgb24", StageTimer(), stream(scene().tobytes() * 2)
    )
    first[:] = 7
    np.testing.assert_array_equal(second, scene())


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_images_of_any_kind_and_size_follow_each_other(step: int) -> None:
    small = scene()[:20, :30]
    jpeg = encode_jpeg(small)
    data = encode_png(scene()) + jpeg + jpeg + encode_png(small)
    found = list(read_pipe(None, None, StageTimer(), stream(data, step)))
    assert [frame.shape for frame in found] == [
        (64, 128, 3),
        (20, 30, 3),
        (20, 30, 3),
        (20, 30, 3),
    ]
    np.testing.assert_array_equal(found[0], scene())
    np.testing.assert_array_equal(found[3], small)


def test_a_thumbnail_within_does_not_end_a_jpeg() -> None:
    jpeg, thumbnail = encode_jpeg(scene()), encode_jpeg(scene()[:8, :8])
    segment = b"\xff\xe2" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    data = jpeg[:2] + segment + jpeg[2:]
    assert [f.shape for f in read_pipe(None, None, StageTimer(), stream(data * 2))] == [
        (64, 128, 3)
    ] * 2


@pytest.mark.parametrize("encode", [encode_jpeg, encode_png])
def test_an_image_comes_before_the_next_one_begins(encode: object) -> None:
    read_end, write_end = os.pipe()
    with open(read_end, "rb", buffering=0) as source, open(write_end, "wb") as sink:
        images = read_pipe(None, None, StageTimer(), cast(BinaryIO, source))
        for _ in range(2):
            sink.write(encode(scene()))  # type: ignore[operator]
            sink.flush()
            found: list[NDArray[np.uint8]] = []
            thread = threading.Thread(target=lambda f=found: f.append(next(images)))
            thread.daemon = True
            thread.start()
            thread.join(10)
            assert len(found) == 1


@pytest.mark.parametrize("is_raw", [True, False])
def test_waiting_for_the_other_program_is_not_decoding(
    is_raw: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_end, write_end = os.pipe()
    data = scene().tobytes() if is_raw else encode_png(scene())
    size, pixel_format = (SIZE, "rgb24") if is_raw else (None, None)

    def write() -> None:
        with open(write_end, "wb", buffering=0) as sink:
            for _ in range(2):
                time.sleep(0.3)
                sink.write(data)

    with open(read_end, "rb", buffering=0) as stdin:
        monkeypatch.setattr(pipe.sys, "stdin", stdin)
        options = SourceOptions(raw_size=size, raw_format=pixel_format)
        (source,) = open_sources(["-"], options)
        thread = threading.Thread(target=write)
        thread.start()
        frames = list(source.frames())
        thread.join()
    assert len(frames) == 2
    for frame in frames:
        assert frame.wait_ms is not None and frame.wait_ms > 200
        assert frame.decode_ms < 100


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (scene().tobytes(), "image 0: is neither JPEG nor PNG; raw frames need"),
        (b"\x89PNG", "neither JPEG nor PNG"),
        (encode_jpeg(scene())[:-1], "image 0: ends too early"),
        (encode_png(scene())[:-5], "image 0: ends too early"),
        (encode_jpeg(scene()) + b"\xff\xd8\xff", "image 1: ends too early"),
        (b"\xff\xd8\xff\xe0\x00\x04abcd", "a marker is missing"),
        (encode_png(scene()).replace(b"IDAT", b"IDAS", 1), "damaged"),
    ],
)
def test_what_is_no_image_is_named(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(read_pipe(None, None, StageTimer(), stream(data)))


def test_an_image_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe, "MAX_FILE_BYTES", 1 << 20)
    endless = b"\xff\xd8\xff\xda\x00\x02" + bytes(1 << 22)
    chunk = b"\x89PNG\r\n\x1a\n" + (0xFFFFFFF0).to_bytes(4, "big") + bytes(1 << 22)
    for data in (endless, chunk):
        with pytest.raises(DataError, match="more than 1048576 bytes"):
            list(read_pipe(None, None, StageTimer(), stream(data)))


def test_a_pipe_that_ends_within_a_frame_gives_those_before() -> None:
    data = scene().tobytes()
    frames = read_pipe(SIZE, "rgb24", StageTimer(), stream(data + data[:100]))
    np.testing.assert_array_equal(next(frames), scene())
    with pytest.raises(DataError, match="within frame 1, after 100 of 24576 bytes"):
        next(frames)


@pytest.mark.parametrize(
    ("size", "pixel_format", "message"),
    [
        ((0, 5), "rgb24", "at least one"),
        ((99_999, 99_999), "rgb24", "at most"),
        ((65, 128), "yuv420p", "even sides"),
        ((64, 129), "nv12", "even sides"),
        ((64, 128), "rgb48", "there are rgb24"),
    ],
)
def test_raw_frames_that_cannot_be_are_refused(
    size: tuple[int, int], pixel_format: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        check_raw(size, pixel_format)
