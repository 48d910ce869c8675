"""The public class of the runtime: images in, panoptic results out."""

import dataclasses
import functools
import os
import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import UsageError
from deeplab2_edge.families import MOTION, PANOPTIC, TWO_FRAMES
from deeplab2_edge.images import read_image
from deeplab2_edge.model_file import ModelFile, ModelMetadata
from deeplab2_edge.runtime import native
from deeplab2_edge.runtime.classes import Classes, ClassTable
from deeplab2_edge.runtime.engine import Engine, open_engine
from deeplab2_edge.runtime.predictors import (
    CanvasEngine,
    ImagePredictor,
    MotionPredictor,
    PanopticPredictor,
    Predicted,
    Seen,
    TwoFramePredictor,
    image_predictor,
)
from deeplab2_edge.runtime.results import PanopticResult, result_from_maps
from deeplab2_edge.runtime.scene_cuts import SceneCutDetector
from deeplab2_edge.runtime.timing import StageTimer

Image = NDArray[np.uint8]

# Ids of a video come twice only after all others: the more, the later.
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
        native.is_available()  # compiled now if need be, not with the first image
        self._canvas = CanvasEngine(source)
        self.classes = _classes_of(source.metadata)
        self._predictor: ImagePredictor | None = None
        if source.metadata.family == PANOPTIC:
            self._predictor = PanopticPredictor(
                self._canvas, with_class_scores=with_class_scores
            )
        elif not source.metadata.keeps_ids:
            self._predictor = image_predictor(self._canvas)

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

    @property
    def num_frames_ahead(self) -> int:
        """How many frames `segment_video` reads beyond the one it gives."""
        return 1 if self.metadata.family == TWO_FRAMES else 0

    @property
    def has_stages(self) -> bool:
        """Whether images can be looked at and finished apart, see `look`."""
        return self._predictor is not None

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
        (result,) = self.segment_video([image])
        if not timer.milliseconds:
            return result
        timings = {**timer.milliseconds, **result.timings_ms}
        return dataclasses.replace(result, timings_ms=timings)

    def segment_video(self, frames: Iterable[Image]) -> Iterator[PanopticResult]:
        """Segments the frames of one video in order, each `[H, W, 3]` RGB.

        Models of one image look at each by itself. ViP-DeepLab reads one frame ahead.
        Models that keep ids follow no instance over a cut to another scene.

        Yields:
            One result per frame. Of a model that keeps ids, equal ids are the same
            instance.

        Raises:
            DataError: If an image cannot be used.
            UsageError: If a frame has more instances than ids.
        """
        if self.metadata.family == TWO_FRAMES:
            yield from self._stitch(frames)
        elif self.metadata.family == MOTION:
            divisor = self.classes.label_divisor
            predict = MotionPredictor(self._canvas, track_divisor=divisor)
            is_cut = SceneCutDetector()
            for image in frames:
                if is_cut(image):
                    predict.begin_scene()
                yield self._timed(image, functools.partial(predict, image))
        else:
            for image in frames:
                yield self.finish(self.look(image))

    def look(self, image: Image) -> Seen:
        """Runs the network alone on a `[H, W, 3]` RGB image.

        `finish(look(image))` is the result. While one thread looks at a frame, another
        may finish the one before; neither is for several threads at once.

        Raises:
            UsageError: If the model looks at several frames, see `has_stages`.
            DataError: If it is no RGB image.
        """
        self._canvas.timer = StageTimer()
        return self._of_images().look(image)

    def finish(self, seen: Seen) -> PanopticResult:
        """Makes the result of what `look` gave."""
        with seen.timer.stage("merge"):
            result = self._result(seen.image, self._of_images().finish(seen))
        return dataclasses.replace(result, timings_ms=seen.timer.milliseconds)

    def finish_video(self, seen: Iterable[Seen]) -> Iterator[PanopticResult]:
        """Finishes the frames of one video in their order, see `finish`."""
        return map(self.finish, seen)

    def _of_images(self) -> ImagePredictor:
        if self._predictor is None:
            raise UsageError(
                f"{self.name} looks at several frames of a video; use segment_video"
            )
        return self._predictor

    def _stitch(self, frames: Iterable[Image]) -> Iterator[PanopticResult]:
        """Looks at each frame with the next one."""
        divisor = self.classes.label_divisor
        predict = TwoFramePredictor(self._canvas, track_divisor=divisor)

        def frame_of(image: Image, following: Image | None) -> Predicted:
            return predict(image, following).frame

        is_cut = SceneCutDetector()
        coming = ((image, is_cut(image)) for image in frames)
        image, _ = next(coming, (None, False))
        while image is not None:
            following, begins_scene = next(coming, (None, False))
            # Before a cut a frame is like the last one of a video.
            seen = None if begins_scene else following
            yield self._timed(image, functools.partial(frame_of, image, seen))
            image = following

    def _timed(self, image: Image, predict: Callable[[], Predicted]) -> PanopticResult:
        self._canvas.timer = timer = StageTimer()
        start = time.perf_counter_ns()
        result = self._result(image, predict())
        return dataclasses.replace(result, timings_ms=_timings(timer, start))

    def _result(self, image: Image, predicted: Predicted) -> PanopticResult:
        if predicted.segments is not None:
            return PanopticResult(
                image,
                predicted.panoptic,
                predicted.semantic,
                predicted.segments,
                self.classes,
            )
        return result_from_maps(
            image,
            predicted.panoptic,
            self.classes,
            semantic=predicted.semantic,
            scores=predicted.scores,
            depth=predicted.depth,
        )


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
