"""Segments images and videos with a checkpoint of any family, frame by frame."""

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.config import ExperimentOptions
from deeplab2_edge.families import abilities_of
from deeplab2_edge.models.engine import dataset_of, load_engine
from deeplab2_edge.runtime.classes import Classes, ClassTable
from deeplab2_edge.runtime.clips import track_results
from deeplab2_edge.runtime.results import PanopticResult, result_from_maps
from deeplab2_edge.runtime.segmenter import PanopticSegmenter
from deeplab2_edge.train.predictors import (
    CanvasNetwork,
    MaskPredictor,
    MotionPredictor,
    Predicted,
    SemanticPredictor,
    TwoFramePredictor,
)

Image = NDArray[np.uint8]

# Ids of a video are never used twice: there must be room for those of all frames.
_TRACK_DIVISOR = 10_000


class CheckpointSegmenter:
    """Runs the float network of a checkpoint.

    Args:
        config: The experiment.
        checkpoint: See `models.engine.load_network`.
        canvas: See `models.engine.load_network`.
        tracks: Instances keep their ids over a video by their overlap, for a model of
            one image.

    Attributes:
        name: Of the experiment.
        keeps_ids: Whether equal ids in frames of one video are the same instance.
        classes: Of the results, before they are tracked.

    Raises:
        CheckpointError: If the checkpoint does not fit the experiment.
        ConfigError: As `abilities_of`, or if there is no canvas or no data set.

    Example:
        >>> segmenter = CheckpointSegmenter(config, "runs/vip")  # doctest: +SKIP
        >>> for result in segmenter.segment_video(frames):  # doctest: +SKIP
        ...     show(result.instance_map())
    """

    def __init__(
        self,
        config: ExperimentOptions,
        checkpoint: str | Path,
        *,
        canvas: Sequence[int] | None = None,
        tracks: bool = False,
    ) -> None:
        self._abilities = abilities_of(config)
        self._tracks = tracks
        self.keeps_ids = tracks or self._abilities.keeps_ids
        info = dataset_of(config)
        self.name = config.experiment_name or config.model_options.backbone.name
        self.classes: Classes = ClassTable.of(info, name=self.name)
        self._architecture = config.model_options.meta_architecture
        self._panoptic: PanopticSegmenter | None = None
        if self._architecture == "panoptic_deeplab" and self._abilities.has_instances:
            engine = load_engine(config, checkpoint, canvas=canvas)
            self._panoptic = PanopticSegmenter(engine)
            return
        self._network = CanvasNetwork(config, checkpoint, canvas=canvas)
        if self._abilities.keeps_ids:
            divisor = max(info.label_divisor, _TRACK_DIVISOR)
            self.classes = ClassTable.of(self.classes, label_divisor=divisor)
        elif not self._abilities.has_instances:
            self.classes = ClassTable.of(self.classes, thing_ids=())

    def segment_video(self, frames: Iterable[Image]) -> Iterator[PanopticResult]:
        """Segments the frames of one video in order, each `[H, W, 3]` RGB.

        Models of one image look at each by itself. A model of two frames reads one
        frame ahead.

        Yields:
            One result per frame. Of a model that keeps ids, equal ids are the same
            instance.

        Raises:
            DataError: If an image cannot be used.
            UsageError: If a video has more instances than ids.
        """
        results = self._segment(frames)
        return track_results(results) if self._tracks else results

    def _segment(self, frames: Iterable[Image]) -> Iterator[PanopticResult]:
        if self._panoptic is not None:
            yield from map(self._panoptic, frames)
        elif self._architecture == "vip_deeplab":
            yield from self._stitch(frames)
        elif self._architecture == "motion_deeplab":
            predict = MotionPredictor(
                self._network, track_divisor=self.classes.label_divisor
            )
            for image in frames:
                start = time.perf_counter_ns()
                yield self._result(image, predict(image), start)
        else:
            is_semantic = not self._abilities.has_instances
            decode = SemanticPredictor if is_semantic else MaskPredictor
            predict_one = decode(self._network)
            for image in frames:
                start = time.perf_counter_ns()
                yield self._result(image, predict_one(image), start)

    def _stitch(self, frames: Iterable[Image]) -> Iterator[PanopticResult]:
        """Looks at each frame with the next one."""
        predict = TwoFramePredictor(
            self._network, track_divisor=self.classes.label_divisor
        )
        coming = iter(frames)
        image = next(coming, None)
        while image is not None:
            following = next(coming, None)
            start = time.perf_counter_ns()
            yield self._result(image, predict(image, following).frame, start)
            image = following

    def _result(
        self, image: Image, predicted: Predicted, start_ns: int
    ) -> PanopticResult:
        elapsed = (time.perf_counter_ns() - start_ns) / 1e6
        return result_from_maps(
            image,
            predicted.panoptic,
            self.classes,
            semantic=predicted.semantic,
            scores=predicted.scores,
            depth=predicted.depth,
            timings_ms={"segment": elapsed},
        )
