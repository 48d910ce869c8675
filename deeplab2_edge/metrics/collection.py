"""Several metrics at once, and the report of their figures."""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.config.textformat import nearest
from deeplab2_edge.datasets.registry import DatasetInfo
from deeplab2_edge.errors import DataError, UsageError
from deeplab2_edge.metrics.average_precision import AveragePrecision
from deeplab2_edge.metrics.depth import DepthError
from deeplab2_edge.metrics.flicker import FlickerRate
from deeplab2_edge.metrics.identity import IdentityQuality
from deeplab2_edge.metrics.mean_iou import MeanIou
from deeplab2_edge.metrics.overlaps import count_overlaps
from deeplab2_edge.metrics.panoptic_quality import PanopticQuality
from deeplab2_edge.metrics.tracking_quality import (
    DepthTrackingQuality,
    TrackingQuality,
)
from deeplab2_edge.metrics.video_panoptic_quality import (
    VPQ_WINDOWS,
    DepthVideoPanopticQuality,
    VideoPanopticQuality,
)

# Short name -> name in reports.
METRICS = {
    "pq": "panoptic_quality",
    "pq_official": "panoptic_quality_official",
    "miou": "mean_iou",
    "ap": "average_precision",
    "stq": "tracking_quality",
    "vpq": "video_panoptic_quality",
    "depth": "depth",
    "dvpq": "depth_video_panoptic_quality",
    "dstq": "depth_tracking_quality",
    "ids": "identity",
    "flicker": "flicker",
}
# Of pairs of frames that share ids, which single frames do not give.
PAIR_METRIC = "vpq_2frames"
_NAMES = {**METRICS, PAIR_METRIC: "video_panoptic_quality_2frames"}
VIDEO_METRICS = frozenset({"stq", "vpq", "dvpq", "dstq", "ids", "flicker"})
DEPTH_METRICS = frozenset({"depth", "dvpq", "dstq"})


@dataclass(frozen=True, eq=False)
class Frame:
    """Holds what is compared of one image; a metric asks for what it needs.

    Attributes:
        groundtruth: `[H, W]` panoptic ids.
        prediction: `[H, W]` panoptic ids.
        semantic: `[H, W]` predicted classes; by default those of `prediction`.
        groundtruth_with_crowds: As `groundtruth`, if crowds are void there: with
            crowds as instance 0, for `pq_official` and `ap`.
        scores: Score of each predicted segment, for `ap`.
        sequence: Name of the video, for the metrics of videos.
        depth_groundtruth: `[H, W]`, 0 where unknown, for the metrics of depth.
        depth_prediction: `[H, W]`, in the same unit.
    """

    groundtruth: NDArray[np.integer]
    prediction: NDArray[np.integer]
    semantic: NDArray[np.integer] | None = None
    groundtruth_with_crowds: NDArray[np.integer] | None = None
    scores: Mapping[int, float] | None = None
    sequence: Hashable | None = None
    depth_groundtruth: NDArray[np.floating] | None = None
    depth_prediction: NDArray[np.floating] | None = None


class MetricSet:
    """Accumulates several metrics of one data set."""

    def __init__(
        self,
        info: DatasetInfo,
        names: Sequence[str] = ("pq", "miou"),
        *,
        windows: Sequence[int] = VPQ_WINDOWS,
    ) -> None:
        """Starts with no images.

        Args:
            info: The classes.
            names: Keys of `METRICS`.
            windows: Window sizes of VPQ and DVPQ.

        Raises:
            UsageError: If a name is unknown or there is none.
        """
        self.info = info
        self.num_images = 0
        self._accumulators: dict[str, Any] = {
            name: _build(name, info, windows) for name in check_names(names)
        }

    def update(self, frame: Frame) -> None:
        """Counts one image; frames of a video in order.

        Raises:
            DataError: If the maps do not fit, or a metric misses what it needs.
        """
        groundtruth, prediction = frame.groundtruth, frame.prediction
        with_crowds = frame.groundtruth_with_crowds
        overlaps = count_overlaps(groundtruth, prediction)
        crowd_overlaps = overlaps
        if with_crowds is None:
            with_crowds = groundtruth
        elif "pq_official" in self._accumulators:
            crowd_overlaps = count_overlaps(with_crowds, prediction)
        for name, metric in self._accumulators.items():
            if name == "pq":
                metric.add_overlaps(overlaps)
            elif name == "pq_official":
                metric.add_overlaps(crowd_overlaps)
            elif name == "miou":
                divisor = self.info.label_divisor
                semantic = frame.semantic
                metric.update(
                    groundtruth // divisor,
                    prediction // divisor if semantic is None else semantic,
                )
            elif name == "ap":
                metric.update(with_crowds, prediction, _needed(frame, "scores", name))
            elif name == "depth":
                metric.update(*_depths(frame, name))
            else:
                sequence = _needed(frame, "sequence", name)
                if name in DEPTH_METRICS:
                    depths = _depths(frame, name)
                    metric.update(groundtruth, prediction, *depths, sequence=sequence)
                elif name == "flicker":
                    metric.update(groundtruth, prediction, sequence=sequence)
                else:
                    metric.add_overlaps(overlaps, sequence=sequence)
        self.num_images += 1

    def merge(self, other: "MetricSet") -> None:
        """Adds what another set of the same metrics has counted.

        Raises:
            UsageError: If the metrics or classes differ.
        """
        if self._accumulators.keys() != other._accumulators.keys():
            raise UsageError("sets of different metrics cannot be merged")
        for name, metric in self._accumulators.items():
            metric.merge(other._accumulators[name])
        self.num_images += other.num_images

    def report(self, label: str) -> "MetricReport":
        """Gives the figures of everything counted so far."""
        return MetricReport(
            label=label,
            info=self.info,
            num_images=self.num_images,
            results={name: m.result() for name, m in self._accumulators.items()},
        )


@dataclass(frozen=True)
class MetricReport:
    """Holds the results of several metrics on one set of images.

    Attributes:
        label: What was evaluated.
        info: The data set.
        num_images: How many images were evaluated.
        results: The result of each metric, by its short name, `PAIR_METRIC` too.
    """

    label: str
    info: DatasetInfo
    num_images: int
    results: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Gives plain JSON values; classes go by name, NaN becomes null."""
        document: dict[str, Any] = {
            "label": self.label,
            "dataset": self.info.name,
            "num_images": self.num_images,
        }
        for name, result in self.results.items():
            document[_NAMES[name]] = self._named(result.to_json())
        return document

    def format(self) -> str:
        """Formats the report in percent, metric by metric."""
        lines: list[str] = []
        for name, result in self.results.items():
            lines += _FORMATS[name](result, self.info)
        rows = [line.partition("\t") for line in lines]
        width = max(len(name) for name, _, _ in rows)
        return "\n".join(f"{name:{width}}  {figures}" for name, _, figures in rows)

    def _named(self, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        names = self.info.class_names
        return {
            key: {
                names[c] if c < len(names) else "void": self._named(figures)
                for c, figures in inner.items()
            }
            if key == "per_class"
            else self._named(inner)
            for key, inner in value.items()
        }


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of metrics, each once, in the order of `METRICS`.

    Raises:
        UsageError: If one is unknown or there is none; known ones are told.
    """
    for name in names:
        if name not in METRICS:
            hint = nearest(name, METRICS) or ""
            raise UsageError(
                f"metric {name!r} is unknown{hint}; known are {', '.join(METRICS)}"
            )
    if not names:
        raise UsageError(f"no metric is named; known are {', '.join(METRICS)}")
    return tuple(name for name in METRICS if name in names)


def _build(name: str, info: DatasetInfo, windows: Sequence[int]) -> Any:
    space: dict[str, Any] = {
        "num_classes": info.num_classes,
        "ignore_label": info.ignore_label,
        "label_divisor": info.label_divisor,
        "thing_ids": info.thing_ids,
    }
    builders: dict[str, Callable[[], Any]] = {
        "pq": lambda: PanopticQuality(**space),
        "pq_official": lambda: PanopticQuality(**space, count_crowds=False),
        "miou": lambda: MeanIou(info.num_classes, info.ignore_label),
        "ap": lambda: AveragePrecision(**space),
        "stq": lambda: TrackingQuality(**space),
        "vpq": lambda: VideoPanopticQuality(**space, windows=windows),
        "depth": DepthError,
        "dvpq": lambda: DepthVideoPanopticQuality(**space, windows=windows),
        "dstq": lambda: DepthTrackingQuality(**space),
        "ids": lambda: IdentityQuality(**space),
        "flicker": lambda: FlickerRate(
            info.ignore_label,
            label_divisor=info.label_divisor,
            thing_ids=info.thing_ids,
        ),
    }
    return builders[name]()


def _needed(frame: Frame, field: str, metric: str) -> Any:
    value = getattr(frame, field)
    if value is None:
        raise DataError(f"{metric} needs {field.replace('_', ' ')}; there is none")
    return value


def _depths(frame: Frame, metric: str) -> tuple[Any, Any]:
    return (
        _needed(frame, "depth_groundtruth", metric),
        _needed(frame, "depth_prediction", metric),
    )


def _percent(fraction: float) -> str:
    return "-" if math.isnan(fraction) else f"{100 * fraction:.2f}"


def _row(name: str, figures: Mapping[str, float]) -> str:
    """Gives name and figures of one line, a tab between them."""
    values = (f"{key} {_percent(value):>6}" for key, value in figures.items())
    return f"{name}\t{'  '.join(values)}"


def _format_pq(result: Any, info: DatasetInfo, title: str = "PQ") -> list[str]:
    rows = [
        _row(title, {"PQ": result.pq, "SQ": result.sq, "RQ": result.rq}),
        _row("  things", _split(result, "things")),
        _row("  stuff", _split(result, "stuff")),
    ]
    for class_id, q in result.per_class.items():
        row = _row(f"  {info.class_names[class_id]}", {"PQ": q.pq, "SQ": q.sq})
        rows.append(f"{row}  TP {q.tp}  FP {q.fp}  FN {q.fn}")
    return rows


def _split(result: Any, part: str) -> dict[str, float]:
    return {key: getattr(result, f"{key.lower()}_{part}") for key in ("PQ", "SQ", "RQ")}


def _format_pq_official(result: Any, info: DatasetInfo) -> list[str]:
    return _format_pq(result, info, "PQ official")


def _format_miou(result: Any, info: DatasetInfo) -> list[str]:
    return [
        _row("mIoU", {"mIoU": result.miou}),
        *(
            _row(f"  {info.class_names[class_id]}", {"IoU": iou})
            for class_id, iou in result.per_class.items()
        ),
    ]


def _format_ap(result: Any, info: DatasetInfo) -> list[str]:
    return [
        _row("AP", {"AP": result.ap, "AP50": result.ap50, "AP75": result.ap75}),
        _row(
            "  by size",
            {
                "small": result.ap_small,
                "medium": result.ap_medium,
                "large": result.ap_large,
            },
        ),
        _row(
            "  recall",
            {"AR1": result.ar_1, "AR10": result.ar_10, "AR100": result.ar_100},
        ),
        *(
            _row(
                f"  {info.class_names[class_id]}",
                {"AP": figures.ap, "AP50": figures.ap50, "AP75": figures.ap75},
            )
            for class_id, figures in result.per_class.items()
        ),
    ]


def _format_stq(result: Any, info: DatasetInfo) -> list[str]:
    return [
        _row("STQ", {"STQ": result.stq, "AQ": result.aq, "SQ": result.sq}),
        *(
            f"{_row(f'  {name}', {'STQ': q.stq, 'AQ': q.aq, 'SQ': q.sq})}"
            f"  frames {q.num_frames}  tubes {q.num_tubes}"
            for name, q in result.per_sequence.items()
        ),
    ]


def _format_vpq(result: Any, info: DatasetInfo, title: str = "VPQ") -> list[str]:
    return [
        _row(
            title,
            {
                "VPQ": result.vpq,
                "things": result.vpq_things,
                "stuff": result.vpq_stuff,
            },
        ),
        *(
            _row(
                f"  window {size}",
                {"PQ": q.pq, "things": q.pq_things, "stuff": q.pq_stuff},
            )
            for size, q in result.per_window.items()
        ),
    ]


def _format_pairs(result: Any, info: DatasetInfo) -> list[str]:
    return _format_vpq(result, info, "VPQ of pairs")[:1]


def _format_dvpq(result: Any, info: DatasetInfo) -> list[str]:
    lines = [
        _row(
            "DVPQ",
            {
                "DVPQ": result.dvpq,
                "things": result.dvpq_things,
                "stuff": result.dvpq_stuff,
            },
        )
    ]
    for threshold, vpq in result.per_threshold.items():
        lines += _format_vpq(vpq, info, f"  depth {threshold:g}")
    return lines


def _format_dstq(result: Any, info: DatasetInfo) -> list[str]:
    return [
        _row("DSTQ", {"DSTQ": result.dstq, "DQ": result.dq}),
        *(
            _row(f"  depth {threshold:g}", {"DSTQ": dstq, "DQ": dq})
            for threshold, (dstq, dq) in result.per_threshold.items()
        ),
    ]


def _format_ids(result: Any, info: DatasetInfo) -> list[str]:
    return [
        f"{_row('ids', {'IDF1': q.idf1, 'MOTSA': q.motsa})}"
        f"  switches {q.id_switches}  fragments {q.fragmentations}"
        f"  tracks {q.num_tracks}"
        for q in (result.total,)
    ]


def _format_flicker(result: Any, info: DatasetInfo) -> list[str]:
    total = result.total
    return [_row("flicker", {"classes": total.classes, "ids": total.ids})]


def _format_depth(result: Any, info: DatasetInfo) -> list[str]:
    row = _row("depth", {"absRel": result.abs_rel, "inliers": result.inlier})
    return [
        f"{row}  sqRel {result.sq_rel:.4f}  RMSE {result.rmse:.4f}  "
        f"SILog {result.silog:.2f}"
    ]


_FORMATS: dict[str, Callable[[Any, DatasetInfo], list[str]]] = {
    "pq": _format_pq,
    "pq_official": _format_pq_official,
    "miou": _format_miou,
    "ap": _format_ap,
    "stq": _format_stq,
    "vpq": _format_vpq,
    PAIR_METRIC: _format_pairs,
    "depth": _format_depth,
    "dvpq": _format_dvpq,
    "dstq": _format_dstq,
    "ids": _format_ids,
    "flicker": _format_flicker,
}
