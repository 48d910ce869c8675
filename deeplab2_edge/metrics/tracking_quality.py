"""Segmentation and tracking quality (STQ) of videos, and with depth (DSTQ)."""

import math
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import UsageError
from deeplab2_edge.metrics.accumulator import PanopticMetric
from deeplab2_edge.metrics.depth import DEPTH_THRESHOLDS, count_depth_inliers
from deeplab2_edge.metrics.overlaps import Overlaps, count_overlaps


@dataclass(frozen=True)
class SequenceQuality:
    """Holds the figures of one sequence, as fractions.

    Attributes:
        stq: Segmentation and tracking quality, `sqrt(aq * sq)`.
        aq: Association quality; 0 if there is no instance to track.
        sq: Segmentation quality: mean IoU; 0 if there is no class.
        num_frames: How many frames were counted.
        num_tubes: How many instances the ground truth tracks.
    """

    stq: float
    aq: float
    sq: float
    num_frames: int
    num_tubes: int


@dataclass(frozen=True)
class TrackingQualityResult:
    """Holds STQ over all sequences. All figures are fractions, 0..1.

    Attributes:
        stq: `sqrt(aq * sq)`.
        aq: Mean over the instances of all sequences; 0 if there are none.
        sq: Mean IoU over `per_class`, from the pixels of all sequences.
        per_class: IoU of every class that occurs, pixels of void not counted.
            Predicted void counts as one more class, the ignore label, with IoU 0.
        per_sequence: Figures of each sequence, in the order of first appearance.
    """

    stq: float
    aq: float
    sq: float
    per_class: dict[int, float]
    per_sequence: dict[Hashable, SequenceQuality]

    def to_json(self) -> dict[str, Any]:
        """Gives plain JSON values; sequences go by the text of their names."""
        return {
            "stq": self.stq,
            "aq": self.aq,
            "sq": self.sq,
            "per_class": dict(self.per_class),
            "per_sequence": {
                str(name): vars(quality) for name, quality in self.per_sequence.items()
            },
        }


@dataclass
class _Sequence:
    """Holds what one sequence has shown; tubes go by panoptic id."""

    confusion: NDArray[np.float64]
    num_frames: int = 0
    true_area: dict[int, float] = field(default_factory=dict)
    pred_area: dict[int, float] = field(default_factory=dict)
    shared: dict[tuple[int, int], float] = field(default_factory=dict)

    def add(self, other: "_Sequence") -> None:
        self.confusion += other.confusion
        self.num_frames += other.num_frames
        _add_counts(self.true_area, other.true_area)
        _add_counts(self.pred_area, other.pred_area)
        _add_counts(self.shared, other.shared)

    def association(self) -> float:
        """Gives the sum of the association qualities of all true tubes."""
        total = 0.0
        for (true_id, pred_id), shared in self.shared.items():
            true_area, pred_area = self.true_area[true_id], self.pred_area[pred_id]
            iou = shared / (true_area + pred_area - shared)
            total += shared * iou / true_area
        return total


class TrackingQuality(PanopticMetric):
    """Accumulates frames of videos and gives segmentation and tracking quality.

    SQ is the mean IoU of the classes; void of the ground truth does not count, void
    that is predicted elsewhere does. AQ compares tubes, all pixels of a panoptic id
    in one sequence: tubes of the ground truth are instances of things (crowds are
    not), tubes of the prediction all segments of thing classes, without their pixels
    on crowds. STQ is the geometric mean of both.

    Memory holds a confusion matrix and the areas of tubes per sequence, no frames.

    References:
        Weber et al., STEP: Segmenting and Tracking Every Pixel, NeurIPS 2021,
        arXiv:2102.11859.
    """

    def __init__(
        self,
        num_classes: int,
        ignore_label: int,
        *,
        label_divisor: int,
        thing_ids: Collection[int],
    ) -> None:
        """Starts with no frames.

        Args:
            num_classes: Classes are 0 to `num_classes - 1`.
            ignore_label: Class of void; may be below `num_classes`.
            label_divisor: Panoptic ids are `class * label_divisor + instance`.
            thing_ids: Classes whose instances are tracked.
        """
        super().__init__(
            num_classes,
            ignore_label,
            label_divisor=label_divisor,
            thing_ids=thing_ids,
        )
        # Void above the classes gets a row and a column of its own.
        self._void = min(ignore_label, num_classes)
        self._size = max(num_classes, self._void + 1)
        self._sequences: dict[Hashable, _Sequence] = {}

    def update(
        self,
        groundtruth: NDArray[np.integer],
        prediction: NDArray[np.integer],
        *,
        sequence: Hashable,
        weights: NDArray[np.floating] | None = None,
    ) -> None:
        """Counts one frame.

        Args:
            groundtruth: `[H, W]` panoptic ids; an instance keeps its id in a sequence.
            prediction: `[H, W]` panoptic ids, likewise.
            sequence: Name or number of the sequence.
            weights: `[H, W]` what a pixel counts, by default 1; below 1, for example,
                where cameras overlap.

        Raises:
            DataError: If shapes differ, an id has an unknown class, or a weight is
                negative.
        """
        overlaps = count_overlaps(groundtruth, prediction, weights=weights)
        self.add_overlaps(overlaps, sequence=sequence)

    def add_overlaps(self, overlaps: Overlaps, *, sequence: Hashable) -> None:
        """Counts one frame whose overlaps are known.

        Raises:
            DataError: If an id has an unknown class.
        """
        true_class = self._classes_of(overlaps.true_ids, "ground truth")
        pred_class = self._classes_of(overlaps.pred_ids, "prediction")
        things = np.array(sorted(self.thing_ids), np.int64)
        is_thing = np.isin(true_class, things)
        is_tube = is_thing & (overlaps.true_ids % self.label_divisor != 0)
        is_crowd = is_thing & ~is_tube
        true_at, pred_at = overlaps.true_at, overlaps.pred_at

        frame = _Sequence(np.zeros((self._size, self._size)), num_frames=1)
        rows = np.minimum(true_class, self.num_classes)[true_at]
        columns = np.minimum(pred_class, self.num_classes)[pred_at]
        np.add.at(frame.confusion, (rows, columns), overlaps.shared)
        for at in np.flatnonzero(is_tube).tolist():
            frame.true_area[int(overlaps.true_ids[at])] = float(overlaps.true_area[at])
        is_counted = np.isin(pred_class, things)[pred_at] & ~is_crowd[true_at]
        true_ids = overlaps.true_ids[true_at[is_counted]].tolist()
        pred_ids = overlaps.pred_ids[pred_at[is_counted]].tolist()
        shared = overlaps.shared[is_counted].tolist()
        of_tube = is_tube[true_at[is_counted]].tolist()
        for true_id, pred_id, area, is_pair in zip(
            true_ids, pred_ids, shared, of_tube, strict=True
        ):
            frame.pred_area[pred_id] = frame.pred_area.get(pred_id, 0.0) + area
            if is_pair and area:
                frame.shared[true_id, pred_id] = area
        self._add(sequence, frame)

    def merge(self, other: "TrackingQuality") -> None:
        """Adds what another accumulator of the same classes has counted.

        Frames of a sequence may be spread over accumulators; equal names then mean
        the same sequence.

        Raises:
            UsageError: If the other one counts other classes.
        """
        self._check_mergeable(other)
        for name, counts in other._sequences.items():
            self._add(name, counts)

    def result(self) -> TrackingQualityResult:
        """Gives the figures over everything counted so far; 0 without frames."""
        per_sequence: dict[Hashable, SequenceQuality] = {}
        confusion = np.zeros((self._size, self._size))
        association, num_tubes = 0.0, 0
        for name, counts in self._sequences.items():
            confusion += counts.confusion
            its_association, tubes = counts.association(), len(counts.true_area)
            association += its_association
            num_tubes += tubes
            aq = its_association / tubes if tubes else 0.0
            sq = _mean_iou(self._class_ious(counts.confusion))
            per_sequence[name] = SequenceQuality(
                math.sqrt(aq * sq), aq, sq, counts.num_frames, tubes
            )
        aq = association / num_tubes if num_tubes else 0.0
        per_class = self._class_ious(confusion)
        sq = _mean_iou(per_class)
        return TrackingQualityResult(
            math.sqrt(aq * sq), aq, sq, per_class, per_sequence
        )

    def confusion(self, sequence: Hashable) -> NDArray[np.float64]:
        """Gives the confusion matrix of a sequence, rows ground truth, void included.

        Void is the last row and column if the ignore label is not one of the classes.
        """
        return self._sequences[sequence].confusion.copy()

    def _class_ious(self, confusion: NDArray[np.float64]) -> dict[int, float]:
        counted = confusion.copy()
        counted[self._void] = 0.0
        hits = np.diag(counted)
        union = counted.sum(axis=0) + counted.sum(axis=1) - hits
        return {
            self.ignore_label if c == self._void else int(c): float(hits[c] / union[c])
            for c in np.flatnonzero(union)
        }

    def _add(self, sequence: Hashable, counts: _Sequence) -> None:
        if sequence not in self._sequences:
            self._sequences[sequence] = _Sequence(np.zeros((self._size, self._size)))
        self._sequences[sequence].add(counts)


@dataclass(frozen=True)
class DepthTrackingQualityResult:
    """Holds DSTQ. All figures are fractions, 0..1.

    Attributes:
        dstq: `(stq ** 2 * dq) ** (1 / 3)`.
        dq: Depth quality: geometric mean over the thresholds.
        per_threshold: For each threshold (DSTQ, DQ).
        per_sequence: For each sequence and threshold (DSTQ, DQ); 0 without depth.
        tracking: STQ and its parts.
    """

    dstq: float
    dq: float
    per_threshold: dict[float, tuple[float, float]]
    per_sequence: dict[Hashable, dict[float, tuple[float, float]]]
    tracking: TrackingQualityResult

    def to_json(self) -> dict[str, Any]:
        """Gives plain JSON values; thresholds and sequences go by their text."""
        return {
            "dstq": self.dstq,
            "dq": self.dq,
            "per_threshold": _depth_json(self.per_threshold),
            "per_sequence": {
                str(name): _depth_json(figures)
                for name, figures in self.per_sequence.items()
            },
            "tracking": self.tracking.to_json(),
        }


class DepthTrackingQuality:
    """Accumulates frames with depth and gives depth-aware STQ.

    DQ at a threshold t is the share of pixels with known depth whose prediction is
    above 0 and wrong by at most the factor t.

    References:
        Qiao et al., ViP-DeepLab, CVPR 2021; Weber et al., NeurIPS 2021.
    """

    def __init__(
        self,
        num_classes: int,
        ignore_label: int,
        *,
        label_divisor: int,
        thing_ids: Collection[int],
        thresholds: Sequence[float] = DEPTH_THRESHOLDS,
    ) -> None:
        """Starts with no frames.

        Args:
            num_classes: See `TrackingQuality`, as for all but the last.
            ignore_label: See `TrackingQuality`.
            label_divisor: See `TrackingQuality`.
            thing_ids: See `TrackingQuality`.
            thresholds: Largest factors between true and predicted depth.
        """
        if not thresholds or min(thresholds) < 1:
            raise UsageError(f"depth thresholds are {thresholds}; each must be >= 1")
        self.tracking = TrackingQuality(
            num_classes,
            ignore_label,
            label_divisor=label_divisor,
            thing_ids=thing_ids,
        )
        self.thresholds = tuple(thresholds)
        # Per sequence: pixels with depth, then inliers for each threshold.
        self._counts: dict[Hashable, NDArray[np.int64]] = {}

    def update(
        self,
        groundtruth: NDArray[np.integer],
        prediction: NDArray[np.integer],
        depth_groundtruth: NDArray[np.floating],
        depth_prediction: NDArray[np.floating],
        *,
        sequence: Hashable,
    ) -> None:
        """Counts one frame.

        Args:
            groundtruth: `[H, W]` panoptic ids.
            prediction: `[H, W]` panoptic ids.
            depth_groundtruth: `[H, W]` depth, 0 where unknown.
            depth_prediction: `[H, W]` depth, in the same unit.
            sequence: Name or number of the sequence.

        Raises:
            DataError: If shapes differ or an id has an unknown class.
        """
        counts = count_depth_inliers(
            depth_groundtruth, depth_prediction, self.thresholds
        )
        self.tracking.update(groundtruth, prediction, sequence=sequence)
        self._counts[sequence] = self._counts.get(sequence, 0) + counts

    def merge(self, other: "DepthTrackingQuality") -> None:
        """Adds what another accumulator of the same settings has counted.

        Raises:
            UsageError: If the other one counts other classes or thresholds.
        """
        if self.thresholds != other.thresholds:
            raise UsageError("accumulators of different thresholds cannot be merged")
        self.tracking.merge(other.tracking)
        for name, counts in other._counts.items():
            self._counts[name] = self._counts.get(name, 0) + counts

    def result(self) -> DepthTrackingQualityResult:
        """Gives the figures over everything counted so far."""
        tracking = self.tracking.result()
        total = sum(self._counts.values(), np.zeros(len(self.thresholds) + 1, np.int64))
        per_threshold = self._figures(total, tracking.stq)
        qualities = [dq for _, dq in per_threshold.values()]
        dq = math.prod(qualities) ** (1 / len(qualities))
        return DepthTrackingQualityResult(
            dstq=(tracking.stq**2 * dq) ** (1 / 3),
            dq=dq,
            per_threshold=per_threshold,
            per_sequence={
                name: self._figures(counts, tracking.per_sequence[name].stq)
                for name, counts in self._counts.items()
            },
            tracking=tracking,
        )

    def _figures(
        self, counts: NDArray[np.int64], stq: float
    ) -> dict[float, tuple[float, float]]:
        figures = {}
        for threshold, inliers in zip(
            self.thresholds, counts[1:].tolist(), strict=True
        ):
            dq = inliers / int(counts[0]) if counts[0] else 0.0
            figures[threshold] = ((stq**2 * dq) ** (1 / 3), dq)
        return figures


def _add_counts(target: dict[Any, float], source: dict[Any, float]) -> None:
    for key, value in source.items():
        target[key] = target.get(key, 0.0) + value


def _mean_iou(per_class: dict[int, float]) -> float:
    return sum(per_class.values()) / len(per_class) if per_class else 0.0


def _depth_json(figures: dict[float, tuple[float, float]]) -> dict[str, Any]:
    return {
        str(threshold): {"dstq": dstq, "dq": dq}
        for threshold, (dstq, dq) in figures.items()
    }
