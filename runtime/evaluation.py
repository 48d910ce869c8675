"""Evaluation of a model of any family, in any engine, on labeled images."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.datasets.folders import SampleLike
from deeplab2_edge.datasets.info import DatasetInfo
from deeplab2_edge.errors import DataError, UsageError
from deeplab2_edge.families import MASKS, MOTION, PANOPTIC, SEMANTIC, TWO_FRAMES
from deeplab2_edge.metrics import (
    DEPTH_METRICS,
    METRICS,
    PAIR_METRIC,
    VIDEO_METRICS,
    VPQ_WINDOWS,
    EvaluationReport,
    Frame,
    MetricReport,
    MetricSet,
    OfficialWriter,
    VideoPanopticQuality,
    check_names,
    evaluate_predictions,
)
from deeplab2_edge.progress import progress
from deeplab2_edge.runtime.engine import Engine
from deeplab2_edge.runtime.predictors import (
    CanvasEngine,
    MotionPredictor,
    Predicted,
    TwoFramePredictor,
    image_predictor,
)
from deeplab2_edge.runtime.segmenter import PanopticSegmenter
from deeplab2_edge.samples import (
    RecordSample,
    SampleSet,
    name_in_dataset,
    video_of,
)

Report = EvaluationReport | MetricReport

# What a family is measured with by default, and further on demand.
_METRICS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    SEMANTIC: (("miou",), ()),
    PANOPTIC: (("pq", "miou"), ("ap",)),
    MASKS: (("pq", "miou"), ("pq_official", "ap")),
    MOTION: (("pq", "miou", "stq"), ("pq_official", "ap", "vpq", "ids", "flicker")),
    TWO_FRAMES: (
        ("pq", "miou", "stq", "vpq"),
        ("pq_official", "ap", "ids", "flicker", *DEPTH_METRICS),
    ),
}


def evaluate_engine(
    engine: Engine,
    data: SampleSet,
    *,
    label: str,
    metrics: Sequence[str] | None = None,
    windows: Sequence[int] = VPQ_WINDOWS,
    quiet: bool = False,
    writer: OfficialWriter | None = None,
) -> Report:
    """Measures a model on labeled images, at their original size.

    Args:
        engine: Of any family.
        data: Images with labels; frames of videos in order if the model wants videos.
        label: What is evaluated, for the progress line and the report.
        metrics: Keys of `METRICS` that `metrics_of` allows, by default its first part;
            of ViP-DeepLab also depth, if the model and the data have it. The report of
            ViP-DeepLab holds VPQ of pairs of frames as well (`PAIR_METRIC`).
        windows: Window sizes of VPQ and DVPQ.
        quiet: Report no progress.
        writer: Gets every prediction.

    Raises:
        DataError: If the data does not fit, or is no video and has to be.
        UsageError: If the model is not measured with a metric, or gives no result of
            the kind that the writer wants.
    """
    family, info = engine.metadata.family, data.info
    model = engine.metadata.meta_architecture
    names = check_metrics(family, metrics, model=model)
    if writer is not None:
        require_writable(family, writer, model=model)
    if not data.samples:
        raise DataError("there is nothing to evaluate: the data set has no images")
    wants_scores = "ap" in names
    if family == PANOPTIC:
        return evaluate_predictions(
            PanopticSegmenter(engine, with_class_scores=wants_scores),
            data.samples,
            info,
            label=label,
            with_ap=wants_scores,
            quiet=quiet,
            writer=writer,
        )
    samples = progress(data.samples, total=len(data.samples), label=label, quiet=quiet)
    canvas = CanvasEngine(engine)
    if family == TWO_FRAMES:
        return _measure_pairs(
            TwoFramePredictor(canvas, with_scores=wants_scores),
            samples,
            _PairMeasures(info, names, windows, finds_depth=metrics is None),
            label,
            writer,
        )
    if family == MOTION:
        predicted = _track(MotionPredictor(canvas, with_scores=wants_scores), samples)
    else:
        predict = image_predictor(canvas)
        predicted = ((s, None, predict(s.load_image())) for s in samples)
    counts = MetricSet(info, names, windows=windows)
    for sample, video, prediction in predicted:
        _count(counts, sample, prediction, video)
        if writer is not None:
            writer.add(name_in_dataset(sample), prediction.panoptic)
    return counts.report(label)


def write_predictions(
    engine: Engine,
    data: SampleSet,
    writer: OfficialWriter,
    *,
    label: str,
    quiet: bool = False,
) -> None:
    """Writes the predictions of a model for images without labels.

    Arguments and errors are those of `evaluate_engine`.
    """
    family = engine.metadata.family
    require_writable(family, writer, model=engine.metadata.meta_architecture)
    samples = progress(data.samples, total=len(data.samples), label=label, quiet=quiet)
    if family == TWO_FRAMES:
        predict_pair = TwoFramePredictor(CanvasEngine(engine))
        for frame in _with_next(samples):
            if frame.is_first:
                predict_pair.begin_video()
            following = None if frame.after is None else frame.after.load_image()
            found = predict_pair(frame.sample.load_image(), following).frame
            depth = found.depth
            writer.add(name_in_dataset(frame.sample), found.panoptic, depth=depth)
    elif family == MOTION:
        tracker = MotionPredictor(CanvasEngine(engine))
        for sample, _, found in _track(tracker, samples):
            writer.add(name_in_dataset(sample), found.panoptic)
    else:
        predict = image_predictor(CanvasEngine(engine))
        for sample in samples:
            panoptic = predict(sample.load_image()).panoptic
            writer.add(name_in_dataset(sample), panoptic)


def metrics_of(family: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names the metrics of a family: those measured by default, and the others."""
    return _METRICS[family]


def check_metrics(
    family: str, names: Sequence[str] | None, *, model: str
) -> tuple[str, ...]:
    """Returns the metrics to measure a family with, in the order of `METRICS`.

    Args:
        family: One of `families.FAMILIES`.
        names: What is asked for; None: what is measured by default.
        model: What to call it in messages.

    Raises:
        UsageError: If one is unknown, or the model is not measured with it.
    """
    default, others = metrics_of(family)
    if names is None:
        return check_names(default)
    checked, allowed = check_names(names), (*default, *others)
    for name in checked:
        if name not in allowed:
            known = ", ".join(n for n in METRICS if n in allowed)
            raise UsageError(
                f"{name} is not measured of {model}; this model is measured with "
                f"{known}"
            )
    return checked


def require_writable(family: str, writer: OfficialWriter, *, model: str) -> None:
    """Refuses predictions that a format of a benchmark cannot take.

    Raises:
        UsageError: If the model gives classes alone and the format wants instances.
    """
    if writer.wants_instances and family == SEMANTIC:
        raise UsageError(
            f"{model} without instances gives classes alone, which is no panoptic "
            "prediction for a benchmark"
        )


def _count(
    metrics: MetricSet,
    sample: SampleLike,
    prediction: Predicted,
    video: str | None,
    depth: NDArray[np.float32] | None = None,
) -> None:
    try:
        metrics.update(
            Frame(
                groundtruth=_label_of(sample),
                prediction=prediction.panoptic,
                semantic=prediction.semantic,
                scores=prediction.scores,
                sequence=video,
                depth_groundtruth=depth,
                depth_prediction=prediction.depth,
            )
        )
    except DataError as error:
        raise DataError(f"{sample.name}: {error}") from error


def _label_of(sample: SampleLike) -> NDArray[np.int32]:
    label = sample.load_panoptic()
    if label is None:
        raise DataError("this image has no labels; evaluation needs them")
    return label


def _track(
    predict: MotionPredictor, samples: Iterable[SampleLike]
) -> Iterator[tuple[SampleLike, str | None, Predicted]]:
    """Predicts the frames of videos; each video starts anew."""
    last = None
    for sample, video in _frames(samples):
        if video != last:
            predict.begin_video()
        last = video
        yield sample, video, predict(sample.load_image())


def _frames(samples: Iterable[SampleLike]) -> Iterator[tuple[SampleLike, str]]:
    """Names the video of every frame, and refuses what comes in no order."""
    ended: set[str] = set()
    last = None
    for sample in samples:
        video = video_of(sample)
        if video is None:
            raise DataError(
                f"{sample.name}: is no frame of a video, which the model needs: give "
                "records with video/sequence_id, or label PNGs in a folder per video"
            )
        if video in ended:
            raise DataError(
                f"{sample.name}: video {video} goes on after another one began; the "
                "frames of a video must come together and in order"
            )
        if last is not None and video != last:
            ended.add(last)
        last = video
        yield sample, video


class _PairMeasures:
    """Collects the metrics of frames, of videos and of pairs of frames.

    Args:
        info: The classes.
        names: Keys of `METRICS`.
        windows: Of VPQ and DVPQ.
        finds_depth: Measure depth if the first frame has it.
    """

    def __init__(
        self,
        info: DatasetInfo,
        names: Sequence[str],
        windows: Sequence[int],
        *,
        finds_depth: bool,
    ) -> None:
        self.info, self.windows = info, windows
        self._finds_depth = finds_depth
        self._names = tuple(names)
        self._of_frames: list[MetricSet] = []
        self._of_videos: MetricSet | None = None
        self._pairs = VideoPanopticQuality(
            info.num_classes,
            info.ignore_label,
            label_divisor=info.label_divisor,
            thing_ids=info.thing_ids,
            windows=(2,),
        )

    def add(
        self,
        sample: SampleLike,
        prediction: Predicted,
        video: str,
        depth: NDArray[np.float32] | None,
    ) -> None:
        """Counts a frame, its ids being those of the video."""
        if not self._of_frames and self._of_videos is None:
            self._begin(depth is not None and prediction.depth is not None)
        for metrics in (*self._of_frames, self._of_videos):
            if metrics is not None:
                _count(metrics, sample, prediction, video, depth)

    def add_last(
        self, label: NDArray[np.int32], panoptic: NDArray[np.int32], video: str
    ) -> None:
        """Counts the last frame of a video, which is a next frame only."""
        if self._of_videos is not None:
            self._of_videos.update(Frame(label, panoptic, sequence=video))

    def add_pair(
        self,
        labels: tuple[NDArray[np.int32], NDArray[np.int32]],
        predictions: tuple[NDArray[np.int32], NDArray[np.int32]],
    ) -> None:
        """Counts two frames by ids that hold within the pair."""
        self._pairs.update_window(labels, predictions)

    def report(self, label: str) -> MetricReport:
        """Gives all figures."""
        reports = [m.report(label) for m in self._of_frames]
        if self._of_videos is not None:
            reports.append(self._of_videos.report(label))
        found = {name: r for report in reports for name, r in report.results.items()}
        results = {name: found[name] for name in METRICS if name in found}
        results[PAIR_METRIC] = self._pairs.result()
        # The frames of videos may be more: those that are a next frame only.
        return MetricReport(label, self.info, reports[0].num_images, results)

    def _begin(self, has_depth: bool) -> None:
        names = self._names
        if self._finds_depth and has_depth:
            names += ("depth",)
        # A frame without depth can only count for the metrics of videos alone.
        of_videos = VIDEO_METRICS - DEPTH_METRICS
        rest = [n for n in names if n not in of_videos]
        chosen = [n for n in names if n in of_videos]
        if rest:
            self._of_frames = [MetricSet(self.info, rest, windows=self.windows)]
        if chosen:
            self._of_videos = MetricSet(self.info, chosen, windows=self.windows)


def _measure_pairs(
    predict: TwoFramePredictor,
    samples: Iterable[SampleLike],
    measures: _PairMeasures,
    label: str,
    writer: OfficialWriter | None,
) -> MetricReport:
    """Measures frames, their depth, and the ids that frames share."""
    for frame in _with_next(samples):
        sample, video = frame.sample, frame.video
        if frame.is_first:
            predict.begin_video()
        image, next_label = frame.load_next() or (None, None)
        predicted = predict(sample.load_image(), image)
        depth = sample.load_depth() if isinstance(sample, RecordSample) else None
        measures.add(sample, predicted.frame, video, depth)
        if predicted.pair is not None and next_label is not None:
            measures.add_pair((_label_of(sample), next_label), predicted.pair)
            if frame.after is None:
                ending = predict.end_video()
                assert ending is not None
                measures.add_last(next_label, ending, video)
        if writer is not None:
            found = predicted.frame
            writer.add(name_in_dataset(sample), found.panoptic, depth=found.depth)
    return measures.report(label)


@dataclass(frozen=True)
class _FrameOfVideo:
    """Is a frame with what stands around it.

    Attributes:
        sample: The frame.
        video: Its name.
        is_first: No sample of the video comes before it.
        after: The sample that comes after it in the video, None for the last.
    """

    sample: SampleLike
    video: str
    is_first: bool
    after: SampleLike | None

    def load_next(self) -> tuple[NDArray[np.uint8], NDArray[np.int32]] | None:
        """Gives the next frame and its label: as stored, else the next sample."""
        sample, after = self.sample, self.after
        stored = sample.load_next() if isinstance(sample, RecordSample) else None
        if stored is not None or after is None:
            return stored
        label = after.load_panoptic()
        if label is None:
            raise DataError(
                f"{after.name}: this image has no labels; evaluation needs them"
            )
        return after.load_image(), label


def _with_next(samples: Iterable[SampleLike]) -> Iterator[_FrameOfVideo]:
    frames = _frames(samples)
    last, current = None, next(frames, None)
    while current is not None:
        sample, video = current
        current = next(frames, None)
        after = current[0] if current is not None and current[1] == video else None
        yield _FrameOfVideo(sample, video, is_first=video != last, after=after)
        last = video
