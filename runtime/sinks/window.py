"""A window on the screen of this machine."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping

import cv2

from deeplab2_edge.errors import UsageError
from deeplab2_edge.runtime.sinks.sink import Done, Quit

_TITLE = "deeplab2-edge"
_KEYS_OF_END = (27, ord("q"))  # Esc
_NO_KEY = -1
_WAIT_MS = 50
# Qt ends the process if there is no screen, so another one tries.
_TRIAL = "import cv2; cv2.namedWindow('trial'); cv2.waitKey(1)"
_TRIAL_SECONDS = 30


class Window:
    """Shows the newest picture; q, Esc or closing the window ends the run.

    Args:
        waits: Go on to the next picture when a key is pressed: for images.
        should_stop: Ends the wait for a key.

    Raises:
        UsageError: If there is no screen, or this OpenCV has no windows.
    """

    def __init__(
        self, *, waits: bool = False, should_stop: Callable[[], bool] = lambda: False
    ) -> None:
        self._waits = waits
        self._should_stop = should_stop
        # The wheel's Qt complains of the fonts it does not bring, five times.
        os.environ.setdefault("QT_LOGGING_RULES", "default.warning=false")
        _check_screen()
        cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL)

    def write(self, done: Done) -> Mapping[str, str]:
        """Shows the picture.

        Raises:
            Quit: On q, Esc, or when the window was closed.
        """
        cv2.imshow(_TITLE, cv2.cvtColor(done.picture, cv2.COLOR_RGB2BGR))
        key = cv2.waitKey(1)
        while self._waits and key == _NO_KEY and self._is_open:
            if self._should_stop():
                break
            key = cv2.waitKey(_WAIT_MS)
        if key & 0xFF in _KEYS_OF_END or not self._is_open:
            raise Quit
        return {}

    def close(self) -> None:
        """Closes the window."""
        cv2.destroyAllWindows()

    @property
    def _is_open(self) -> bool:
        return bool(cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) >= 1)


def _check_screen() -> None:
    (line,) = (
        line.split(":")[1].strip()
        for line in cv2.getBuildInformation().splitlines()
        if line.strip().startswith("GUI:")
    )
    if line == "NONE":
        raise UsageError(
            "--show: this OpenCV is a build without windows (opencv-python-headless); "
            "install opencv-python in its place, or use --serve and a browser"
        )
    trial = subprocess.run(
        [sys.executable, "-c", _TRIAL],
        capture_output=True,
        timeout=_TRIAL_SECONDS,
        check=False,
    )
    if trial.returncode != 0:
        raise UsageError(
            "--show: no window can be opened: there is no screen here (DISPLAY), or "
            "it may not be used; --serve shows the pictures in a browser"
        )
