"""Evaluation of checkpoints with the pipeline that devices run."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.config import ExperimentOptions, require_resolved
from deeplab2_edge.datasets.folders import SampleLike
from deeplab2_edge.datasets.info import DatasetInfo
from deeplab2_edge.errors import ConfigError, DataError, UsageError
from deeplab2_edge.metrics import (
    EvaluationReport,
    Frame,
    MetricReport,
    MetricSet,
    OfficialWriter,
    VideoPanopticQuality,
    evaluate_predictions,
)
from deeplab2_edge.models.engine import dataset_of, load_engine, require_panoptic
from deeplab2_edge.progress import progress
from deeplab2_edge.runtime import PanopticSegmenter
from deeplab2_edge.samples import RecordSample, SampleSet, open_samples, video_of
from deeplab2_edge.train.predictors import (
    CanvasNetwork,
    MaskPredictor,
    MotionPredictor,
    Predicted,
    SemanticPredictor,
    TwoFramePredictor,
)

Report = EvaluationReport | MetricReport

# Architectures that look at two frames; the others look at one image.
_OF_VIDEOS = ("motion_deeplab", "vip_deeplab")


def evaluate_checkpoint(
    config: ExperimentOptions,
    checkpoint: str | Path,
    data: SampleSet,
    *,
    canvas: Sequence[int] | None = None,
    with_ap: bool = False,
    quiet: bool = False,
    writer: OfficialWriter | None = None,
) -> Report:
    """Measures a checkpoint on labeled images, at their original size.

    What is measured depends on the model: mean IoU of a semantic one, else panoptic
    quality too; STQ of Motion-DeepLab; of ViP-DeepLab VPQ of two frames, and errors of
    depth if it has a head for it and the data has depth.

    Args:
        config: The experiment.
        checkpoint: See `models.engine.load_engine`.
        data: Images with labels; frames of videos in order if the model wants videos.
        canvas: See `models.engine.load_engine`.
        with_ap: See `evaluate_predictions`.
        quiet: Report no progress.
        writer: Gets every prediction.

    Raises:
        CheckpointError: If the checkpoint does not fit the experiment.
        ConfigError: As `require_evaluable`.
        DataError: If the data does not fit, or is no video and has to be.
        UsageError: If the model gives no scores and AP is asked for, or no panoptic
            result and there is a writer.
    """
    require_evaluable(config)
    label, info = str(checkpoint), dataset_of(config)
    if _has_centers(config) and not is_video_model(config):
        return evaluate_predictions(
            PanopticSegmenter(load_engine(config, checkpoint, canvas=canvas)),
            data.samples,
            info,
            label=label,
            with_ap=with_ap,
            quiet=quiet,
            writer=writer,
        )
    name = config.model_options.meta_architecture
    if with_ap and config.model_options.max_deeplab is None:
        raise UsageError(f"ap is not measured for {name}: it gives no scores here")
    if writer is not None:
        require_panoptic_result(config)
    if not data.samples:
        raise DataError("there is nothing to evaluate: the data set has no images")
    network = CanvasNetwork(config, checkpoint, canvas=canvas)
    samples = progress(data.samples, total=len(data.samples), label=label, quiet=quiet)
    if name == "vip_deeplab":
        return _measure_pairs(TwoFramePredictor(network), samples, info, label, writer)
    if name == "motion_deeplab":
        metrics = MetricSet(info, ("pq", "miou", "stq"))
        predicted = _track(MotionPredictor(network), samples)
    else:
        is_semantic = config.model_options.max_deeplab is None
        names = ("miou",) if is_semantic else ("pq", "miou")
        metrics = MetricSet(info, (*names, "ap") if with_ap else names)
        predict = SemanticPredictor(network) if is_semantic else MaskPredictor(network)
        predicted = ((s, None, predict(s.load_image())) for s in samples)
    for sample, video, prediction in predicted:
        _count(metrics, sample, prediction, video)
        if writer is not None:
            writer.add(sample.name, prediction.panoptic)
    return metrics.report(label)


def require_evaluable(config: ExperimentOptions) -> None:
    """Refuses models that cannot be evaluated.

    Raises:
        ConfigError: If there is no model, it looks at videos and has no instances or
            not the head of its second frame, or test-time augmentation is asked for.
    """
    options = config.model_options
    if options.meta_architecture is None:
        require_panoptic(config)
    _refuse_test_time_augmentation(config)
    if is_video_model(config) and not _has_centers(config):
        raise ConfigError(
            f"model_options.{options.meta_architecture}.instance.enable is false; "
            "evaluation of a model of videos needs instances"
        )
    vip = options.vip_deeplab
    if vip is not None and vip.instance.next_regression_head is None:
        raise ConfigError(
            "model_options.vip_deeplab.instance.next_regression_head is missing; "
            "evaluation of pairs of frames needs it"
        )


def require_panoptic_result(config: ExperimentOptions) -> None:
    """Refuses models whose predictions no panoptic benchmark takes.

    Raises:
        UsageError: If the model is a semantic one.
    """
    if config.model_options.max_deeplab is None and not _has_centers(config):
        raise UsageError(
            f"{config.model_options.meta_architecture} without instances gives "
            "classes alone, which is no panoptic prediction for a benchmark"
        )


def is_video_model(config: ExperimentOptions) -> bool:
    """Says whether a model looks at two frames."""
    return config.model_options.meta_architecture in _OF_VIDEOS


def evaluate_experiment(
    config: ExperimentOptions, checkpoint: str | Path, *, quiet: bool = False
) -> Report:
    """Measures a checkpoint on the experiment's own evaluation records."""
    patterns = require_resolved(config.eval_dataset_options, "file_pattern")
    if not patterns:
        raise ConfigError(
            "eval_dataset_options.file_pattern is not set; it names the records to "
            "evaluate"
        )
    info = dataset_of(config)
    samples = [s for p in patterns for s in open_samples(p, info).samples]
    return evaluate_checkpoint(
        config, checkpoint, SampleSet(info, samples), quiet=quiet
    )


def _has_centers(config: ExperimentOptions) -> bool:
    options = config.model_options
    panoptic = options.panoptic_deeplab or options.motion_deeplab or options.vip_deeplab
    return panoptic is not None and panoptic.instance.enable


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


def _measure_pairs(
    predict: TwoFramePredictor,
    samples: Iterable[SampleLike],
    info: DatasetInfo,
    label: str,
    writer: OfficialWriter | None,
) -> MetricReport:
    """Measures frames, their depth, and the ids that two frames share."""
    metrics: MetricSet | None = None
    pairs = VideoPanopticQuality(
        info.num_classes,
        info.ignore_label,
        label_divisor=info.label_divisor,
        thing_ids=info.thing_ids,
        windows=(2,),
    )
    for number, (sample, following) in enumerate(_with_next(samples)):
        image, next_label = following() or (None, None)
        predicted = predict(sample.load_image(), image)
        depth = sample.load_depth() if isinstance(sample, RecordSample) else None
        if metrics is None:
            has_depth = depth is not None and predicted.frame.depth is not None
            names = ("pq", "miou", "depth") if has_depth else ("pq", "miou")
            metrics = MetricSet(info, names)
        _count(metrics, sample, predicted.frame, None, depth)
        if predicted.next_panoptic is not None and next_label is not None:
            # Ids hold within the pair, so each is a video of its own.
            truth = _label_of(sample)
            pairs.update(truth, predicted.frame.panoptic, sequence=number)
            pairs.update(next_label, predicted.next_panoptic, sequence=number)
        if writer is not None:
            writer.add(sample.name, predicted.frame.panoptic)
    assert metrics is not None
    report = metrics.report(label)
    report.results["vpq"] = pairs.result()
    return report


_Following = Callable[[], tuple[NDArray[np.uint8], NDArray[np.int32]] | None]


def _with_next(
    samples: Iterable[SampleLike],
) -> Iterator[tuple[SampleLike, _Following]]:
    """Pairs frames with what loads the next one: as stored, else the next sample."""
    frames = _frames(samples)
    current = next(frames, None)
    while current is not None:
        sample, video = current
        current = next(frames, None)
        after = current[0] if current is not None and current[1] == video else None
        yield sample, functools.partial(_load_next, sample, after)


def _load_next(
    sample: SampleLike, after: SampleLike | None
) -> tuple[NDArray[np.uint8], NDArray[np.int32]] | None:
    stored = sample.load_next() if isinstance(sample, RecordSample) else None
    if stored is not None or after is None:
        return stored
    label = after.load_panoptic()
    if label is None:
        raise DataError(
            f"{after.name}: this image has no labels; evaluation needs them"
        )
    return after.load_image(), label


def _refuse_test_time_augmentation(config: ExperimentOptions) -> None:
    options = config.evaluator_options
    if options.add_flipped_images or tuple(options.eval_scales) not in ((), (1.0,)):
        raise ConfigError(
            "evaluator_options.add_flipped_images and eval_scales ask for test-time "
            "augmentation, which this version does not do: remove them"
        )
