"""Panoptic quality of videos (VPQ), and with depth (DVPQ)."""

import collections
import math
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import DataError, UsageError
from deeplab2_edge.metrics.overlaps import Overlaps, count_overlaps, join_overlaps
from deeplab2_edge.metrics.panoptic_quality import (
    PanopticQuality,
    PanopticQualityResult,
)

# Of Cityscapes-DVPS; SemKITTI-DVPS is published with 1, 5, 10 and 20.
VPQ_WINDOWS = (1, 2, 3, 4)
# Largest relative errors of depth, of the published evaluation.
DVPQ_THRESHOLDS = (0.1, 0.25, 0.5)


@dataclass(frozen=True)
class VideoPanopticQualityResult:
    """Holds VPQ. Qualities are fractions, 0..1; NaN without a window.

    Attributes:
        vpq: Mean PQ over the window sizes that fit in some sequence.
        vpq_things: As `vpq`, thing classes only.
        vpq_stuff: As `vpq`, stuff classes only.
        per_window: Panoptic quality for each window size.
    """

    vpq: float
    vpq_things: float
    vpq_stuff: float
    per_window: dict[int, PanopticQualityResult]

    def to_json(self) -> dict[str, Any]:
        """Gives plain JSON values; NaN becomes null, window sizes go by their text."""
        return {
            "vpq": _number(self.vpq),
            "vpq_things": _number(self.vpq_things),
            "vpq_stuff": _number(self.vpq_stuff),
            "per_window": {
                str(size): result.to_json() for size, result in self.per_window.items()
            },
        }


class VideoPanopticQuality:
    """Accumulates windows of consecutive frames and gives their panoptic quality.

    The frames of a window count as one image: a segment is one panoptic id in all of
    them, so an instance must keep its id to be found. `update` slides windows over
    whole videos; `update_window` takes windows as they are, for example the two
    frames whose ids ViP-DeepLab has stitched.

    Memory holds tables of overlaps of the last frames of each sequence, no maps.

    References:
        Kim et al., Video Panoptic Segmentation, CVPR 2020, arXiv:2006.11339; Qiao et
        al., ViP-DeepLab, CVPR 2021, arXiv:2012.05258.
    """

    def __init__(
        self,
        num_classes: int,
        ignore_label: int,
        *,
        label_divisor: int,
        thing_ids: Collection[int],
        windows: Sequence[int] = VPQ_WINDOWS,
    ) -> None:
        """Starts with no windows.

        Args:
            num_classes: See `PanopticQuality`, as for all but the last.
            ignore_label: See `PanopticQuality`.
            label_divisor: See `PanopticQuality`.
            thing_ids: See `PanopticQuality`.
            windows: Numbers of frames in a window.
        """
        if not windows or min(windows) < 1 or len(set(windows)) < len(windows):
            raise UsageError(
                f"windows are {list(windows)}; expected different numbers of frames, "
                "each at least 1"
            )
        self.qualities = {
            size: PanopticQuality(
                num_classes,
                ignore_label,
                label_divisor=label_divisor,
                thing_ids=thing_ids,
            )
            for size in sorted(windows)
        }
        self._last: dict[Hashable, collections.deque[Overlaps]] = {}

    def update(
        self,
        groundtruth: NDArray[np.integer],
        prediction: NDArray[np.integer],
        *,
        sequence: Hashable,
    ) -> None:
        """Counts the windows that end with this frame.

        Frames of one sequence must come in order; sequences may alternate.

        Args:
            groundtruth: `[H, W]` panoptic ids; an instance keeps its id in a sequence.
            prediction: `[H, W]` panoptic ids, likewise.
            sequence: Name or number of the sequence.

        Raises:
            DataError: If the shapes differ or an id has an unknown class.
        """
        self.add_overlaps(count_overlaps(groundtruth, prediction), sequence=sequence)

    def add_overlaps(self, overlaps: Overlaps, *, sequence: Hashable) -> None:
        """Counts the windows that end with a frame whose overlaps are known.

        Raises:
            DataError: If an id has an unknown class.
        """
        if sequence not in self._last:
            longest = max(self.qualities)
            self._last[sequence] = collections.deque(maxlen=longest)
        last = self._last[sequence]
        last.append(overlaps)
        frames = list(last)
        for size, quality in self.qualities.items():
            if size <= len(frames):
                quality.add_overlaps(join_overlaps(frames[-size:]))

    def update_window(
        self,
        groundtruths: Sequence[NDArray[np.integer]],
        predictions: Sequence[NDArray[np.integer]],
    ) -> None:
        """Counts one window, whose ids have nothing to do with other windows.

        Args:
            groundtruths: `[H, W]` panoptic ids of each frame.
            predictions: `[H, W]` panoptic ids of each frame.

        Raises:
            DataError: If shapes differ or an id has an unknown class.
            UsageError: If there is no window of so many frames.
        """
        size = len(groundtruths)
        if size not in self.qualities or len(predictions) != size:
            raise UsageError(
                f"a window has {size} true and {len(predictions)} predicted frames; "
                f"expected as many of both, one of {sorted(self.qualities)}"
            )
        parts = [
            count_overlaps(*p) for p in zip(groundtruths, predictions, strict=True)
        ]
        self.qualities[size].add_overlaps(join_overlaps(parts))

    def merge(self, other: "VideoPanopticQuality") -> None:
        """Adds what another accumulator of the same settings has counted.

        Raises:
            UsageError: If the other one counts other classes or windows, or both have
                seen frames of one sequence: its windows would lack the transition.
        """
        if self.qualities.keys() != other.qualities.keys():
            raise UsageError("accumulators of different windows cannot be merged")
        common = sorted(map(str, self._last.keys() & other._last.keys()))
        if common and max(self.qualities) > 1:
            raise UsageError(
                f"sequence {common[0]} was counted by both accumulators; all frames "
                "of a sequence must go to one"
            )
        for size, quality in self.qualities.items():
            quality.merge(other.qualities[size])
        self._last.update(other._last)

    def result(self) -> VideoPanopticQualityResult:
        """Gives the figures over all windows so far."""
        results = {size: q.result() for size, q in self.qualities.items()}
        return VideoPanopticQualityResult(
            vpq=_mean(r.pq for r in results.values()),
            vpq_things=_mean(r.pq_things for r in results.values()),
            vpq_stuff=_mean(r.pq_stuff for r in results.values()),
            per_window=results,
        )


@dataclass(frozen=True)
class DepthVideoPanopticQualityResult:
    """Holds DVPQ. Qualities are fractions, 0..1; NaN without a window.

    Attributes:
        dvpq: Mean over all thresholds and window sizes.
        dvpq_things: As `dvpq`, thing classes only.
        dvpq_stuff: As `dvpq`, stuff classes only.
        per_threshold: VPQ for each threshold.
    """

    dvpq: float
    dvpq_things: float
    dvpq_stuff: float
    per_threshold: dict[float, VideoPanopticQualityResult]

    def to_json(self) -> dict[str, Any]:
        """Gives plain JSON values; NaN becomes null, thresholds go by their text."""
        return {
            "dvpq": _number(self.dvpq),
            "dvpq_things": _number(self.dvpq_things),
            "dvpq_stuff": _number(self.dvpq_stuff),
            "per_threshold": {
                str(t): result.to_json() for t, result in self.per_threshold.items()
            },
        }


class DepthVideoPanopticQuality:
    """Accumulates frames with depth and gives depth-aware VPQ.

    For each threshold, predicted pixels whose depth is wrong by more become void;
    then VPQ is measured. Pixels without a true depth stay as they are.

    References:
        Qiao et al., ViP-DeepLab, CVPR 2021, arXiv:2012.05258.
    """

    def __init__(
        self,
        num_classes: int,
        ignore_label: int,
        *,
        label_divisor: int,
        thing_ids: Collection[int],
        windows: Sequence[int] = VPQ_WINDOWS,
        thresholds: Sequence[float] = DVPQ_THRESHOLDS,
    ) -> None:
        """Starts with no windows.

        Args:
            num_classes: See `VideoPanopticQuality`, as for all but the last.
            ignore_label: See `VideoPanopticQuality`.
            label_divisor: See `VideoPanopticQuality`.
            thing_ids: See `VideoPanopticQuality`.
            windows: See `VideoPanopticQuality`.
            thresholds: Largest errors of depth, relative to the true depth.
        """
        if not thresholds or min(thresholds) <= 0:
            raise UsageError(f"depth thresholds are {thresholds}; each must be above 0")
        self._void = ignore_label * label_divisor
        self.qualities = {
            threshold: VideoPanopticQuality(
                num_classes,
                ignore_label,
                label_divisor=label_divisor,
                thing_ids=thing_ids,
                windows=windows,
            )
            for threshold in thresholds
        }

    def update(
        self,
        groundtruth: NDArray[np.integer],
        prediction: NDArray[np.integer],
        depth_groundtruth: NDArray[np.floating],
        depth_prediction: NDArray[np.floating],
        *,
        sequence: Hashable,
    ) -> None:
        """Counts the windows that end with this frame.

        Args:
            groundtruth: `[H, W]` panoptic ids.
            prediction: `[H, W]` panoptic ids.
            depth_groundtruth: `[H, W]` depth, 0 where unknown.
            depth_prediction: `[H, W]` depth, in the same unit.
            sequence: Name or number of the sequence; see `VideoPanopticQuality`.

        Raises:
            DataError: If shapes differ or an id has an unknown class.
        """
        for name, array in (
            ("ground truth", depth_groundtruth),
            ("prediction", depth_prediction),
            ("prediction of classes", prediction),
        ):
            if array.shape != groundtruth.shape:
                raise DataError(
                    f"depth {name} has shape {array.shape}; expected "
                    f"{groundtruth.shape}, the shape of the panoptic ground truth"
                )
        true = depth_groundtruth.astype(np.float64)
        error = np.abs(true - depth_prediction)
        for threshold, quality in self.qualities.items():
            # What is not a number is not within the threshold either.
            is_wrong = (true > 0) & ~(error <= threshold * true)
            kept = np.where(is_wrong, self._void, prediction)
            quality.update(groundtruth, kept, sequence=sequence)

    def merge(self, other: "DepthVideoPanopticQuality") -> None:
        """Adds what another accumulator of the same settings has counted.

        Raises:
            UsageError: As `VideoPanopticQuality.merge`, or if thresholds differ.
        """
        if self.qualities.keys() != other.qualities.keys():
            raise UsageError("accumulators of different thresholds cannot be merged")
        for threshold, quality in self.qualities.items():
            quality.merge(other.qualities[threshold])

    def result(self) -> DepthVideoPanopticQualityResult:
        """Gives the figures over all windows so far."""
        results = {t: quality.result() for t, quality in self.qualities.items()}
        return DepthVideoPanopticQualityResult(
            dvpq=_mean(r.vpq for r in results.values()),
            dvpq_things=_mean(r.vpq_things for r in results.values()),
            dvpq_stuff=_mean(r.vpq_stuff for r in results.values()),
            per_threshold=results,
        )


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
