"""Works on several frames of a video at once: while one is drawn, the next are read.

    source | look (network) | finish (merge, track) | whoever takes the results

Each stage has a thread of its own and hands its frames on in order, one in hand and
one waiting: nothing is copied, and nothing grows. Two rules say what happens when a
stage is slower than the one before:

* Files: the faster one waits. No frame is lost.
* Live sources, which do not wait: frames wait for the network as long as the oldest of
  them is younger than the latency budget. When it is not, the newest is taken and the
  others are skipped and counted.
"""

import collections
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from deeplab2_edge.runtime.clips import ClipSegmenter
from deeplab2_edge.runtime.predictors import Seen
from deeplab2_edge.runtime.results import PanopticResult
from deeplab2_edge.runtime.sources import Frame

T = TypeVar("T")
R = TypeVar("R")

# With one frame in each hand and one between, a stage that is late by less than a
# frame's time holds up no other.
_CAPACITY = 1
# Of live frames, if the budget is generous: they are large.
_LIVE_CAPACITY = 8
# How often the taker of the results looks whether it should stop.
_POLL_SECONDS = 0.1
# What a thread gets to end: it may be within the network, or wait for a camera. Whoever
# was told to stop is in a hurry.
_CLOSE_SECONDS = 30.0
_STOP_SECONDS = 1.0


class FramePipeline:
    """Segments the frames of one video, or images one after the other.

    Leaving the `with` block ends all threads. An error of any stage is raised where the
    results are taken, after the results of the frames before it.

    Args:
        frames: What to segment, for example `Source.frames()`.
        segmenter: Of any family. Models that look at several frames, and so have no
            stages, run in one thread.
        overlap: False works on one frame after the other, without threads; a live
            source keeps the one that reads.
        budget_ms: Of a live source: how long frames may wait for the network. None is
            for files.
        should_stop: Asked ten times a second; True ends the results.

    Attributes:
        is_stuck: After the end, whether a thread is still at work: nothing can end a
            network or a read of a camera that has begun.

    Example:
        >>> with FramePipeline(source.frames(), segmenter) as results:
        ...     for frame, result in results:
        ...         print(frame.index, len(result.segments))  # doctest: +SKIP
    """

    def __init__(
        self,
        frames: Iterable[Frame],
        segmenter: ClipSegmenter,
        *,
        overlap: bool = True,
        budget_ms: float | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        self.is_stuck = False
        self._should_stop = should_stop or (lambda: False)
        self._overlap = overlap
        self._buffers: list[_Buffer[Any]] = []
        self._reader: _Buffer[Frame] | None = None
        self._source = read = iter(frames)
        if overlap or budget_ms is not None:
            read = self._reader = self._ahead(read, "read", budget_ms=budget_ms)
        self._results = self._stages(read, segmenter)

    @property
    def num_skipped(self) -> int:
        """Frames of a live source that were skipped until now."""
        return self._reader.num_skipped if self._reader is not None else 0

    def __enter__(self) -> "FramePipeline":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[tuple[Frame, PanopticResult]]:
        """Yields each frame with its result, in order.

        Raises:
            DeepLabEdgeError: Whatever a stage raised.
        """
        for pair in self._results:
            yield pair
            if self._should_stop():
                return

    def close(self) -> None:
        """Ends all threads; those that cannot be ended are left behind."""
        for buffer in self._buffers:
            buffer.close()
        patience = _STOP_SECONDS if self._should_stop() else _CLOSE_SECONDS
        deadline = time.monotonic() + patience
        for buffer in self._buffers:
            self.is_stuck |= not buffer.join(deadline)
        if self._reader is None:
            _close(self._results)
            _close(self._source)

    def _stages(
        self, frames: Iterator[Frame], segmenter: ClipSegmenter
    ) -> Iterator[tuple[Frame, PanopticResult]]:
        if not segmenter.has_stages:
            pairs = ((frame, frame.image) for frame in frames)
            results = _by_clip(pairs, segmenter.segment_video)
        else:
            seen: Iterator[tuple[Frame, Seen]] = (
                (frame, segmenter.look(frame.image)) for frame in frames
            )
            if self._overlap:
                seen = self._ahead(seen, "network")
            results = _by_clip(seen, segmenter.finish_video)
        if self._overlap:
            results = self._ahead(results, "merge", should_stop=self._should_stop)
        return results

    def _ahead(self, items: Iterator[T], name: str, **options: Any) -> "_Buffer[T]":
        buffer = _Buffer(items, f"deeplab2-edge {name}", **options)
        self._buffers.append(buffer)
        return buffer


class _Buffer(Generic[T]):
    """Runs an iterator in a thread and hands on what it gives, in order.

    Args:
        items: Closed by the thread when it ends, if it can be.
        name: Of the thread.
        budget_ms: None makes the thread wait while there is no room. With a budget it
            never waits; see the rule of live sources above.
        should_stop: Ends the wait for the next item.
    """

    def __init__(
        self,
        items: Iterator[T],
        name: str,
        *,
        budget_ms: float | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        self.num_skipped = 0
        self._items = items
        self._budget_ms = budget_ms
        self._should_stop = should_stop
        self._waiting: collections.deque[tuple[float, T]] = collections.deque()
        self._error: BaseException | None = None
        self._has_ended = False
        self._is_closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        timeout = None if self._should_stop is None else _POLL_SECONDS
        with self._changed:
            while not self._is_closed:
                if self._should_stop is not None and self._should_stop():
                    break
                if self._waiting:
                    return self._take()
                if self._has_ended:
                    error, self._error = self._error, None
                    if error is not None:
                        raise error
                    break
                self._changed.wait(timeout)
        raise StopIteration

    def close(self) -> None:
        """Asks the thread to end, and whoever waits for it to go on."""
        with self._changed:
            self._is_closed = True
            self._waiting.clear()
            self._changed.notify_all()

    def join(self, deadline: float) -> bool:
        """Waits for the thread's end; says whether it came in time."""
        self._thread.join(max(deadline - time.monotonic(), 0))
        return not self._thread.is_alive()

    def _take(self) -> T:
        if self._budget_ms is not None:
            oldest, _ = self._waiting[0]
            if (time.monotonic() - oldest) * 1000 > self._budget_ms:
                while len(self._waiting) > 1:
                    self._skip()
        _, item = self._waiting.popleft()
        self._changed.notify_all()
        return item

    def _skip(self) -> None:
        self._waiting.popleft()
        self.num_skipped += 1

    def _work(self) -> None:
        error: BaseException | None = None
        try:
            for item in self._items:
                if not self._put(item):
                    break
            _close(self._items)
        # The other side raises it again.
        except BaseException as raised:
            error = raised
        with self._changed:
            self._error = error
            self._has_ended = True
            self._changed.notify_all()

    def _put(self, item: T) -> bool:
        """Adds an item; False if nobody wants it any more."""
        with self._changed:
            if self._budget_ms is not None:
                if len(self._waiting) == _LIVE_CAPACITY:
                    self._skip()
            else:
                while len(self._waiting) >= _CAPACITY and not self._is_closed:
                    self._changed.wait()
            if self._is_closed:
                return False
            self._waiting.append((time.monotonic(), item))
            self._changed.notify_all()
            return True


def _close(items: Iterator[Any]) -> None:
    """Lets a generator release what it holds; other iterators hold nothing."""
    close = getattr(items, "close", None)
    if close is not None:
        close()


def _by_clip(
    pairs: Iterator[tuple[Frame, T]], step: Callable[[Iterator[T]], Iterator[R]]
) -> Iterator[tuple[Frame, R]]:
    """Runs a step on what stands beside the frames, frames of equal size at a time.

    Instances are followed from pixel to pixel: another size begins a new video.
    """
    for _, clip in itertools.groupby(pairs, key=lambda pair: pair[0].image.shape):
        yield from _beside(clip, step)


def _beside(
    pairs: Iterator[tuple[Frame, T]], step: Callable[[Iterator[T]], Iterator[R]]
) -> Iterator[tuple[Frame, R]]:
    """Runs a step that gives one item for each it takes; the frames wait aside."""
    frames: collections.deque[Frame] = collections.deque()
    errors: list[Exception] = []

    def items() -> Iterator[T]:
        try:
            for frame, item in pairs:
                frames.append(frame)
                yield item
        except Exception as error:
            # A step that reads ahead still has a frame to give.
            errors.append(error)

    for result in step(items()):
        yield frames.popleft(), result
    for error in errors:
        raise error
