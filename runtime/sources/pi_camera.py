"""The Raspberry Pi's camera, through picamera2.

The library belongs to the system: it comes with Raspberry Pi OS and talks to the
libcamera that is installed there.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from deeplab2_edge.errors import DataError, MissingExtraError
from deeplab2_edge.runtime.sources.source import Image
from deeplab2_edge.runtime.timing import WAIT, StageTimer

# Without a wish: the picture of a video call, which every sensor gives.
SIZE = (480, 640)
FPS = 30.0


def require_picamera2() -> Any:
    """Imports picamera2.

    Raises:
        MissingExtraError: If it is not there, with the way to install it.
    """
    try:
        import picamera2
    except ImportError as error:
        raise MissingExtraError(
            f"picamera: the library picamera2 cannot be loaded ({error}); on Raspberry "
            "Pi OS run: sudo apt install python3-picamera2, and make the environment "
            "with: python3 -m venv --system-site-packages"
        ) from None
    return picamera2


def read_pi_camera(
    number: int, size: tuple[int, int] | None, fps: float | None, timer: StageTimer
) -> Iterator[Image]:
    """Yields the frames of a camera on the ribbon cable.

    Args:
        number: Of the camera, from 0.
        size: (height, width); default: `SIZE`.
        fps: Frames per second; default: `FPS`.
        timer: Of the waits for the camera.

    Raises:
        MissingExtraError: As `require_picamera2`.
        DataError: If there is no such camera, or it stops.
    """
    picamera2 = require_picamera2()
    height, width = size or SIZE
    try:
        with timer.stage(WAIT):
            camera = picamera2.Picamera2(number)
    # It raises IndexError for a number too many, RuntimeError for a camera in use.
    except (IndexError, RuntimeError) as error:
        raise DataError(
            f"picamera:{number}: cannot be opened ({error}); `rpicam-hello "
            "--list-cameras` lists those that are there"
        ) from None
    try:
        # Its names tell the order from the last byte: BGR888 is R, G, B in memory.
        configuration = camera.create_video_configuration(
            main={"size": (width, height), "format": "BGR888"},
            controls={"FrameRate": fps or FPS},
        )
        with timer.stage(WAIT):
            camera.configure(configuration)
            camera.start()
        while True:
            with timer.stage(WAIT):
                array = camera.capture_array("main")
            yield _upright(array, width)
    except RuntimeError as error:
        raise DataError(f"picamera:{number}: stopped ({error})") from None
    finally:
        camera.close()


def _upright(array: Any, width: int) -> Image:
    # Rows may be padded to what the hardware likes.
    return np.ascontiguousarray(array[:, :width], np.uint8)
