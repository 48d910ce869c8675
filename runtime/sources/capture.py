"""Videos, cameras and streams, as OpenCV opens them."""

import logging
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import cv2
import numpy as np

from deeplab2_edge.errors import DataError
from deeplab2_edge.images import MAX_PIXELS
from deeplab2_edge.runtime.sources.source import DEFAULT_FPS, Image
from deeplab2_edge.runtime.timing import WAIT, StageTimer

# OpenCV and FFmpeg explain damaged videos and missing cameras at length on stderr;
# our one line is enough.
_QUIET_FFMPEG = ("OPENCV_FFMPEG_LOGLEVEL", "-8")
_QUIET_OPENCV = 0
# Of a stream: how long its server may be silent, when connecting and later.
_STREAM_TIMEOUT_MS = 10_000
# Some containers count their frames by duration and rate, not quite right.
_COUNT_TOLERANCE = 0.02

_POLL_SECONDS = 0.1

T = TypeVar("T")

_log = logging.getLogger("deeplab2_edge")


@dataclass(frozen=True)
class CaptureInfo:
    """Holds what a video, camera or stream says about itself.

    Attributes:
        num_frames: None if it does not tell.
        fps: Frames per second.
    """

    num_frames: int | None
    fps: float


def probe_video(path: str) -> CaptureInfo:
    """Opens a video file to look at it.

    Raises:
        DataError: If OpenCV cannot open it, or its frames are too large.
    """
    return _describe(_open_video(path))


def read_video(path: str) -> Iterator[Image]:
    """Yields the frames of a video file.

    Raises:
        DataError: As `probe_video`, or if there are fewer frames than it says.
    """
    capture = _open_video(path)
    expected = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    count = 0
    for image in _images(capture, capture.grab):
        yield image
        count += 1
    if 0 < count < expected - max(2, _COUNT_TOLERANCE * expected):
        raise DataError(
            f"{path}: ends after {count} of {expected} frames; it is cut short or "
            "damaged there"
        )


def probe_camera(
    name: str, size: tuple[int, int] | None, fps: float | None
) -> CaptureInfo:
    """Opens a camera to look whether it is there.

    Args:
        name: A number, or a device such as `/dev/video0`.
        size: (height, width) it shall give; None leaves the choice to it.
        fps: Frames per second it shall give.

    Raises:
        DataError: If it cannot be opened or does not give frames of that size.
    """
    return _hearing_signals(lambda: _describe(_open_camera(name, size, fps)))


def read_camera(
    name: str, size: tuple[int, int] | None, fps: float | None, timer: StageTimer
) -> Iterator[Image]:
    """Yields the frames of a camera until it fails.

    Raises:
        DataError: As `probe_camera`, or if it gives no more frames.
    """
    count = 0
    for image in _awaited(lambda: _open_camera(name, size, fps), timer):
        yield image
        count += 1
    if count:
        raise DataError(
            f"camera {name} gave {count} frames and then no more; check its cable and "
            "that no other program took it"
        )


def probe_stream(url: str, name: str) -> CaptureInfo:
    """Connects to a stream to look at it.

    Args:
        url: `rtsp://`, `rtsps://`, `http://` or `https://`.
        name: What messages call it: the URL without passwords.

    Raises:
        DataError: If it cannot be opened.
    """
    return _hearing_signals(lambda: _describe(_open_stream(url, name)))


def read_stream(
    url: str, name: str, timer: StageTimer, *, is_live: bool
) -> Iterator[Image]:
    """Yields the frames of a stream.

    A live one that is lost gets one new connection, and after each frame the right to
    another. What has an end is read to it.

    Raises:
        DataError: If it cannot be opened, or is lost and cannot be opened again.
    """
    count = 0
    while True:
        before = count
        for image in _awaited(lambda: _open_stream(url, name), timer):
            yield image
            count += 1
        if not is_live:
            return
        if count == before:
            raise DataError(f"{name}: was lost after {count} frames")
        _log.warning("%s: lost after %d frames; connecting again", name, count)


def _hearing_signals(function: Callable[[], T]) -> T:
    """Runs what may take seconds in a thread, so that Ctrl-C is still heard."""
    outcome: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            outcome.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, name="deeplab2-edge open", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_POLL_SECONDS)
    for error in errors:
        raise error
    return outcome[0]


def _awaited(open_capture: Callable[[], Any], timer: StageTimer) -> Iterator[Image]:
    """Yields the frames of what lets one wait, and tells a timer how long."""
    with timer.stage(WAIT):
        capture = open_capture()

    def grab() -> bool:
        with timer.stage(WAIT):
            return bool(capture.grab())

    yield from _images(capture, grab)


def _images(capture: Any, grab: Callable[[], bool]) -> Iterator[Image]:
    try:
        while grab():
            is_read, image = capture.retrieve()
            if not is_read:
                return
            yield np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
    finally:
        capture.release()


def _open_video(path: str) -> Any:
    capture = _open(path)
    if not capture.isOpened():
        raise DataError(
            f"{path}: cannot be opened as a video (damaged, cut short, or a codec "
            "that OpenCV lacks); try to re-encode it as MP4 (H.264)"
        )
    return _checked(capture, path)


def _open_camera(name: str, size: tuple[int, int] | None, fps: float | None) -> Any:
    capture = _open(int(name)) if name.isdigit() else _open(name, cv2.CAP_V4L2)
    if not capture.isOpened():
        raise DataError(
            f"camera {name} cannot be opened; check that it is connected, not in use, "
            "and that you may read /dev/video*"
        )
    if size is not None:
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, size[1])
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size[0])
        found = _size_of(capture)
        if found != size:
            capture.release()
            raise DataError(
                f"camera {name} gives {found[0]}x{found[1]} (height x width), not "
                f"{size[0]}x{size[1]}; --camera-size must be a size it has"
            )
    if fps is not None:
        capture.set(cv2.CAP_PROP_FPS, fps)
    return _checked(capture, f"camera {name}")


def _open_stream(url: str, name: str) -> Any:
    timeouts = [
        *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _STREAM_TIMEOUT_MS),
        *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, _STREAM_TIMEOUT_MS),
    ]
    capture = _open(url, cv2.CAP_FFMPEG, timeouts)
    if not capture.isOpened():
        raise DataError(
            f"{name}: no stream can be opened there within "
            f"{_STREAM_TIMEOUT_MS // 1000} s; check the address, user and password"
        )
    return _checked(capture, name)


def _open(*arguments: Any) -> Any:
    os.environ.setdefault(*_QUIET_FFMPEG)
    level = _set_opencv_log_level(_QUIET_OPENCV)
    try:
        return cv2.VideoCapture(*arguments)
    finally:
        _set_opencv_log_level(level)


def _checked(capture: Any, name: str) -> Any:
    height, width = _size_of(capture)
    if width * height > MAX_PIXELS:
        capture.release()
        raise DataError(
            f"{name}: frames of {height}x{width} pixels; at most {MAX_PIXELS} "
            "are accepted"
        )
    return capture


def _size_of(capture: Any) -> tuple[int, int]:
    height = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
    return height, int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))


def _describe(capture: Any) -> CaptureInfo:
    try:
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        fps = float(capture.get(cv2.CAP_PROP_FPS))
    finally:
        capture.release()
    return CaptureInfo(
        num_frames=count if count > 0 else None,
        fps=fps if 1.0 <= fps <= 1000.0 else DEFAULT_FPS,
    )


def _set_opencv_log_level(level: int) -> int:
    """Sets how much OpenCV prints and returns the former level."""
    # OpenCV 5 moved the function.
    setter = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel
    return int(setter(level))
