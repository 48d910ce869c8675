"""SIGINT and SIGTERM, heard between two frames."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """Turns SIGINT and SIGTERM into KeyboardInterrupt, or into a wish.

    Within `deferred` the first one is noted, for whoever asks; the second interrupts.

    Attributes:
        received: The last signal.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._is_deferred = False
        self._former: dict[int, Any] = {}

    @property
    def is_received(self) -> bool:
        """Whether one came."""
        return self.received is not None

    @property
    def exit_code(self) -> int:
        """What shells expect of a program ended by the signal: 130 or 143."""
        return 128 + (self.received or signal.SIGINT)

    def __enter__(self) -> "StopSignals":
        # Python lets no other thread handle signals.
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._former[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Lets the block ask `is_received` instead of being interrupted."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False

    def _receive(self, number: int, _: FrameType | None) -> None:
        is_second = self.is_received
        self.received = number
        if is_second or not self._is_deferred:
            raise KeyboardInterrupt
