"""The public class of the runtime: images in, panoptic results out."""

import dataclasses
import functools
import os
import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.families import MASKS, MOTION, SEMANTIC, TWO_FRAMES
from deeplab2_edge.images import read_image
from deeplab2_edge.model_file import ModelFile, ModelMetadata
from deeplab2_edge.panoptic import PanopticMaps, class_probabilities, resize_nearest
from deeplab2_edge.runtime.classes import Classes, ClassTable
from deeplab2_edge.runtime.engine import Engine, open_engine
from deeplab2_edge.runtime.predictors import (
    CanvasEngine,
    MotionPredictor,
    PanopticPredictor,
    Predicted,
    TwoFramePredictor,
    image_predictor,
)
from deeplab2_edge.runtime.preprocess import Placement
from deeplab2_edge.runtime.results import (
    PanopticResult,
    build_result,
    result_from_maps,
)
from deeplab2_edge.runtime.timing import StageTimer

Image = NDArray[np.uint8]

# Ids of a video are never used twice: there must be room for those of all frames.
_TRACK_DIVISOR = 10_000


class PanopticSegmenter:
    """Segments images and videos with one model of any family.

    Args:
        source: A model file, or an engine of your own.
        num_threads: Of the interpreter; default: the usable cores, at most 4.
        delegate: Path of an external delegate library.
        with_class_scores: Make the probability of its class a factor of the score of
            a thing, as average precision wants it. It costs a softmax over the classes
            on every pixel of things. A file that merges by itself keeps its classes'
            scores; its things have the score of their center alone.

    Raises:
        ModelFileError: If the file cannot be used; the message says why.

    Example:
        >>> segmenter = PanopticSegmenter("model.tflite")  # doctest: +SKIP
        >>> result = segmenter("street.jpg")  # doctest: +SKIP
        >>> [(s.class_name, s.area_px) for s in result.segments]  # doctest: +SKIP
        [('road', 50611), ('car', 4022), ('car', 1834)]
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | ModelFile | Engine,
        *,
        num_threads: int | None = None,
        delegate: str | None = None,
        with_class_scores: bool = False,
    ) -> None:
        if isinstance(source, str | os.PathLike | ModelFile):
            source = open_engine(source, num_threads=num_threads, delegate=delegate)
        self.engine: Engine = source
        self._with_class_scores = with_class_scores
        self._canvas = CanvasEngine(source)
        self.classes = _classes_of(source.metadata)
        self._of_image: Callable[[Image], Predicted] | None = None
        family = source.metadata.family
        if family in (MASKS, SEMANTIC):
            self._of_image = image_predictor(self._canvas)

    @property
    def metadata(self) -> ModelMetadata:
        """Describes the model."""
        return self.engine.metadata

    @property
    def name(self) -> str:
        """Of the model."""
        return self.metadata.name

    @property
    def keeps_ids(self) -> bool:
        """Whether equal ids in frames of one video are the same instance."""
        return self.metadata.keeps_ids

    def __call__(self, image: str | os.PathLike[str] | Image) -> PanopticResult:
        """Segments one image of any size; of a model of videos, a video of one frame.

        Args:
            image: A path, or uint8 `[H, W, 3]` RGB.

        Raises:
            DataError: If the image cannot be read or is no RGB image.
        """
        timer = StageTimer()
        if isinstance(image, str | os.PathLike):
            with timer.stage("decode"):
                image = read_image(image)
        if self.keeps_ids:
            (result,) = self.segment_video([image])
        else:
            result = self._segment(image)
        if not timer.milliseconds:
            return result
        timings = {**timer.milliseconds, **result.timings_ms}
        return dataclasses.replace(result, timings_ms=timings)

    def segment_video(self, frames: Iterable[Image]) -> Iterator[PanopticResult]:
        """Segments the frames of one video in order, each `[H, W, 3]` RGB.

        Models of one image look at each by itself. ViP-DeepLab reads one frame ahead.

        Yields:
            One result per frame. Of a model that keeps ids, equal ids are the same
            instance.

        Raises:
            DataError: If an image cannot be used.
            UsageError: If a video has more instances than ids.
        """
        if self.metadata.family == TWO_FRAMES:
            yield from self._stitch(frames)
        elif self.metadata.family == MOTION:
            divisor = self.classes.label_divisor
            predict = MotionPredictor(self._canvas, track_divisor=divisor)
            for image in frames:
                yield self._timed(image, functools.partial(predict, image))
        else:
            yield from map(self._segment, frames)

    def _segment(self, image: Image) -> PanopticResult:
        if self._of_image is not None:
            predict = self._of_image
            return self._timed(image, functools.partial(predict, image))
        self._canvas.timer = timer = StageTimer()
        start = time.perf_counter_ns()
        maps, placement, logits = PanopticPredictor(self._canvas).maps(image)
        result = build_result(image, maps, placement, self.metadata)
        if self._with_class_scores and logits is not None:
            result = _weighted(result, maps, logits, placement)
        return dataclasses.replace(result, timings_ms=_timings(timer, start))

    def _stitch(self, frames: Iterable[Image]) -> Iterator[PanopticResult]:
        """Looks at each frame with the next one."""
        divisor = self.classes.label_divisor
        predict = TwoFramePredictor(self._canvas, track_divisor=divisor)

        def frame_of(image: Image, following: Image | None) -> Predicted:
            return predict(image, following).frame

        coming = iter(frames)
        image = next(coming, None)
        while image is not None:
            following = next(coming, None)
            yield self._timed(image, functools.partial(frame_of, image, following))
            image = following

    def _timed(self, image: Image, predict: Callable[[], Predicted]) -> PanopticResult:
        self._canvas.timer = timer = StageTimer()
        start = time.perf_counter_ns()
        predicted = predict()
        result = result_from_maps(
            image,
            predicted.panoptic,
            self.classes,
            semantic=predicted.semantic,
            scores=predicted.scores,
            depth=predicted.depth,
        )
        return dataclasses.replace(result, timings_ms=_timings(timer, start))


def _classes_of(metadata: ModelMetadata) -> Classes:
    """Gives the classes of the results: ids of videos need room, classes alone none."""
    if metadata.keeps_ids:
        divisor = max(metadata.label_divisor, _TRACK_DIVISOR)
        return ClassTable.of(metadata, label_divisor=divisor)
    return metadata if metadata.has_instances else ClassTable.of(metadata, thing_ids=())


def _timings(timer: StageTimer, start_ns: int) -> dict[str, float]:
    """Gives the stages; what follows the network is what the others leave."""
    stages = timer.milliseconds
    total = (time.perf_counter_ns() - start_ns) / 1e6
    return {**stages, "merge": total - sum(stages.values())}


def _weighted(
    result: PanopticResult,
    maps: PanopticMaps,
    logits: NDArray[np.float32],
    placement: Placement,
) -> PanopticResult:
    """Multiplies the score of each thing by the mean probability of its class."""
    settings = result.metadata
    height, width = placement.resized_size
    probabilities = class_probabilities(
        logits,
        maps.panoptic // settings.label_divisor,
        thing_ids=settings.thing_ids,
    )
    at_image = resize_nearest(probabilities[:height, :width], placement.image_size)
    place = result.segment_map.reshape(-1)
    sums = np.bincount(place, at_image.reshape(-1), len(result.segments) + 1)
    segments = tuple(
        segment
        if segment.score is None
        else dataclasses.replace(segment, score=segment.score * total / segment.area_px)
        for segment, total in zip(result.segments, sums[1:].tolist(), strict=True)
    )
    return dataclasses.replace(result, segments=segments)
