"""Writes overlay videos, whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import OutputError
from deeplab2_edge.files import atomic_write


class VideoWriter:
    """Writes RGB frames into one file. Made by `open_video`."""

    def __init__(self, path: Path, fps: float) -> None:
        self._path = path
        self._fps = fps
        self._writer: Any = None
        self._size = (0, 0)
        self._count = 0

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Appends a frame, uint8 `[H, W, 3]`; all have the size of the first.

        Raises:
            OutputError: If OpenCV cannot write this kind of video.
        """
        # Encoders want even sides: the last odd row and column are dropped.
        height, width = frame.shape[0] // 2 * 2, frame.shape[1] // 2 * 2
        if self._writer is None:
            self._size = (height, width)
            self._writer = self._open(height, width)
        if (height, width) != self._size:
            frame = np.asarray(cv2.resize(frame, self._size[::-1]), np.uint8)
        self._writer.write(
            cv2.cvtColor(
                np.ascontiguousarray(frame[: self._size[0], : self._size[1]]),
                cv2.COLOR_RGB2BGR,
            )
        )
        self._count += 1

    def close(self) -> None:
        """Finishes the file.

        Raises:
            OutputError: If it does not hold what was written: OpenCV does not tell of
                a full disk.
        """
        if self._writer is None:
            return
        self._writer.release()
        capture = cv2.VideoCapture(str(self._path))
        capture.set(cv2.CAP_PROP_POS_FRAMES, self._count - 1)
        has_last, _ = capture.read()
        capture.release()
        if not has_last:
            raise OutputError(
                f"{self._path.parent}: the {self._path.suffix} video was not written "
                "to its end; is the disk full?"
            )

    def _open(self, height: int, width: int) -> Any:
        codec = "mp4v" if self._path.suffix == ".mp4" else "MJPG"
        writer = cv2.VideoWriter(
            str(self._path),
            cv2.VideoWriter.fourcc(*codec),
            self._fps,
            (width, height),
        )
        if not writer.isOpened():
            raise OutputError(
                f"{self._path.parent}: OpenCV cannot write a {height}x{width} "
                f"{self._path.suffix} video there; use --no-overlay"
            )
        return writer


@contextlib.contextmanager
def open_video(path: str | os.PathLike[str], fps: float) -> Iterator[VideoWriter]:
    """Opens a video for writing; it appears under its name when complete.

    Args:
        path: `.mp4`, or `.avi` (Motion JPEG, which OpenCV writes without FFmpeg).
        fps: Frames per second.

    Raises:
        OutputError: If it cannot be written. Nothing is left behind.
    """
    with atomic_write(path) as temporary:
        writer = VideoWriter(temporary, fps)
        try:
            yield writer
        finally:
            writer.close()
