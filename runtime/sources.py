"""Where images come from: files, folders, videos and cameras."""

import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import DataError
from deeplab2_edge.images import IMAGE_SUFFIXES, MAX_PIXELS, read_image

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")

_DEFAULT_FPS = 25.0  # for cameras and files that do not tell
# OpenCV and FFmpeg explain damaged videos and missing cameras at length on stderr;
# our one line is enough.
_QUIET_FFMPEG = ("OPENCV_FFMPEG_LOGLEVEL", "-8")
_QUIET_OPENCV = 0


@dataclass(frozen=True, eq=False)
class Frame:
    """Is one decoded image.

    Attributes:
        image: uint8 `[H, W, 3]` RGB.
        index: Number within its source, from 0.
        decode_ms: Time it took to read.
    """

    image: NDArray[np.uint8]
    index: int
    decode_ms: float


@dataclass(frozen=True)
class Source:
    """Is one image file, video file or camera.

    Attributes:
        name: As the user wrote it or as found in a folder.
        kind: `image`, `video` or `camera`.
        stem: Start of the names of output files; unique within one call of
            `open_sources`.
        num_frames: Expected number; None for a camera and videos that do not tell.
        fps: Frames per second of a video or camera.
        clip: Images with the same word follow each other as the frames of a video do:
            those of one folder, and those named one after the other.
    """

    name: str
    kind: str
    stem: str
    num_frames: int | None = 1
    fps: float = _DEFAULT_FPS
    clip: str = ""

    def frames(self) -> Iterator[Frame]:
        """Yields the frames; a camera never ends.

        Raises:
            DataError: If the source cannot be read.
        """
        if self.kind == "image":
            start = time.perf_counter_ns()
            image = read_image(self.name)
            yield Frame(image, 0, (time.perf_counter_ns() - start) / 1e6)
        else:
            yield from self._captured_frames()

    def _captured_frames(self) -> Iterator[Frame]:
        capture = _open_capture(self.name, self.kind)
        index = 0
        try:
            while True:
                start = time.perf_counter_ns()
                is_read, image = capture.read()
                if not is_read:
                    break
                rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
                yield Frame(rgb, index, (time.perf_counter_ns() - start) / 1e6)
                index += 1
        finally:
            capture.release()
        if index == 0:
            raise DataError(f"{self.name}: no frame can be read from this {self.kind}")


def open_sources(inputs: Sequence[str]) -> list[Source]:
    """Finds everything the inputs name and checks what can be checked beforehand.

    Args:
        inputs: Paths of images, folders (their images, sorted by name) and videos,
            or camera indices such as `"0"`.

    Raises:
        DataError: If an input is missing, a folder without images, of an unknown
            kind, or a video or camera that cannot be opened.
    """
    found = [source for text in inputs for source in _expand(text)]
    stems: dict[str, int] = {}
    sources = []
    for name, kind, clip in found:
        stem = f"camera{name}" if kind == "camera" else Path(name).stem
        # a/x.jpg and b/x.png must not overwrite each other's results.
        stems[stem] = stems.get(stem, 0) + 1
        if stems[stem] > 1:
            stem = f"{stem}_{stems[stem]}"
        if kind == "image":
            sources.append(Source(name, kind, stem, clip=clip))
        else:
            sources.append(_probe(name, kind, stem))
    return sources


def folder_images(folder: Path) -> list[Path]:
    """Lists the images of a folder, or of its folder `images`, sorted by name.

    Numbers in names count by their value: `frame9` comes before `frame10`.

    Raises:
        DataError: If there are none.
    """
    for place in (folder, folder / "images"):
        entries = place.iterdir() if place.is_dir() else ()
        found = sorted(
            (e for e in entries if e.suffix.lower() in IMAGE_SUFFIXES),
            key=_numbers_by_value,
        )
        if found:
            return found
    raise DataError(
        f"{folder}: the folder has no images ({', '.join(IMAGE_SUFFIXES)}), nor has a "
        "folder images/ in it"
    )


def _numbers_by_value(path: Path) -> list[str | int]:
    parts = re.split(r"(\d+)", path.name)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)]


def _expand(text: str) -> list[tuple[str, str, str]]:
    """Gives name, kind and clip of each source."""
    path = Path(text)
    if path.is_dir():
        return [(str(image), "image", text) for image in folder_images(path)]
    if path.exists():
        suffix = path.suffix.lower()
        if suffix in VIDEO_SUFFIXES:
            return [(text, "video", "")]
        # An unknown suffix may still be an image: its header decides.
        return [(text, "image", "")]
    if text.isascii() and text.isdigit() and len(text) <= 3:
        return [(text, "camera", "")]
    raise DataError(
        f"{text}: no such file or folder; give images, folders, videos or a camera "
        "index such as 0"
    )


def _probe(name: str, kind: str, stem: str) -> Source:
    capture = _open_capture(name, kind)
    try:
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        fps = float(capture.get(cv2.CAP_PROP_FPS))
    finally:
        capture.release()
    return Source(
        name,
        kind,
        stem,
        num_frames=count if kind == "video" and count > 0 else None,
        fps=fps if 1.0 <= fps <= 1000.0 else _DEFAULT_FPS,
    )


def _open_capture(name: str, kind: str) -> Any:
    os.environ.setdefault(*_QUIET_FFMPEG)
    level = _set_opencv_log_level(_QUIET_OPENCV)
    try:
        capture = cv2.VideoCapture(int(name) if kind == "camera" else name)
    finally:
        _set_opencv_log_level(level)
    if not capture.isOpened():
        if kind == "camera":
            raise DataError(
                f"camera {name} cannot be opened; check that it is connected, not in "
                "use, and that you may read /dev/video*"
            )
        raise DataError(
            f"{name}: cannot be opened as a video (damaged, cut short, or a codec "
            "that OpenCV lacks); try to re-encode it as MP4 (H.264)"
        )
    width = capture.get(cv2.CAP_PROP_FRAME_WIDTH)
    height = capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
    if width * height > MAX_PIXELS:
        capture.release()
        raise DataError(
            f"{name}: frames of {height:.0f}x{width:.0f} pixels; at most {MAX_PIXELS} "
            "are accepted"
        )
    return capture


def _set_opencv_log_level(level: int) -> int:
    """Sets how much OpenCV prints and returns the former level."""
    # OpenCV 5 moved the function.
    setter = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel
    return int(setter(level))
