"""Compares a converted model with its float source on real images.

Both run through the public runtime, from the image file to the panoptic map, and
differ in the engine alone. What is found says how much the conversion costs: per head,
per mask, and in panoptic quality.
"""

import hashlib
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.convert.recording import Recorder
from deeplab2_edge.datasets.folders import SampleLike
from deeplab2_edge.datasets.info import DatasetInfo
from deeplab2_edge.errors import ConversionError, DataError, UsageError
from deeplab2_edge.metrics import (
    MeanIou,
    MeanIouResult,
    MetricReport,
    PanopticQuality,
    PanopticQualityResult,
)
from deeplab2_edge.model_file import ModelMetadata
from deeplab2_edge.panoptic import find_centers, resize_bilinear
from deeplab2_edge.progress import progress
from deeplab2_edge.runtime.engine import Engine
from deeplab2_edge.runtime.evaluation import evaluate_engine
from deeplab2_edge.runtime.results import PanopticResult
from deeplab2_edge.runtime.segmenter import PanopticSegmenter
from deeplab2_edge.samples import SampleSet, video_of
from deeplab2_edge.wording import counted

# What a conversion may be limited by.
METRICS = ("pq", "miou", "stq", "depth")

# Equal heads have no noise at all; no float32 comparison gets this far.
_MAX_SNR_DB = 200.0
# A head whose values are all smaller is as good as zero.
_SMALLEST_MAGNITUDE = 1e-3
_LABEL_WIDTH = 30


@dataclass(frozen=True)
class HeadFidelity:
    """Says how far a head is from the float model's.

    Attributes:
        max_error: Largest absolute difference of any value, in units of the head.
        snr_db: Signal to noise ratio, median over the images; 200 if equal.
        relative_error: `max_error` over the largest magnitude of the float head.
    """

    max_error: float
    snr_db: float
    relative_error: float


@dataclass(frozen=True)
class Accuracy:
    """Holds what a model reaches against labels.

    Attributes:
        pq: Of single images.
        miou: Of single images.
        stq: Of videos, for a model that keeps ids over them.
        depth_error: Mean relative error of depth, for a model that gives it.
    """

    pq: PanopticQualityResult
    miou: MeanIouResult
    stq: float | None = None
    depth_error: float | None = None


@dataclass(frozen=True)
class Verification:
    """Holds the comparison of a converted model with its float source.

    Attributes:
        source: Where the images come from.
        image_names: The images.
        heads: By the names in `keys`.
        class_agreement: Share of pixels of equal class before merging.
        worst_offset_px: Largest error of an offset on a thing, in canvas pixels; None
            where offsets cannot be compared.
        num_centers: Instance centers of all images, (float, converted); None of a
            model without.
        mask_iou: Mean over the float model's segments of the IoU with the best
            segment of the same class.
        panoptic_agreement: Share of pixels that belong to segments which match.
        pq: Of the converted model, with the float model's segments as ground truth.
        miou: The same for classes.
        float_accuracy: Against labels, if the images have any.
        accuracy: The same of the converted model.
        num_labeled: How many images had labels.
        inputs_sha256: Of the pixels of all images.
        has_instances: Whether the models give more than classes.
    """

    source: str
    image_names: tuple[str, ...]
    heads: Mapping[str, HeadFidelity]
    class_agreement: float
    worst_offset_px: float | None
    num_centers: tuple[int, int] | None
    mask_iou: float
    panoptic_agreement: float
    pq: PanopticQualityResult
    miou: MeanIouResult
    float_accuracy: Accuracy | None
    accuracy: Accuracy | None
    num_labeled: int
    inputs_sha256: str = ""
    has_instances: bool = True

    def drop(self, metric: str) -> float:
        """Says by how many points (percent) a metric got worse.

        With labels: the float model's value minus the converted model's, of the error
        of depth the other way round. Without: what is missing to full agreement with
        the float model.

        Args:
            metric: One of `METRICS`.

        Raises:
            UsageError: If it cannot be measured here.
        """
        if metric not in METRICS:
            raise UsageError(f"metric is {metric!r}; must be one of {METRICS}")
        before, after = (
            None if accuracy is None else _values(accuracy)[metric]
            for accuracy in (self.float_accuracy, self.accuracy)
        )
        if before is None or after is None:
            if metric not in ("pq", "miou"):
                raise UsageError(
                    f"{metric} cannot be measured: it needs a model that has it and "
                    "labels of videos (--verify-data)"
                )
            before = 1.0
            after = self.pq.pq if metric == "pq" else self.miou.miou
        # NaN: no class at all on any image, nothing that could have got worse.
        drop = after - before if metric == "depth" else before - after
        return 0.0 if math.isnan(drop) else 100 * drop

    def to_json(self) -> dict[str, Any]:
        """Gives plain JSON values, qualities as fractions."""
        return {
            "source": self.source,
            "images": list(self.image_names),
            "inputs_sha256": self.inputs_sha256,
            "heads": {
                name: {
                    "max_error": head.max_error,
                    "snr_db": head.snr_db,
                    "relative_error": head.relative_error,
                }
                for name, head in self.heads.items()
            },
            "class_agreement": self.class_agreement,
            "worst_offset_px": self.worst_offset_px,
            "centers": self.num_centers
            and dict(zip(("float", "converted"), self.num_centers, strict=True)),
            "mask_iou": _number(self.mask_iou),
            "panoptic_agreement": self.panoptic_agreement,
            "pq_against_float": self.pq.to_json(),
            "miou_against_float": _number(self.miou.miou),
            "labeled_images": self.num_labeled,
            "float": _accuracy_json(self.float_accuracy),
            "converted": _accuracy_json(self.accuracy),
        }


def verify(
    source: Engine,
    converted: Engine,
    samples: Sequence[SampleLike],
    *,
    location: str,
    labels_of: DatasetInfo | None,
    quiet: bool = False,
) -> Verification:
    """Compares two engines image by image.

    Args:
        source: The float model.
        converted: The converted model.
        samples: Images, at least one; frames of videos in order for a model of videos.
        location: Where they come from, for the report.
        labels_of: The classes of the labels, None if labels are not to be looked at.
        quiet: Whether to show no progress.

    Raises:
        DataError: If an image or label cannot be used, or there is none.
        UsageError: If the engines do not have the same classes and canvas.
        ConversionError: If a model gives values that are not finite.
    """
    if not samples:
        raise DataError(f"{location}: no images to verify the conversion with")
    if (source.metadata.canvas, source.metadata.class_names) != (
        converted.metadata.canvas,
        converted.metadata.class_names,
    ):
        raise UsageError("only models of equal canvas and classes can be compared")
    comparison = _Comparison(converted.metadata)
    runs = Recorder(source), Recorder(converted)
    steps = iter(progress(samples, total=len(samples), label="verifying", quiet=quiet))
    for _, video in itertools.groupby(samples, key=video_of):
        frames = list(video)
        clips = (
            PanopticSegmenter(run).segment_video(s.load_image() for s in frames)
            for run in runs
        )
        for sample, *results in zip(frames, *clips, strict=True):
            next(steps, None)
            outputs = [run.take_outputs() for run in runs]
            for of_run, label in zip(outputs, ("float", "converted"), strict=True):
                _check_finite(of_run, label, sample.name)
            for expected, found in zip(*outputs, strict=True):
                comparison.add_outputs(expected, found)
            comparison.add_centers(runs)
            comparison.add_maps(results[0], results[1])
            labels = sample.load_panoptic() if labels_of is not None else None
            if labels is not None:
                comparison.add_labels(labels, results, sample.name)
    next(steps, None)
    report = comparison.result(location, tuple(sample.name for sample in samples))
    is_of_videos = all(video_of(sample) is not None for sample in samples)
    if labels_of is None or not report.num_labeled or not is_of_videos:
        return report
    return _with_video_metrics(report, (source, converted), samples, labels_of, quiet)


def format_verification(report: Verification, label: str) -> str:
    """Formats a verification as a table, without lines that say nothing of the model.

    Args:
        report: What `verify` gave.
        label: Name of the converted model, for example `int8`.
    """
    images = counted(len(report.image_names), "image")
    lines = [f"{label} against float, {images} of {report.source}"]
    width = max(map(len, report.heads), default=0) + 2
    if report.heads:
        lines.append(f"{'head':<{width}}{'max error':>12}{'relative':>11}{'SNR dB':>9}")
    for name, head in report.heads.items():
        lines.append(
            f"{name:<{width}}{head.max_error:>12.4g}{head.relative_error:>11.2g}"
            f"{head.snr_db:>9.1f}"
        )
    if report.worst_offset_px is not None:
        lines.append(_line("worst offset", f"{report.worst_offset_px:>9.2f} px"))
    if report.num_centers is not None:
        before, after = report.num_centers
        lines.append(_line("instance centers", f"{after:>9} (float {before})"))
    lines.append(_line("class agreement", _percent(report.class_agreement) + " %"))
    if report.has_instances:
        pq = report.pq
        lines += [
            _line("panoptic agreement", _percent(report.panoptic_agreement) + " %"),
            _line("mask IoU", _percent(report.mask_iou) + " %"),
            _line(
                "PQ, float as ground truth",
                f"{_percent(pq.pq)} % (things {_percent(pq.pq_things).strip()}, stuff "
                f"{_percent(pq.pq_stuff).strip()})",
            ),
        ]
    else:
        miou = _percent(report.miou.miou)
        lines.append(_line("mIoU, float as ground truth", f"{miou} %"))
    return "\n".join([*lines, *_accuracy_lines(report, label)])


def _accuracy_lines(report: Verification, label: str) -> list[str]:
    """Formats what both models reach against labels, nothing without labels."""
    if report.float_accuracy is None or report.accuracy is None:
        return []
    columns = ("PQ", "things", "stuff", "mIoU") if report.has_instances else ("mIoU",)
    title = f"against labels ({report.num_labeled})"
    lines = [f"{title:<20}" + "".join(f"{column:>9}" for column in columns)]
    for name, accuracy in (("float", report.float_accuracy), (label, report.accuracy)):
        pq = accuracy.pq
        figures = (pq.pq, pq.pq_things, pq.pq_stuff, accuracy.miou.miou)
        shown = figures[-len(columns) :]
        lines.append(f"  {name:<18}" + "".join(map(_percent, shown)))
        if accuracy.stq is not None:
            lines.append(_line("    STQ", _percent(accuracy.stq) + " %"))
        if accuracy.depth_error is not None:
            error = _percent(accuracy.depth_error)
            lines.append(_line("    relative error of depth", f"{error} %"))
    return lines


def _line(title: str, value: str) -> str:
    return f"{title:<{_LABEL_WIDTH}}{value}"


@dataclass
class _Comparison:
    """Adds up the differences of two models over images."""

    metadata: ModelMetadata
    max_errors: dict[str, float] = field(default_factory=dict)
    magnitudes: dict[str, float] = field(default_factory=dict)
    snrs_db: dict[str, list[float]] = field(default_factory=dict)
    class_agreements: list[float] = field(default_factory=list)
    worst_offset_px: float | None = None
    num_centers: list[int] = field(default_factory=lambda: [0, 0])
    mask_ious: list[float] = field(default_factory=list)
    agreeing_px: int = 0
    compared_px: int = 0
    num_labeled: int = 0

    def __post_init__(self) -> None:
        self.digest = hashlib.sha256()
        # Of the converted model against the float one, then of each against labels.
        self.pseudo, *self.quality = (self._panoptic_quality() for _ in range(3))
        self.pseudo_miou, *self.miou = (
            MeanIou(self.metadata.num_classes, self.metadata.ignore_label)
            for _ in range(3)
        )

    def _panoptic_quality(self) -> PanopticQuality:
        return PanopticQuality(
            self.metadata.num_classes,
            self.metadata.ignore_label,
            label_divisor=self.metadata.label_divisor,
            thing_ids=self.metadata.thing_ids,
        )

    def add_outputs(
        self, expected: Mapping[str, NDArray[Any]], found: Mapping[str, NDArray[Any]]
    ) -> None:
        for name in expected.keys() & found.keys():
            signal, other = (
                np.asarray(outputs[name], np.float64) for outputs in (expected, found)
            )
            if name == keys.CENTER_HEATMAP:
                # Beyond 0..1 a heatmap means nothing, and integer heads end there.
                signal, other = signal.clip(0, 1), other.clip(0, 1)
            noise = other - signal
            worst = float(np.abs(noise).max())
            self.max_errors[name] = max(self.max_errors.get(name, 0.0), worst)
            magnitude = float(np.abs(signal).max())
            self.magnitudes[name] = max(self.magnitudes.get(name, 0.0), magnitude)
            self.snrs_db.setdefault(name, []).append(_snr_db(signal, noise))
        if keys.OFFSET_MAP in expected and keys.OFFSET_MAP in found:
            classes = expected[keys.SEMANTIC_LOGITS].argmax(-1)
            is_thing = np.isin(classes, self.metadata.thing_ids)
            error = (found[keys.OFFSET_MAP] - expected[keys.OFFSET_MAP])[is_thing]
            length = float(np.hypot(error[:, 0], error[:, 1]).max(initial=0.0))
            stride = (self.metadata.canvas[0] - 1) / (classes.shape[0] - 1)
            self.worst_offset_px = max(self.worst_offset_px or 0.0, length * stride)

    def add_centers(self, runs: Sequence[Recorder]) -> None:
        for index, run in enumerate(runs):
            settings = run.metadata.merge
            heatmap = run.last.get(keys.CENTER_HEATMAP)
            found = run.last.get(keys.INSTANCE_CENTERS)
            if found is not None:  # by the graph itself
                self.num_centers[index] += int(np.count_nonzero(found[:, 0] >= 0))
                continue
            if settings is None or heatmap is None:
                continue
            centers, _ = find_centers(
                resize_bilinear(heatmap[..., 0], self.metadata.canvas),
                threshold=settings.center_score_threshold,
                nms_kernel=settings.nms_kernel,
                keep_k=settings.keep_k_centers,
                merge_plateaus=settings.merge_plateaus,
            )
            self.num_centers[index] += len(centers)

    def add_maps(self, expected: PanopticResult, found: PanopticResult) -> None:
        image = np.ascontiguousarray(expected.image)
        self.digest.update(f"{image.shape}".encode())
        self.digest.update(image.tobytes())
        self.pseudo.update(*(self._ids(result) for result in (expected, found)))
        self.pseudo_miou.update(expected.semantic, found.semantic)
        self.class_agreements.append(
            float((expected.semantic == found.semantic).mean())
        )
        pairs = _best_matches(expected, found)
        self.mask_ious += [iou for iou, _ in pairs]
        self.agreeing_px += sum(overlap for iou, overlap in pairs if iou > 0.5)
        both_void = (expected.segment_map == 0) & (found.segment_map == 0)
        self.agreeing_px += int(np.count_nonzero(both_void))
        self.compared_px += expected.panoptic.size

    def add_labels(
        self,
        labels: NDArray[np.int32],
        results: Sequence[PanopticResult],
        name: str,
    ) -> None:
        classes = labels // self.metadata.label_divisor
        try:
            for index, result in enumerate(results):
                self.quality[index].update(labels, self._ids(result))
                self.miou[index].update(classes, result.semantic)
        except DataError as error:
            raise DataError(f"{name}: {error}") from error
        self.num_labeled += 1

    def _ids(self, result: PanopticResult) -> NDArray[np.int32]:
        """Gives the panoptic ids by the model's own divisor; tracks have a larger one.

        Numbers of tracks above it begin again at 1, which only few frames could tell.
        """
        divisor = result.metadata.label_divisor
        if divisor == self.metadata.label_divisor:
            return result.panoptic
        classes, numbers = np.divmod(result.panoptic, divisor)
        room = self.metadata.label_divisor - 1
        numbers = np.where(numbers > 0, (numbers - 1) % room + 1, 0)
        return np.asarray(classes * self.metadata.label_divisor + numbers, np.int32)

    def result(self, location: str, names: tuple[str, ...]) -> Verification:
        accuracies: list[Accuracy | None] = [None, None]
        if self.num_labeled:
            accuracies = [
                Accuracy(quality.result(), miou.result())
                for quality, miou in zip(self.quality, self.miou, strict=True)
            ]
        return Verification(
            source=location,
            image_names=names,
            heads={
                name: HeadFidelity(
                    max_error=error,
                    snr_db=float(np.median(self.snrs_db[name])),
                    relative_error=error
                    / max(self.magnitudes[name], _SMALLEST_MAGNITUDE),
                )
                for name, error in sorted(self.max_errors.items())
            },
            class_agreement=float(np.mean(self.class_agreements)),
            worst_offset_px=self.worst_offset_px,
            num_centers=None
            if self.metadata.merge is None
            else (self.num_centers[0], self.num_centers[1]),
            mask_iou=float(np.mean(self.mask_ious)) if self.mask_ious else math.nan,
            panoptic_agreement=self.agreeing_px / self.compared_px,
            pq=self.pseudo.result(),
            miou=self.pseudo_miou.result(),
            float_accuracy=accuracies[0],
            accuracy=accuracies[1],
            num_labeled=self.num_labeled,
            inputs_sha256=self.digest.hexdigest(),
            has_instances=self.metadata.has_instances,
        )


def _with_video_metrics(
    report: Verification,
    engines: Iterable[Engine],
    samples: Sequence[SampleLike],
    info: DatasetInfo,
    quiet: bool,
) -> Verification:
    """Adds the metrics of videos and depth, which follow rules of their own."""
    found: list[Accuracy | None] = []
    for engine, accuracy in zip(
        engines, (report.float_accuracy, report.accuracy), strict=True
    ):
        if not engine.metadata.keeps_ids or accuracy is None:
            return report
        measured = evaluate_engine(
            engine, SampleSet(info, list(samples)), label="videos", quiet=quiet
        )
        assert isinstance(measured, MetricReport)
        results = measured.results
        depth = results.get("depth")
        found.append(
            replace(
                accuracy,
                stq=results["stq"].stq,
                depth_error=None if depth is None else depth.abs_rel,
            )
        )
    return replace(report, float_accuracy=found[0], accuracy=found[1])


def _values(accuracy: Accuracy) -> dict[str, float | None]:
    return {
        "pq": accuracy.pq.pq,
        "miou": accuracy.miou.miou,
        "stq": accuracy.stq,
        "depth": accuracy.depth_error,
    }


def _check_finite(
    runs: Sequence[Mapping[str, NDArray[Any]]], label: str, name: str
) -> None:
    for outputs in runs:
        for head, values in outputs.items():
            if not np.isfinite(values).all():
                raise ConversionError(
                    f"{name}: the {label} model gives values that are not finite in "
                    f"{head}; is the checkpoint damaged?"
                )


def _best_matches(
    expected: PanopticResult, found: PanopticResult
) -> list[tuple[float, int]]:
    """Gives IoU and common area of each expected segment with its best match."""
    columns = len(found.segments) + 1
    pairs = expected.segment_map.astype(np.int64) * columns + found.segment_map
    common = np.bincount(
        pairs.ravel(), minlength=(len(expected.segments) + 1) * columns
    ).reshape(-1, columns)
    matches = []
    for row, segment in enumerate(expected.segments, start=1):
        best = (0.0, 0)
        for column, other in enumerate(found.segments, start=1):
            overlap = int(common[row, column])
            if overlap and other.class_id == segment.class_id:
                union = segment.area_px + other.area_px - overlap
                best = max(best, (overlap / union, overlap))
        matches.append(best)
    return matches


def _snr_db(signal: NDArray[np.float64], noise: NDArray[np.float64]) -> float:
    power, disturbance = float(np.square(signal).sum()), float(np.square(noise).sum())
    if disturbance == 0.0:
        return _MAX_SNR_DB
    if power == 0.0:
        return -_MAX_SNR_DB
    return min(10 * math.log10(power / disturbance), _MAX_SNR_DB)


def _accuracy_json(accuracy: Accuracy | None) -> dict[str, Any] | None:
    if accuracy is None:
        return None
    return {
        "panoptic_quality": accuracy.pq.to_json(),
        "mean_iou": accuracy.miou.to_json(),
        "stq": accuracy.stq,
        "depth_relative_error": accuracy.depth_error,
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _percent(fraction: float) -> str:
    return f"{'-':>9}" if math.isnan(fraction) else f"{100 * fraction:9.2f}"
