"""Id switches and the other figures of multi-object tracking, on masks."""

import math
from collections.abc import Collection, Hashable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.metrics.accumulator import (
    PanopticMetric,
    SequenceResult,
    check_disjoint,
    plain,
)
from deeplab2_edge.metrics.overlaps import Overlaps, count_overlaps
from deeplab2_edge.panoptic import assign


@dataclass(frozen=True)
class IdentityFigures:
    """Holds what tracking did to the instances of one sequence, or of all.

    Counts are of instances in frames (one instance in ten frames counts ten times)
    unless said otherwise. Qualities are fractions; NaN where nothing is to be counted.

    Attributes:
        num_frames: Frames.
        num_tracks: True tracks.
        num_true: True instances.
        tp: True instances that are found: one of equal class with IoU above 0.5.
        fp: Predicted instances that are none.
        fn: True instances that are missed.
        id_switches: How often a track is found under another id than when it was
            last found.
        fragmentations: How often a track is found again after frames in which it was
            there and missed.
        idtp: Instances found under the one id that stands for their track, where
            tracks and ids are paired so that this is the largest.
        idf1: `2 idtp / (true + predicted instances)`.
        motsa: `(tp - fp - id_switches) / num_true`; can be negative.
        motsp: Mean IoU of what is found.
    """

    num_frames: int
    num_tracks: int
    num_true: int
    tp: int
    fp: int
    fn: int
    id_switches: int
    fragmentations: int
    idtp: int
    idf1: float
    motsa: float
    motsp: float

    def to_json(self) -> dict[str, Any]:
        """Gives plain JSON values; NaN becomes null."""
        return plain(asdict(self))


class IdentityResult(SequenceResult[IdentityFigures]):
    """Holds what tracking did to the instances of all sequences and of each."""


@dataclass
class _Track:
    """Remembers under which id a true track was last found."""

    last_id: int | None = None
    is_missed: bool = False


@dataclass
class _Sequence:
    num_frames: int = 0
    num_true: int = 0
    tp: int = 0
    fp: int = 0
    id_switches: int = 0
    fragmentations: int = 0
    iou_sum: float = 0.0
    tracks: dict[int, _Track] = field(default_factory=dict)
    # In how many frames a track was found under an id.
    found: dict[tuple[int, int], int] = field(default_factory=dict)

    def idtp(self) -> int:
        """Pairs tracks with ids so that the most instances keep theirs."""
        rows = {true_id: row for row, true_id in enumerate({t for t, _ in self.found})}
        columns = {
            pred_id: column for column, pred_id in enumerate({p for _, p in self.found})
        }
        counts = np.zeros((len(rows), len(columns)))
        for (true_id, pred_id), count in self.found.items():
            counts[rows[true_id], columns[pred_id]] = count
        return int(counts[assign(-counts)].sum())


class IdentityQuality(PanopticMetric):
    """Accumulates frames of videos and counts id switches, and IDF1.

    An instance is a panoptic id of a thing class with an instance other than 0. A
    predicted and a true instance match if their class is equal and their IoU above
    0.5, void not counted; then at most one prediction matches. A prediction of which
    more than half lies on void or on a crowd of its class is no mistake.

    Memory is linear in tracks, no frames are kept.

    Example:
        >>> metric = IdentityQuality(2, 255, label_divisor=1000, thing_ids=(1,))
        >>> truth = np.array([[1001, 0]])
        >>> for prediction in (1007, 1007, 1008):
        ...     metric.update(truth, np.array([[prediction, 0]]), sequence="a")
        >>> metric.result().total.id_switches
        1

    References:
        Voigtlaender et al., MOTS, CVPR 2019, arXiv:1902.03604 (matching, MOTSA, id
        switches on masks); Bernardin and Stiefelhagen, CLEAR MOT, 2008
        (fragmentations); Ristani et al., ECCV 2016 workshops, arXiv:1609.01775 (IDF1).
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
        self._sequences: dict[Hashable, _Sequence] = {}

    def update(
        self,
        groundtruth: NDArray[np.integer],
        prediction: NDArray[np.integer],
        *,
        sequence: Hashable,
    ) -> None:
        """Counts one frame; those of a sequence in order.

        Args:
            groundtruth: `[H, W]` panoptic ids; an instance keeps its id in a sequence.
            prediction: `[H, W]` panoptic ids, likewise.
            sequence: Name or number of the sequence.

        Raises:
            DataError: If shapes differ or an id has an unknown class.
        """
        self.add_overlaps(count_overlaps(groundtruth, prediction), sequence=sequence)

    def add_overlaps(self, overlaps: Overlaps, *, sequence: Hashable) -> None:
        """Counts one frame whose overlaps are known.

        Raises:
            DataError: If an id has an unknown class.
        """
        true_ids, pred_ids = overlaps.true_ids, overlaps.pred_ids
        true_at, pred_at, shared = overlaps.true_at, overlaps.pred_at, overlaps.shared
        true_class = self._classes_of(true_ids, "ground truth")
        pred_class = self._classes_of(pred_ids, "prediction")
        things = np.array(sorted(self.thing_ids), np.int64)
        is_void = true_class == self.ignore_label
        is_track = np.isin(true_class, things) & ~is_void
        is_crowd = is_track & (true_ids % self.label_divisor == 0)
        is_track &= ~is_crowd
        is_found = np.isin(pred_class, things) & (pred_class != self.ignore_label)
        is_found &= pred_ids % self.label_divisor != 0

        on_void = np.zeros(pred_ids.size, shared.dtype)
        np.add.at(on_void, pred_at[is_void[true_at]], shared[is_void[true_at]])
        is_same = true_class[true_at] == pred_class[pred_at]
        excused = on_void.copy()
        on_crowd = is_same & is_crowd[true_at]
        np.add.at(excused, pred_at[on_crowd], shared[on_crowd])
        is_pair = is_same & is_track[true_at] & is_found[pred_at]
        true_at, pred_at, shared = true_at[is_pair], pred_at[is_pair], shared[is_pair]
        union = overlaps.true_area[true_at] + overlaps.pred_area[pred_at] - shared
        union = union - on_void[pred_at]
        is_match = 2 * shared > union
        true_at, pred_at = true_at[is_match], pred_at[is_match]

        is_wrong = is_found & (2 * excused <= overlaps.pred_area)
        is_wrong[pred_at] = False
        counts = self._sequences.setdefault(sequence, _Sequence())
        counts.num_frames += 1
        counts.num_true += int(is_track.sum())
        counts.tp += len(true_at)
        counts.fp += int(is_wrong.sum())
        counts.iou_sum += float((shared[is_match] / union[is_match]).sum())
        found_as = dict(
            zip(true_ids[true_at].tolist(), pred_ids[pred_at].tolist(), strict=True)
        )
        for true_id in true_ids[is_track].tolist():
            _follow(counts, true_id, found_as.get(true_id))

    def merge(self, other: "IdentityQuality") -> None:
        """Adds what another accumulator of the same classes has counted.

        Raises:
            UsageError: If the other one counts other classes, or both have frames of
                one sequence, whose order would be lost.
        """
        self._check_mergeable(other)
        check_disjoint(self._sequences, other._sequences)
        self._sequences.update(other._sequences)

    def result(self) -> IdentityResult:
        """Gives the figures over everything counted so far."""
        per_sequence = {
            name: _figures([counts]) for name, counts in self._sequences.items()
        }
        return IdentityResult(_figures([*self._sequences.values()]), per_sequence)


def _follow(counts: _Sequence, true_id: int, pred_id: int | None) -> None:
    """Notes under which id a track is found in one more frame, None if missed."""
    track = counts.tracks.setdefault(true_id, _Track())
    if pred_id is None:
        track.is_missed = True
        return
    if track.last_id is not None:
        counts.id_switches += track.last_id != pred_id
        counts.fragmentations += track.is_missed
    track.last_id, track.is_missed = pred_id, False
    counts.found[true_id, pred_id] = counts.found.get((true_id, pred_id), 0) + 1


def _figures(parts: list[_Sequence]) -> IdentityFigures:
    num_true = sum(part.num_true for part in parts)
    tp, fp = sum(part.tp for part in parts), sum(part.fp for part in parts)
    id_switches = sum(part.id_switches for part in parts)
    idtp = sum(part.idtp() for part in parts)
    instances = num_true + tp + fp
    return IdentityFigures(
        num_frames=sum(part.num_frames for part in parts),
        num_tracks=sum(len(part.tracks) for part in parts),
        num_true=num_true,
        tp=tp,
        fp=fp,
        fn=num_true - tp,
        id_switches=id_switches,
        fragmentations=sum(part.fragmentations for part in parts),
        idtp=idtp,
        idf1=2 * idtp / instances if instances else math.nan,
        motsa=(tp - fp - id_switches) / num_true if num_true else math.nan,
        motsp=sum(part.iou_sum for part in parts) / tp if tp else math.nan,
    )
