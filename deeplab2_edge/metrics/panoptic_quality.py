"""Panoptic quality, as the published evaluation computes it."""

import math
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.metrics.accumulator import PanopticMetric, plain
from deeplab2_edge.metrics.overlaps import Overlaps, count_overlaps


@dataclass(frozen=True)
class ClassQuality:
    """Holds the figures of one class: qualities as fractions, counts of segments."""

    pq: float
    sq: float
    rq: float
    tp: int
    fp: int
    fn: int


@dataclass(frozen=True)
class PanopticQualityResult:
    """Holds panoptic quality. Qualities are fractions, 0..1; NaN without classes.

    Attributes:
        pq: Mean panoptic quality over the classes in `per_class`.
        sq: Mean segmentation quality over the same classes.
        rq: Mean recognition quality over the same classes.
        tp: Mean (not total) number of true positives per class.
        fp: Mean number of false positives per class.
        fn: Mean number of false negatives per class.
        pq_things: As `pq`, thing classes only; so `sq_things`, `rq_things`.
        pq_stuff: As `pq`, stuff classes only; so `sq_stuff`, `rq_stuff`.
        per_class: Figures of every class with at least one segment that counts.
    """

    pq: float
    sq: float
    rq: float
    tp: float
    fp: float
    fn: float
    pq_things: float
    sq_things: float
    rq_things: float
    pq_stuff: float
    sq_stuff: float
    rq_stuff: float
    per_class: dict[int, ClassQuality]

    def to_json(self) -> dict[str, Any]:
        """Gives plain JSON values; NaN becomes null."""
        return plain(asdict(self))


class PanopticQuality(PanopticMetric):
    """Accumulates matched segments over images and gives the panoptic quality.

    A segment is one panoptic id of one image. A predicted and a true segment of
    equal class match if their IoU is above 0.5, where pixels of the prediction on
    void do not count. An unmatched prediction of which more than half lies on void is
    no mistake. Void is exactly the id `ignore_label * label_divisor`.

    References:
        Kirillov et al., Panoptic Segmentation, CVPR 2019, arXiv:1801.00868.
    """

    def __init__(
        self,
        num_classes: int,
        ignore_label: int,
        *,
        label_divisor: int,
        thing_ids: Collection[int],
        count_crowds: bool = True,
    ) -> None:
        """Starts with no segments.

        Args:
            num_classes: Classes are 0 to `num_classes - 1`.
            ignore_label: Class of void; may be below `num_classes`.
            label_divisor: Panoptic ids are `class * label_divisor + instance`.
            thing_ids: Classes with instances, for the split of the result.
            count_crowds: Whether a crowd (instance 0 of a thing class) is a segment
                to be found. False follows the official tools of COCO and Cityscapes:
                a crowd is never missed, and predictions of its class that lie mostly
                on it or on void are no mistakes.
        """
        super().__init__(
            num_classes,
            ignore_label,
            label_divisor=label_divisor,
            thing_ids=thing_ids,
        )
        self.count_crowds = count_crowds
        self.iou_sum: NDArray[np.float64] = np.zeros(num_classes, np.float64)
        self.tp: NDArray[np.int64] = np.zeros(num_classes, np.int64)
        self.fp: NDArray[np.int64] = np.zeros(num_classes, np.int64)
        self.fn: NDArray[np.int64] = np.zeros(num_classes, np.int64)

    def update(
        self, groundtruth: NDArray[np.integer], prediction: NDArray[np.integer]
    ) -> None:
        """Counts the segments of one image.

        Args:
            groundtruth: `[H, W]` panoptic ids.
            prediction: `[H, W]` panoptic ids.

        Raises:
            DataError: If the shapes differ or an id has an unknown class.
        """
        self.add_overlaps(count_overlaps(groundtruth, prediction))

    def add_overlaps(self, overlaps: Overlaps) -> None:
        """Counts the segments of one image, or of several frames taken as one.

        Raises:
            DataError: If an id has an unknown class.
        """
        true_ids, true_area = overlaps.true_ids, overlaps.true_area
        pred_ids, pred_area = overlaps.pred_ids, overlaps.pred_area
        true_at, pred_at = overlaps.true_at, overlaps.pred_at
        shared = overlaps.shared
        true_class = self._classes_of(true_ids, "ground truth")
        pred_class = self._classes_of(pred_ids, "prediction")
        is_crowd = np.zeros(true_ids.size, bool)
        if not self.count_crowds:
            is_crowd = np.isin(true_class, sorted(self.thing_ids))
            is_crowd &= true_ids % self.label_divisor == 0

        is_void = true_ids[true_at] == self.ignore_label * self.label_divisor
        on_void = np.zeros(pred_ids.size, np.int64)
        on_void[pred_at[is_void]] = shared[is_void]

        is_same = true_class[true_at] == pred_class[pred_at]
        is_same &= true_class[true_at] != self.ignore_label
        # Where crowds are forgiven, they excuse predictions but do not shrink unions.
        excused = on_void.copy()
        on_crowd = is_same & is_crowd[true_at]
        excused[pred_at[on_crowd]] += shared[on_crowd]
        is_same &= ~is_crowd[true_at]
        true_at, pred_at, shared = true_at[is_same], pred_at[is_same], shared[is_same]
        union = true_area[true_at] + pred_area[pred_at] - shared - on_void[pred_at]
        is_match = 2 * shared > union
        true_at, pred_at = true_at[is_match], pred_at[is_match]
        iou = shared[is_match] / union[is_match]

        is_missed = (true_class != self.ignore_label) & ~is_crowd
        is_missed[true_at] = False
        is_wrong = (pred_class != self.ignore_label) & (2 * excused <= pred_area)
        is_wrong[pred_at] = False
        np.add.at(self.iou_sum, true_class[true_at], iou)
        np.add.at(self.tp, true_class[true_at], 1)
        np.add.at(self.fn, true_class[is_missed], 1)
        np.add.at(self.fp, pred_class[is_wrong], 1)

    def merge(self, other: "PanopticQuality") -> None:
        """Adds what another accumulator of the same classes has counted.

        Raises:
            UsageError: If the other one counts other classes.
        """
        self._check_mergeable(other)
        self.iou_sum += other.iou_sum
        self.tp += other.tp
        self.fp += other.fp
        self.fn += other.fn

    def result(self) -> PanopticQualityResult:
        """Gives the figures over everything counted so far."""
        per_class = {
            int(c): self._quality(int(c))
            for c in np.flatnonzero(self.tp + self.fp + self.fn)
        }
        things = [q for c, q in per_class.items() if c in self.thing_ids]
        stuff = [q for c, q in per_class.items() if c not in self.thing_ids]
        every = list(per_class.values())
        return PanopticQualityResult(
            pq=_mean(q.pq for q in every),
            sq=_mean(q.sq for q in every),
            rq=_mean(q.rq for q in every),
            tp=_mean(q.tp for q in every),
            fp=_mean(q.fp for q in every),
            fn=_mean(q.fn for q in every),
            pq_things=_mean(q.pq for q in things),
            sq_things=_mean(q.sq for q in things),
            rq_things=_mean(q.rq for q in things),
            pq_stuff=_mean(q.pq for q in stuff),
            sq_stuff=_mean(q.sq for q in stuff),
            rq_stuff=_mean(q.rq for q in stuff),
            per_class=per_class,
        )

    def _quality(self, class_id: int) -> ClassQuality:
        tp, fp, fn = (int(a[class_id]) for a in (self.tp, self.fp, self.fn))
        sq = float(self.iou_sum[class_id]) / tp if tp else 0.0
        rq = tp / (tp + fp / 2 + fn / 2)
        return ClassQuality(pq=sq * rq, sq=sq, rq=rq, tp=tp, fp=fp, fn=fn)

    def _key(self) -> tuple[object, ...]:
        return *super()._key(), self.count_crowds


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed) if listed else math.nan
