"""The frames of a video in, a result for each out."""

import collections
from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.runtime.predictors import Seen
from deeplab2_edge.runtime.results import PanopticResult
from deeplab2_edge.runtime.tracking import ResultTracker, TrackingOptions


class ClipSegmenter(Protocol):
    """Segments videos, and images as videos of one frame."""

    @property
    def name(self) -> str:
        """Of the model."""

    @property
    def keeps_ids(self) -> bool:
        """Whether equal ids in frames of one video are the same instance."""

    @property
    def num_frames_ahead(self) -> int:
        """How many frames `segment_video` reads beyond the one it gives."""

    @property
    def has_stages(self) -> bool:
        """Whether `look` and `finish_video` can do what `segment_video` does."""

    def look(self, image: NDArray[np.uint8]) -> Seen:
        """Runs the network alone on a `[H, W, 3]` RGB image."""

    def finish_video(self, seen: Iterable[Seen]) -> Iterator[PanopticResult]:
        """Yields one result per frame of a video, in order."""

    def segment_video(
        self, frames: Iterable[NDArray[np.uint8]]
    ) -> Iterator[PanopticResult]:
        """Yields one result per frame, in order; may read frames ahead."""


class TrackingSegmenter:
    """Lets the instances of a video keep their ids; see `tracking.ResultTracker`.

    Args:
        segmenter: A model of one image.
        options: How instances are followed.
    """

    keeps_ids = True

    def __init__(
        self, segmenter: ClipSegmenter, options: TrackingOptions | None = None
    ) -> None:
        self.name = segmenter.name
        self._segmenter = segmenter
        self._options = options
        self.has_stages = segmenter.has_stages
        self.num_frames_ahead = segmenter.num_frames_ahead
        self.look = segmenter.look

    def finish_video(self, seen: Iterable[Seen]) -> Iterator[PanopticResult]:
        """Yields one result per frame; see `segment_video` for what it raises."""
        return track_results(self._segmenter.finish_video(seen), self._options)

    def segment_video(
        self, frames: Iterable[NDArray[np.uint8]]
    ) -> Iterator[PanopticResult]:
        """Yields one result per frame.

        Raises:
            DataError: If a frame is no RGB image.
            UsageError: If a frame has more instances than there are ids, or frames are
                of several sizes.
        """
        return track_results(self._segmenter.segment_video(frames), self._options)


def track_results(
    results: Iterable[PanopticResult], options: TrackingOptions | None = None
) -> Iterator[PanopticResult]:
    """Gives the instances of the frames of one video ids that stay the same."""
    tracker: ResultTracker | None = None
    for result in results:
        tracker = tracker or ResultTracker(result.metadata, options)
        yield tracker(result)


class VideoSession:
    """Takes the frames of a video one by one, as a loop around a camera has them.

    It remembers what the model does: the last frame, tracks, the next id. After an
    error it has forgotten all that, as after `reset`.

    Args:
        segmenter: A `PanopticSegmenter` of any family, or a `TrackingSegmenter`.

    Example:
        >>> session = VideoSession(TrackingSegmenter(segmenter))  # doctest: +SKIP
        >>> while (frame := camera.read()) is not None:  # doctest: +SKIP
        ...     result = session(frame)
        ...     if result is not None:
        ...         show(result.overlay())
        >>> last = session.flush()  # doctest: +SKIP
    """

    def __init__(self, segmenter: ClipSegmenter) -> None:
        self._segmenter = segmenter
        self.reset()

    def reset(self) -> None:
        """Forgets everything: the next frame begins a video; ids start again."""
        self._waiting: collections.deque[NDArray[np.uint8]] = collections.deque()
        self._num_missing = self._segmenter.num_frames_ahead
        self._results = self._segmenter.segment_video(self._frames())

    def __call__(self, frame: NDArray[np.uint8]) -> PanopticResult | None:
        """Takes the next frame, uint8 `[H, W, 3]` RGB.

        Returns:
            Its result. Of ViP-DeepLab, which looks at each frame with the next one,
            that of the frame before (`result.image` is that frame), and None for the
            first.

        Raises:
            DataError: If the frame is no RGB image.
            UsageError: If the frame has another size than the one before, or the
                frame more instances than ids.
        """
        self._waiting.append(frame)
        if self._num_missing:
            self._num_missing -= 1
            return None
        try:
            return next(self._results)
        except BaseException:
            self.reset()
            raise

    def flush(self) -> PanopticResult | None:
        """Ends the video and gives the result that is still due, if there is one.

        The next frame begins a video, as after `reset`.
        """
        result = next(self._results, None)
        self.reset()
        return result

    def _frames(self) -> Iterator[NDArray[np.uint8]]:
        """Gives the frames that wait; asked for more, there are none: the end."""
        waiting = self._waiting
        while waiting:
            yield waiting.popleft()
