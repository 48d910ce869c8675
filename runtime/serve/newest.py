"""The newest frame: put in by the pipeline, taken out by whoever watches.

There is one place for one frame. A frame that nobody has asked for when the next one
comes is gone, so memory does not grow and nobody waits, whoever is slow.
"""

import asyncio
import functools
import json
import math
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.images import encode_jpeg
from deeplab2_edge.runtime.draw import segment_colors
from deeplab2_edge.runtime.results import PanopticResult

# Frames per second are the mean over so long, and over so many frames at most.
_MEAN_S = 3.0
_MAX_TIMES = 256
# A source is stalled after this long, or after so many of its usual gaps.
_STALLED_S = 5.0
_STALLED_GAPS = 5.0
# What an address of a source may hold: rtsp://user:password@camera/path?key=...
_SECRETS = re.compile(r"(?<=://).*@|\?.*")


@dataclass(eq=False)
class Published:
    """Is one frame.

    Attributes:
        number: From 1, in the order of publishing.
        result: Of the pipeline.
        picture: uint8 `[H, W, 3]` RGB.
        source: Name of where it comes from, without secrets.
        index: Of the frame within the source.
    """

    number: int
    result: PanopticResult
    picture: NDArray[np.uint8]
    source: str
    index: int
    _encoded: "dict[str, asyncio.Future[bytes]]" = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Gives the content of `/result.json`."""
        entries = self.result.to_dict()
        total = max(self.result.panoptic.size, 1)
        shades = segment_colors(self.result.segments, self.result.metadata.colors)
        for entry, color in zip(entries["segments"], shades, strict=True):
            entry["color"] = "#{:02x}{:02x}{:02x}".format(*color)
            entry["area_share"] = round(entry["area_px"] / total, 6)
        place = {"number": self.number, "source": self.source, "index": self.index}
        return {**place, **entries}


class Newest:
    """Holds the newest frame. `put` is for any thread, all else for the loop's.

    Args:
        max_fps: Frames are handed out at most so often.
        jpeg_quality: 1 to 100.
        max_side_px: Larger pictures are made smaller.
    """

    def __init__(self, *, max_fps: float, jpeg_quality: int, max_side_px: int) -> None:
        self._interval = 1 / max_fps
        self._jpeg_quality = jpeg_quality
        self._max_side_px = max_side_px
        self._newest: Published | None = None
        self._handed_out: Published | None = None
        self._next_time = -math.inf
        self._times: deque[float] = deque(maxlen=_MAX_TIMES)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._came: asyncio.Event | None = None
        self._lock = threading.Lock()
        self._is_awaited = False
        self._is_finished = False
        self._encoder = ThreadPoolExecutor(1, "live-view-encoder")
        self.num_published = 0
        self.num_encoded = 0

    def attach(self) -> None:
        """Says which loop is to be woken: the running one."""
        self._came = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def finish(self) -> None:
        """Says that no frame follows, and ends all waiting."""
        self._is_finished = True
        self._wake()

    def close(self) -> None:
        """Ends the thread of the encoder; it may still finish one picture."""
        self._encoder.shutdown(wait=False, cancel_futures=True)

    def put(
        self,
        result: PanopticResult,
        picture: NDArray[np.uint8],
        source: str,
        index: int,
    ) -> None:
        """Takes a frame in place of the last one; costs microseconds."""
        source = without_secrets(source)
        with self._lock:  # for a moment, and only against others who put
            self.num_published += 1
            self._times.append(time.monotonic())
            self._newest = Published(self.num_published, result, picture, source, index)
        if self._is_awaited and self._loop is not None:
            self._is_awaited = False
            # Raises if the loop has just been closed; then nobody watches any more.
            try:
                self._loop.call_soon_threadsafe(self._wake)
            except RuntimeError:
                pass

    def current(self) -> Published | None:
        """Gives the newest frame, but a new one only as often as `max_fps` says."""
        now = time.monotonic()
        if self._newest is not self._handed_out and now >= self._next_time:
            self._handed_out = self._newest
            self._next_time = now + self._interval
        return self._handed_out

    async def newer_than(self, number: int) -> Published | None:
        """Waits for a frame with a larger number; None if no frame follows."""
        assert self._came is not None
        while not self._is_finished:
            frame = self.current()
            if frame is not None and frame.number > number:
                return frame
            if self._newest is not self._handed_out:
                await asyncio.sleep(max(self._next_time - time.monotonic(), 0))
                continue
            came = self._came
            self._is_awaited = True
            # A frame may have come between the look and the promise to wake.
            if self._newest is self._handed_out:
                await came.wait()
        return None

    async def jpeg(self, frame: Published) -> bytes:
        """Encodes the picture of a frame, once for all who ask."""
        return await self._once(frame, "jpeg", self._encode_jpeg)

    async def json(self, frame: Published) -> bytes:
        """Encodes the document of a frame, once for all who ask."""
        return await self._once(frame, "json", _encode_json)

    @property
    def fps(self) -> float | None:
        """Frames per second that were put in lately; None if that is not known."""
        times = tuple(self._times)
        if len(times) < 2:
            return None
        recent = [time for time in times if times[-1] - time <= _MEAN_S]
        if len(recent) < 2:
            recent = [*times[-2:]]
        seconds = recent[-1] - recent[0]
        return (len(recent) - 1) / seconds if seconds > 0 else None

    @property
    def state(self) -> str:
        """`waiting` for the first frame, `running`, `stalled` or `ended`."""
        if self._is_finished:
            return "ended"
        times = tuple(self._times)
        if not times:
            return "waiting"
        usual = 1 / self.fps if self.fps else 0.0
        limit = max(_STALLED_S, _STALLED_GAPS * usual)
        return "stalled" if time.monotonic() - times[-1] > limit else "running"

    def _wake(self) -> None:
        assert self._came is not None
        self._came.set()
        self._came = asyncio.Event()

    async def _once(
        self, frame: Published, kind: str, encode: Callable[[Published], bytes]
    ) -> bytes:
        encoded = frame._encoded.get(kind)
        if encoded is None:
            loop = asyncio.get_running_loop()
            encoded = loop.run_in_executor(
                self._encoder, functools.partial(encode, frame)
            )
            frame._encoded[kind] = encoded
        # Who leaves must not cancel the picture of those who stay.
        return await asyncio.shield(encoded)

    def _encode_jpeg(self, frame: Published) -> bytes:
        picture = frame.picture
        scale = self._max_side_px / max(picture.shape[:2])
        if scale < 1:
            height, width = (max(round(side * scale), 1) for side in picture.shape[:2])
            smaller = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
            picture = np.asarray(smaller, np.uint8)
        self.num_encoded += 1
        return encode_jpeg(picture, quality=self._jpeg_quality)


def without_secrets(source: str) -> str:
    """Takes user, password and query out of an address; a path stays as it is."""
    return _SECRETS.sub("", source) if "://" in source else source


def _encode_json(frame: Published) -> bytes:
    return encode_json(frame.document())


def encode_json(value: Any) -> bytes:
    """Gives compact JSON; numbers that JSON lacks (NaN) become null."""
    return json.dumps(_finite(value), separators=(",", ":")).encode()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
