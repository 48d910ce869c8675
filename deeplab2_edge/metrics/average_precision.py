"""Average precision of instance masks, by the rules of COCO."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import DataError
from deeplab2_edge.metrics.accumulator import PanopticMetric, plain
from deeplab2_edge.metrics.overlaps import count_overlaps, number_ids

_IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RECALL_POINTS = np.linspace(0.0, 1.0, 101)
_MAX_DETECTIONS = (1, 10, 100)
# Areas in pixels, both ends included: all, small, medium, large.
_AREA_RANGES = np.array([(0, 1e10), (0, 32**2), (32**2, 96**2), (96**2, 1e10)])
_ALL, _SMALL, _MEDIUM, _LARGE = range(4)


@dataclass(frozen=True)
class ClassPrecision:
    """Holds the figures of one class, as fractions."""

    ap: float
    ap50: float
    ap75: float
    num_instances: int


@dataclass(frozen=True)
class AveragePrecisionResult:
    """Holds average precision. Figures are fractions, 0..1; NaN without instances.

    Attributes:
        ap: Mean over classes and the IoU thresholds 0.50, 0.55, ..., 0.95.
        ap50: At IoU 0.50.
        ap75: At IoU 0.75.
        ap_small: As `ap`, instances below 32 * 32 pixels.
        ap_medium: As `ap`, instances from there to 96 * 96 pixels.
        ap_large: As `ap`, larger instances.
        ar_1: Mean recall with the one best detection per class and image.
        ar_10: With the 10 best.
        ar_100: With the 100 best.
        ar_small: As `ar_100`, small instances; so `ar_medium`, `ar_large`.
        num_detections: Detections counted.
        per_class: Figures of every class that has an instance.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar_1: float
    ar_10: float
    ar_100: float
    ar_small: float
    ar_medium: float
    ar_large: float
    num_detections: int
    per_class: dict[int, ClassPrecision]

    def coco_summary(self) -> tuple[float, ...]:
        """Gives the 12 numbers of the COCO tools, in their order.

        As published: -1 where there are no instances, but 0 throughout if there is
        no detection at all.
        """
        if not self.num_detections:
            return (0.0,) * 12
        values = [getattr(self, field.name) for field in fields(self)[:12]]
        return tuple(-1.0 if math.isnan(value) else value for value in values)

    def to_json(self, *, detailed: bool = True) -> dict[str, Any]:
        """Gives plain JSON values; NaN becomes null.

        Args:
            detailed: Whether sizes, recalls and classes are given, not only `ap`,
                `ap50` and `ap75`.
        """
        names = [field.name for field in fields(self)[: 12 if detailed else 3]]
        document = plain({name: getattr(self, name) for name in names})
        if detailed:
            document["num_detections"] = self.num_detections
            document["per_class"] = {
                class_id: plain(vars(figures))
                for class_id, figures in self.per_class.items()
            }
        return document


@dataclass(frozen=True)
class _Detections:
    """Holds the detections of one class in one image, best first.

    Attributes:
        scores: `[D]`.
        is_match: `[areas, thresholds, D]`, found an instance.
        is_ignored: `[areas, thresholds, D]`, neither right nor wrong.
    """

    scores: NDArray[np.float64]
    is_match: NDArray[np.bool_]
    is_ignored: NDArray[np.bool_]


class AveragePrecision(PanopticMetric):
    """Accumulates matched instances over images and gives their average precision.

    Instances are the segments of thing classes; crowds (instance 0) are what COCO
    calls `iscrowd`: they need not be found, and detections inside them do not count.
    Segments of one panoptic map do not overlap and have one score each, so the
    figures are lower than those of detectors.

    Images are matched when they come. Memory grows with the number of detections
    (about 100 bytes each), not with pixels.

    References:
        Lin et al., Microsoft COCO, ECCV 2014, arXiv:1405.0312; the rules are those
        of the COCO evaluation of segmentation masks.
    """

    def __init__(
        self,
        num_classes: int,
        ignore_label: int,
        *,
        label_divisor: int,
        thing_ids: Collection[int],
    ) -> None:
        """Starts with no instances.

        Args:
            num_classes: Classes are 0 to `num_classes - 1`.
            ignore_label: Class of void.
            label_divisor: Panoptic ids are `class * label_divisor + instance`.
            thing_ids: Classes with instances.
        """
        super().__init__(
            num_classes,
            ignore_label,
            label_divisor=label_divisor,
            thing_ids=set(thing_ids) - {ignore_label},
        )
        self._num_instances: NDArray[np.int64] = np.zeros(
            (num_classes, len(_AREA_RANGES)), np.int64
        )
        self._detections: dict[int, list[_Detections]] = {}

    def update(
        self,
        groundtruth: NDArray[np.integer],
        prediction: NDArray[np.integer],
        scores: Mapping[int, float],
        *,
        is_crowd: NDArray[np.bool_] | None = None,
    ) -> None:
        """Matches the instances of one image.

        Args:
            groundtruth: `[H, W]` panoptic ids.
            prediction: `[H, W]` panoptic ids.
            scores: How sure the prediction is of each of its segments of thing
                classes, for example from `segment_scores`. Others may be there too.
            is_crowd: `[H, W]`, True on crowds; by default on the ids with instance 0.

        Raises:
            DataError: If shapes differ, an id has an unknown class, or a segment has
                no score or one that is not finite.
        """
        overlaps = count_overlaps(groundtruth, prediction)
        things = np.array(sorted(self.thing_ids), np.int64)
        true_class = self._classes_of(overlaps.true_ids, "ground truth")
        pred_class = self._classes_of(overlaps.pred_ids, "prediction")
        of_crowd = overlaps.true_ids % self.label_divisor == 0
        if is_crowd is not None:
            if is_crowd.shape != groundtruth.shape:
                raise DataError(
                    f"is_crowd has shape {is_crowd.shape}; expected "
                    f"{groundtruth.shape}, the shape of the ground truth"
                )
            of_crowd = np.isin(overlaps.true_ids, groundtruth[is_crowd])
        is_detection = np.isin(pred_class, things)
        score_of = self._checked(scores, overlaps.pred_ids[is_detection])
        # Of detections with equal scores, the one listed first is the better one.
        order = {label: place for place, label in enumerate(scores)}
        shared = np.zeros((overlaps.pred_ids.size, overlaps.true_ids.size))
        shared[overlaps.pred_at, overlaps.true_at] = overlaps.shared

        is_instance = np.isin(true_class, things)
        found = {*true_class[is_instance].tolist(), *pred_class[is_detection].tolist()}
        for class_id in sorted(found):
            true_at = np.flatnonzero(true_class == class_id)
            pred_at = sorted(
                np.flatnonzero(pred_class == class_id).tolist(),
                key=lambda at: (
                    -score_of[int(overlaps.pred_ids[at])],
                    order[int(overlaps.pred_ids[at])],
                ),
            )[: _MAX_DETECTIONS[-1]]
            true_area = overlaps.true_area[true_at].astype(np.float64)
            pred_area = overlaps.pred_area[pred_at].astype(np.float64)
            crowd = of_crowd[true_at]
            is_out = _outside(true_area) | crowd  # [areas, G]
            self._num_instances[class_id] += (~is_out).sum(axis=1)
            if not pred_at:
                continue
            common = shared[pred_at][:, true_at]
            union = pred_area[:, None] + np.where(crowd, 0, true_area - common)
            is_match, is_ignored = _match(common / union, is_out, crowd)
            is_ignored |= ~is_match & _outside(pred_area)[:, None, :]
            class_scores = np.array(
                [score_of[int(overlaps.pred_ids[a])] for a in pred_at]
            )
            self._detections.setdefault(class_id, []).append(
                _Detections(class_scores, is_match, is_ignored)
            )

    def merge(self, other: "AveragePrecision") -> None:
        """Adds what another accumulator of the same classes has counted.

        Raises:
            UsageError: If the other one counts other classes.
        """
        self._check_mergeable(other)
        self._num_instances += other._num_instances
        for class_id, detections in other._detections.items():
            self._detections.setdefault(class_id, []).extend(detections)

    def result(self) -> AveragePrecisionResult:
        """Gives the figures over everything counted so far."""
        count, areas = len(_IOU_THRESHOLDS), len(_AREA_RANGES)
        # NaN stands for "no instances"; means leave it out.
        precision = np.full((areas, count, self.num_classes), math.nan)
        recall = np.full(
            (areas, len(_MAX_DETECTIONS), count, self.num_classes), math.nan
        )
        for class_id in range(self.num_classes):
            images = self._detections.get(class_id, [])
            for area in range(areas):
                num_instances = int(self._num_instances[class_id, area])
                if not num_instances:
                    continue
                for place, limit in enumerate(_MAX_DETECTIONS):
                    is_last = limit == _MAX_DETECTIONS[-1]
                    if area != _ALL and not is_last:
                        continue
                    at = area, place, slice(None), class_id
                    curves = _curves(images, area, limit, num_instances)
                    recall[at] = curves[1]
                    if is_last:
                        precision[area, :, class_id] = curves[0]
        per_class = {
            c: ClassPrecision(
                ap=_mean(precision[_ALL, :, c]),
                ap50=float(precision[_ALL, 0, c]),
                ap75=float(precision[_ALL, 5, c]),
                num_instances=int(self._num_instances[c, _ALL]),
            )
            for c in range(self.num_classes)
            if self._num_instances[c, _ALL]
        }
        return AveragePrecisionResult(
            ap=_mean(precision[_ALL]),
            ap50=_mean(precision[_ALL, 0]),
            ap75=_mean(precision[_ALL, 5]),
            ap_small=_mean(precision[_SMALL]),
            ap_medium=_mean(precision[_MEDIUM]),
            ap_large=_mean(precision[_LARGE]),
            ar_1=_mean(recall[_ALL, 0]),
            ar_10=_mean(recall[_ALL, 1]),
            ar_100=_mean(recall[_ALL, 2]),
            ar_small=_mean(recall[_SMALL, 2]),
            ar_medium=_mean(recall[_MEDIUM, 2]),
            ar_large=_mean(recall[_LARGE, 2]),
            num_detections=sum(
                image.scores.size
                for images in self._detections.values()
                for image in images
            ),
            per_class=per_class,
        )

    def _checked(
        self, scores: Mapping[int, float], ids: NDArray[np.int64]
    ) -> dict[int, float]:
        checked = {}
        for label in ids.tolist():
            score = scores.get(label)
            if score is None or not math.isfinite(score):
                raise DataError(
                    f"predicted segment {label} (class {label // self.label_divisor}) "
                    f"has the score {score}; average precision needs a finite one"
                )
            checked[label] = float(score)
        return checked


def segment_scores(
    panoptic: NDArray[np.integer],
    semantic_scores: NDArray[np.floating],
    instance_scores: NDArray[np.floating],
    *,
    ignore_label: int,
    label_divisor: int,
) -> dict[int, float]:
    """Gives the confidence in every predicted segment.

    It is the mean over the pixels of the segment of the probability of its class,
    times the mean of the instance scores.

    Args:
        panoptic: `[H, W]` predicted panoptic ids.
        semantic_scores: `[H, W, C]` probabilities of the classes, or `[H, W]` the
            probability of the class that was chosen (MaX-DeepLab).
        instance_scores: `[H, W]`, of the instance that each pixel belongs to.
        ignore_label: Class of void, which gets no score.
        label_divisor: Panoptic ids are `class * label_divisor + instance`.

    Returns:
        Panoptic id to score, in the order of first appearance.

    Raises:
        DataError: If the shapes do not fit, or an id has no probability.
    """
    for name, array in (("semantic", semantic_scores), ("instance", instance_scores)):
        if array.shape[:2] != panoptic.shape:
            raise DataError(
                f"{name} scores have shape {array.shape}; expected the height and "
                f"width of the panoptic map, {panoptic.shape}"
            )
    ids, index = number_ids(panoptic)
    first = np.zeros(ids.size, np.intp)
    # The last write wins, so pixels are written from the last to the first.
    first[index[::-1]] = np.arange(index.size - 1, -1, -1)
    classes = ids // label_divisor
    if semantic_scores.ndim == 3:
        channels = semantic_scores.shape[2]
        is_outside = (classes != ignore_label) & ((classes < 0) | (classes >= channels))
        if is_outside.any():
            raise DataError(
                f"panoptic prediction has id {ids[is_outside][0]}, but semantic scores "
                f"are of {channels} classes"
            )
        flat = semantic_scores.reshape(-1, channels)
        chosen = np.minimum(classes, channels - 1)[index]
        probability = flat[np.arange(index.size), chosen]
    else:
        probability = semantic_scores.reshape(-1)
    area = np.bincount(index, minlength=ids.size)
    class_mean = np.bincount(index, probability, minlength=ids.size) / area
    center_mean = np.bincount(index, instance_scores.reshape(-1), ids.size) / area
    scores = class_mean * center_mean
    return {
        int(ids[at]): float(scores[at])
        for at in np.argsort(first)
        if classes[at] != ignore_label
    }


def _outside(area: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Says for every area range which areas lie outside."""
    low, high = _AREA_RANGES[:, :1], _AREA_RANGES[:, 1:]
    outside: NDArray[np.bool_] = (area < low) | (area > high)
    return outside


def _match(
    iou: NDArray[np.float64], is_out: NDArray[np.bool_], is_crowd: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Matches detections, best first, for all area ranges and thresholds at once.

    A detection takes the free instance of highest IoU at or above the threshold,
    one that counts before one that does not; crowds may be taken any number of times.

    Args:
        iou: `[D, G]`.
        is_out: `[areas, G]`, instances that do not count.
        is_crowd: `[G]`.

    Returns:
        `[areas, thresholds, D]` each: has found something; what it found does not
        count.
    """
    lanes = len(_AREA_RANGES), len(_IOU_THRESHOLDS)
    num_detections, num_instances = iou.shape
    is_match = np.zeros((*lanes, num_detections), bool)
    is_ignored = np.zeros((*lanes, num_detections), bool)
    if not num_instances:
        return is_match, is_ignored
    is_free = np.ones((*lanes, num_instances), bool)
    threshold = np.minimum(_IOU_THRESHOLDS, 1 - 1e-10)[:, None]
    is_in = ~is_out[:, None, :]
    area, level = np.ogrid[: lanes[0], : lanes[1]]
    for at in range(num_detections):
        is_candidate = (is_free | is_crowd) & (iou[at] >= threshold)
        counts = (is_candidate & is_in).any(axis=-1)
        allowed = is_candidate & (is_in | ~counts[..., None])
        # Of equal IoUs the last one is taken.
        best = np.where(allowed, iou[at], -1.0)[..., ::-1].argmax(axis=-1)
        best = num_instances - 1 - best
        found = is_candidate.any(axis=-1)
        is_match[..., at] = found
        is_ignored[..., at] = found & ~counts
        is_free[area, level, best] &= ~found
    return is_match, is_ignored


def _curves(
    images: Iterable[_Detections], area: int, limit: int, num_instances: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gives `[thresholds]` mean precision over the recall points, and final recall."""
    parts = [
        (d.scores[:limit], d.is_match[area, :, :limit], d.is_ignored[area, :, :limit])
        for d in images
    ]
    count = len(_IOU_THRESHOLDS)
    if not parts:
        return np.zeros(count), np.zeros(count)
    scores, is_match, is_ignored = (
        np.concatenate(columns, axis=-1) for columns in zip(*parts, strict=True)
    )
    order = np.argsort(-scores, kind="stable")
    is_match, is_ignored = is_match[:, order], is_ignored[:, order]
    right = np.cumsum(is_match & ~is_ignored, axis=1, dtype=np.float64)
    wrong = np.cumsum(~is_match & ~is_ignored, axis=1, dtype=np.float64)
    recall = right / num_instances
    precision = right / (right + wrong + np.spacing(1.0))
    # The precision at a recall is the best one at that recall or more.
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    means = np.zeros(count)
    for level in range(count):
        places = np.searchsorted(recall[level], _RECALL_POINTS, side="left")
        reached = places[places < order.size]
        means[level] = precision[level, reached].sum() / len(_RECALL_POINTS)
    return means, recall[:, -1]


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan
