"""A source of frames, whatever it is, and what may be asked of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import DataError
from deeplab2_edge.runtime.timing import WAIT, StageTimer

Image = NDArray[np.uint8]

DEFAULT_FPS = 25.0  # of sources that do not tell


@dataclass(frozen=True, eq=False)
class Frame:
    """Is one decoded image.

    Attributes:
        image: uint8 `[H, W, 3]` RGB.
        index: Number within its source, from 0.
        decode_ms: Time it took to read, without `wait_ms`.
        source: Name of its source.
        stem: Start of the names of output files of its source.
        is_of_video: Whether others follow it.
        wait_ms: Time until the camera, the stream or the program at the other end of
            the pipe gave it, the first time also until it was opened; None of files.
            FFmpeg decodes the frames of streams meanwhile, so that is part of it.
    """

    image: Image
    index: int
    decode_ms: float
    source: str = ""
    stem: str = ""
    is_of_video: bool = True
    wait_ms: float | None = None


@dataclass(frozen=True)
class SourceOptions:
    """Says what is wanted of cameras and pipes.

    Attributes:
        camera_size: (height, width) that a camera shall give.
        fps: Frames per second that a camera shall give, or that a pipe has.
        raw_size: (height, width) of the raw frames of a pipe.
        raw_format: How these hold their pixels, of `pipe.RAW_FORMATS`.
    """

    camera_size: tuple[int, int] | None = None
    fps: float | None = None
    raw_size: tuple[int, int] | None = None
    raw_format: str | None = None


@dataclass(frozen=True, eq=False)
class Source:
    """Is one image file, video file, camera, stream or pipe.

    Attributes:
        name: As the user wrote it, without passwords, or as found in a folder.
        kind: `image`, `video`, `camera`, `stream` or `pipe`.
        stem: Start of the names of output files; unique within one call of
            `open_sources`.
        read: Gives the images, uint8 `[H, W, 3]` RGB, from the first, and tells the
            timer of its waits.
        num_frames: Expected number; None of sources that do not tell.
        fps: Frames per second of what is no image.
        clip: Images with the same word follow each other as the frames of a video do:
            those of one folder, and those named one after the other.
        is_live: Whether frames that nobody takes are lost.
    """

    name: str
    kind: str
    stem: str
    read: Callable[[StageTimer], Iterator[Image]]
    num_frames: int | None = 1
    fps: float = DEFAULT_FPS
    clip: str = ""
    is_live: bool = False

    def frames(self) -> Iterator[Frame]:
        """Yields the frames; of a camera, until it fails.

        Raises:
            DataError: If the source cannot be read, or ends where it should not.
        """
        index = 0
        timer = StageTimer()
        images = self.read(timer)
        while True:
            with timer.stage("decode"):
                image = next(images, None)
            if image is None:
                break
            times = timer.take()
            yield Frame(
                *(image, index, times["decode"], self.name, self.stem),
                is_of_video=self.kind != "image",
                wait_ms=times.get(WAIT),
            )
            index += 1
        if index == 0:
            raise DataError(f"{self.name}: no frame can be read from this {self.kind}")
