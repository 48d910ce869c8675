"""The frames of a video in, a result for each out."""

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.runtime.predictors import Seen
from deeplab2_edge.runtime.results import PanopticResult
from deeplab2_edge.runtime.tracking import ResultTracker


class ClipSegmenter(Protocol):
    """Segments videos, and images as videos of one frame."""

    @property
    def name(self) -> str:
        """Of the model."""

    @property
    def keeps_ids(self) -> bool:
        """Whether equal ids in frames of one video are the same instance."""

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
    """Lets instances that overlap from frame to frame keep their ids.

    Args:
        segmenter: A model of one image.
    """

    keeps_ids = True

    def __init__(self, segmenter: ClipSegmenter) -> None:
        self.name = segmenter.name
        self._segmenter = segmenter
        self.has_stages = segmenter.has_stages
        self.look = segmenter.look

    def finish_video(self, seen: Iterable[Seen]) -> Iterator[PanopticResult]:
        """Yields one result per frame; see `segment_video` for what it raises."""
        return track_results(self._segmenter.finish_video(seen))

    def segment_video(
        self, frames: Iterable[NDArray[np.uint8]]
    ) -> Iterator[PanopticResult]:
        """Yields one result per frame.

        Raises:
            DataError: If a frame is no RGB image.
            UsageError: If a video has more instances than ids, or frames of several
                sizes.
        """
        return track_results(self._segmenter.segment_video(frames))


def track_results(results: Iterable[PanopticResult]) -> Iterator[PanopticResult]:
    """Gives the instances of the frames of one video ids that stay the same."""
    tracker: ResultTracker | None = None
    for result in results:
        tracker = tracker or ResultTracker(result.metadata)
        yield tracker(result)
