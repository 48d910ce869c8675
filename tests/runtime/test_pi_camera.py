"""The Raspberry Pi camera without one: the message, and picamera2's documented calls.

`Double` stands in for the library, which exists on the boards alone: it checks what
is asked of it as the manual describes the calls, no more. The camera itself is tried by
hand on a board.
"""

import sys
import time
import types
from typing import Any

import numpy as np
import pytest

from deeplab2_edge.errors import DataError, MissingExtraError, UsageError
from deeplab2_edge.runtime.sources import SourceOptions, open_sources


class Double:
    """Gives three frames and then fails, as a camera whose cable is pulled."""

    log: list[str] = []

    def __init__(self, number: int) -> None:
        if number > 0:
            raise IndexError("list index out of range")
        self._left = 3

    def create_video_configuration(
        self, *, main: dict[str, Any], controls: dict[str, Any]
    ) -> dict[str, Any]:
        return {"main": main, "controls": controls}

    def configure(self, configuration: dict[str, Any]) -> None:
        self._size = configuration["main"]["size"]
        self.log.append(f"configure {configuration}")

    def start(self) -> None:
        self.log.append("start")

    def capture_array(self, name: str) -> Any:
        assert name == "main"
        if not self._left:
            raise RuntimeError("camera frontend has timed out")
        self._left -= 1
        time.sleep(0.05)  # until the sensor has one
        width, height = self._size
        # BGR888: red comes first in memory. Rows are padded to 32 pixels.
        array = np.zeros((height, -(-width // 32) * 32, 3), np.uint8)
        array[..., 0] = 200
        return array

    def close(self) -> None:
        self.log.append("close")


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    module = types.ModuleType("picamera2")
    module.Picamera2 = Double  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "picamera2", module)
    monkeypatch.setattr(Double, "log", [])
    return Double.log


def test_without_the_library_the_message_says_what_to_install() -> None:
    if "picamera2" in sys.modules:
        pytest.skip("this machine has picamera2")
    with pytest.raises(MissingExtraError) as caught:
        open_sources(["picamera"])
    assert "apt install python3-picamera2" in str(caught.value)
    assert "--system-site-packages" in str(caught.value)


def test_frames_are_rgb_without_padding_until_the_camera_fails(
    double: list[str],
) -> None:
    options = SourceOptions(camera_size=(90, 100), fps=15.0)
    (source,) = open_sources(["picamera:0"], options)
    assert (source.stem, source.fps, source.is_live) == ("picamera0", 15.0, True)
    frames = []
    with pytest.raises(DataError, match="picamera:0: stopped .*timed out"):
        for frame in source.frames():
            frames.append(frame)
    assert len(frames) == 3
    assert all(f.wait_ms is not None and f.wait_ms >= 50 for f in frames)
    assert all(frame.decode_ms < 50 for frame in frames)
    assert frames[0].image.shape == (90, 100, 3)
    assert frames[0].image[5, 5].tolist() == [200, 0, 0]
    assert "'size': (100, 90), 'format': 'BGR888'" in double[0]
    assert "'FrameRate': 15.0" in double[0]
    assert double[1:] == ["start", "close"]


def test_a_camera_that_is_not_there_is_named(double: list[str]) -> None:
    (source,) = open_sources(["picamera:1"])
    with pytest.raises(DataError, match="picamera:1: cannot be opened"):
        next(source.frames())


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        (["-"], SourceOptions(camera_size=(9, 9)), "--camera-size is for cameras"),
        (["picamera"], SourceOptions(fps=0.0), "--fps is 0"),
        (["x.mp4"], SourceOptions(fps=9.0), "--fps is for cameras and for -"),
        (["-"], SourceOptions(raw_size=(9, 9)), "go together"),
        (
            ["0"],
            SourceOptions(raw_size=(9, 9), raw_format="rgb24"),
            "are for -; it is not given",
        ),
        (["-", "-"], SourceOptions(), "only once"),
    ],
)
def test_options_without_their_source_are_refused(
    inputs: list[str], options: SourceOptions, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        open_sources(inputs, options)
