"""Evaluation of checkpoints with the pipeline that devices run."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.config import ExperimentOptions, require_resolved
from deeplab2_edge.datasets.folders import SampleLike
from deeplab2_edge.datasets.info import DatasetInfo
from deeplab2_edge.errors import ConfigError, DataError, UsageError
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
from deeplab2_edge.families import abilities_of
from deeplab2_edge.models.engine import dataset_of
from deeplab2_edge.progress import progress
from deeplab2_edge.runtime import PanopticSegmenter
from deeplab2_edge.samples import (
    RecordSample,
    SampleSet,
    name_in_dataset,
    open_samples,
    video_of,
)
from deeplab2_edge.train.predictors import (
    CanvasEngine,
    CanvasNetwork,
    MaskPredictor,
    MotionPredictor,
    Predicted,
    SemanticPredictor,
    TwoFramePredictor,
    require_averageable,
)

Report = EvaluationReport | MetricReport

# What a family is measured with by default, and further on demand.
_OF_CLASSES = (("miou",), ())
_OF_IMAGES = (("pq", "miou"), ("ap",))
_OF_MASKS = (("pq", "miou"), ("pq_official", "ap"))
_OF_TRACKS = (("pq", "miou", "stq"), ("pq_official", "ap", "vpq"))
_OF_PAIRS = (("pq", "miou", "stq", "vpq"), ("pq_official", "ap", *DEPTH_METRICS))


def evaluate_checkpoint(
    config: ExperimentOptions,
    checkpoint: str | Path,
    data: SampleSet,
    *,
    metrics: Sequence[str] | None = None,
    windows: Sequence[int] = VPQ_WINDOWS,
    canvas: Sequence[int] | None = None,
    quiet: bool = False,
    writer: OfficialWriter | None = None,
) -> Report:
    """Measures a checkpoint on labeled images, at their original size.

    Args:
        config: The experiment; test-time augmentation is done as it says.
        checkpoint: See `models.engine.load_engine`.
        data: Images with labels; frames of videos in order if the model wants videos.
        metrics: Keys of `METRICS` that `metrics_of` allows, by default its first part;
            of ViP-DeepLab also depth, if the model and the data have it. The report of
            ViP-DeepLab holds VPQ of pairs of frames as well (`PAIR_METRIC`).
        windows: Window sizes of VPQ and DVPQ.
        canvas: See `models.engine.load_engine`.
        quiet: Report no progress.
        writer: Gets every prediction.

    Raises:
        CheckpointError: If the checkpoint does not fit the experiment.
        ConfigError: As `require_evaluable`.
        DataError: If the data does not fit, or is no video and has to be.
        UsageError: If the model is not measured with a metric, or gives no result of
            the kind that the writer wants.
    """
    require_evaluable(config)
    names = check_metrics(config, metrics)
    label, info = str(checkpoint), dataset_of(config)
    if writer is not None:
        require_writable(config, writer)
    if not data.samples:
        raise DataError("there is nothing to evaluate: the data set has no images")
    network = CanvasNetwork(config, checkpoint, canvas=canvas)
    wants_scores = "ap" in names
    if config.model_options.panoptic_deeplab and not is_semantic_model(config):
        return evaluate_predictions(
            _predictor(network, with_scores=wants_scores),
            data.samples,
            info,
            label=label,
            with_ap=wants_scores,
            quiet=quiet,
            writer=writer,
        )
    samples = progress(data.samples, total=len(data.samples), label=label, quiet=quiet)
    name = config.model_options.meta_architecture
    if name == "vip_deeplab":
        return _measure_pairs(
            TwoFramePredictor(network, with_scores=wants_scores),
            samples,
            _PairMeasures(info, names, windows, finds_depth=metrics is None),
            label,
            writer,
        )
    if name == "motion_deeplab":
        predicted = _track(MotionPredictor(network, with_scores=wants_scores), samples)
    else:
        predict = _predictor(network)
        predicted = ((s, None, predict(s.load_image())) for s in samples)
    counts = MetricSet(info, names, windows=windows)
    for sample, video, prediction in predicted:
        _count(counts, sample, prediction, video)
        if writer is not None:
            writer.add(name_in_dataset(sample), prediction.panoptic)
    return counts.report(label)


def write_predictions(
    config: ExperimentOptions,
    checkpoint: str | Path,
    data: SampleSet,
    writer: OfficialWriter,
    *,
    canvas: Sequence[int] | None = None,
    quiet: bool = False,
) -> None:
    """Writes the predictions of a checkpoint for images without labels.

    Arguments and errors are those of `evaluate_checkpoint`.
    """
    require_evaluable(config)
    require_writable(config, writer)
    network = CanvasNetwork(config, checkpoint, canvas=canvas)
    samples = progress(
        data.samples, total=len(data.samples), label=str(checkpoint), quiet=quiet
    )
    name = config.model_options.meta_architecture
    if name == "vip_deeplab":
        predict_pair = TwoFramePredictor(network)
        for frame in _with_next(samples):
            if frame.is_first:
                predict_pair.begin_video()
            following = None if frame.after is None else frame.after.load_image()
            found = predict_pair(frame.sample.load_image(), following).frame
            depth = found.depth
            writer.add(name_in_dataset(frame.sample), found.panoptic, depth=depth)
    elif name == "motion_deeplab":
        for sample, _, found in _track(MotionPredictor(network), samples):
            writer.add(name_in_dataset(sample), found.panoptic)
    else:
        predict = _predictor(network)
        for sample in samples:
            panoptic = predict(sample.load_image()).panoptic
            writer.add(name_in_dataset(sample), panoptic)


def require_evaluable(config: ExperimentOptions) -> None:
    """Refuses models that cannot be evaluated.

    Raises:
        ConfigError: As `abilities_of` and `require_averageable`.
    """
    abilities_of(config)
    require_averageable(config)


def metrics_of(config: ExperimentOptions) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names the metrics of a model: those measured by default, and the others."""
    options = config.model_options
    if is_video_model(config):
        return _OF_TRACKS if options.vip_deeplab is None else _OF_PAIRS
    if options.max_deeplab is not None:
        return _OF_MASKS
    return _OF_CLASSES if is_semantic_model(config) else _OF_IMAGES


def check_metrics(
    config: ExperimentOptions, names: Sequence[str] | None
) -> tuple[str, ...]:
    """Returns the metrics to measure a model with, in the order of `METRICS`.

    Raises:
        UsageError: If one is unknown, or the model is not measured with it.
    """
    default, others = metrics_of(config)
    if names is None:
        return check_names(default)
    checked, allowed = check_names(names), (*default, *others)
    for name in checked:
        if name not in allowed:
            known = ", ".join(n for n in METRICS if n in allowed)
            raise UsageError(
                f"{name} is not measured of {config.model_options.meta_architecture}; "
                f"this model is measured with {known}"
            )
    return checked


def require_writable(config: ExperimentOptions, writer: OfficialWriter) -> None:
    """Refuses predictions that a format of a benchmark cannot take.

    Raises:
        UsageError: If the model gives classes alone and the format wants instances.
    """
    if writer.wants_instances and is_semantic_model(config):
        raise UsageError(
            f"{config.model_options.meta_architecture} without instances gives "
            "classes alone, which is no panoptic prediction for a benchmark"
        )


def is_semantic_model(config: ExperimentOptions) -> bool:
    """Says whether a model gives classes alone."""
    return not abilities_of(config).has_instances


def is_video_model(config: ExperimentOptions) -> bool:
    """Says whether a model looks at two frames."""
    return abilities_of(config).keeps_ids


def evaluate_experiment(
    config: ExperimentOptions, checkpoint: str | Path, *, quiet: bool = False
) -> Report:
    """Measures a checkpoint on the experiment's own evaluation records.

    `evaluator_options.eval_steps` is the number of images, the first ones; -1 for all.
    """
    patterns = require_resolved(config.eval_dataset_options, "file_pattern")
    if not patterns:
        raise ConfigError(
            "eval_dataset_options.file_pattern is not set; it names the records to "
            "evaluate"
        )
    info = dataset_of(config)
    samples = [s for p in patterns for s in open_samples(p, info).samples]
    limit = config.evaluator_options.eval_steps
    if limit != -1:
        if limit < 1:
            raise ConfigError(
                f"evaluator_options.eval_steps is {limit}; expected a number of images "
                "above 0, or -1 for all"
            )
        samples = samples[:limit]
    return evaluate_checkpoint(
        config, checkpoint, SampleSet(info, samples), quiet=quiet
    )


def _predictor(
    network: CanvasNetwork, *, with_scores: bool = False
) -> Callable[[NDArray[np.uint8]], Any]:
    """Makes what predicts single images."""
    if network.config.model_options.max_deeplab is not None:
        return MaskPredictor(network)
    if is_semantic_model(network.config):
        return SemanticPredictor(network)
    return PanopticSegmenter(CanvasEngine(network), with_class_scores=with_scores)


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
