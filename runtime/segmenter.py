"""The public class of the runtime: an image in, a panoptic result out."""

import dataclasses
import os
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.images import read_image
from deeplab2_edge.model_file import ModelFile, ModelMetadata
from deeplab2_edge.panoptic import (
    Heads,
    PanopticMaps,
    class_probabilities,
    merge_heads,
    resize_nearest,
)
from deeplab2_edge.runtime.interpreter import LiteRtEngine
from deeplab2_edge.runtime.preprocess import Placement, place_on_canvas
from deeplab2_edge.runtime.results import PanopticResult, build_result
from deeplab2_edge.runtime.timing import StageTimer


class Engine(Protocol):
    """Runs a network: LiteRT, or anything else that offers these two."""

    @property
    def metadata(self) -> ModelMetadata:
        """Describes the model."""

    def run(self, canvas: NDArray[np.uint8]) -> Heads:
        """Gives the heads of a uint8 `[H, W, 3]` canvas."""


class PanopticSegmenter:
    """Segments images with one model.

    Args:
        source: A model file, or an engine of your own.
        num_threads: Of the interpreter; default: the usable cores, at most 4.
        delegate: Path of an external delegate library.
        with_class_scores: Make the probability of its class a factor of the score of
            a thing, as average precision wants it. It costs a softmax over the classes
            on every pixel of things.

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
        self.engine: Engine
        self._with_class_scores = with_class_scores
        if isinstance(source, str | os.PathLike | ModelFile):
            self.engine = LiteRtEngine(
                source, num_threads=num_threads, delegate=delegate
            )
        else:
            self.engine = source

    @property
    def metadata(self) -> ModelMetadata:
        """Describes the model."""
        return self.engine.metadata

    def __call__(
        self, image: str | os.PathLike[str] | NDArray[np.uint8]
    ) -> PanopticResult:
        """Segments one image of any size.

        Args:
            image: A path, or uint8 `[H, W, 3]` RGB.

        Raises:
            DataError: If the image cannot be read or is no RGB image.
        """
        timer = StageTimer()
        if isinstance(image, str | os.PathLike):
            with timer.stage("decode"):
                image = read_image(image)
        with timer.stage("preprocess"):
            canvas, placement = place_on_canvas(
                image, self.metadata.canvas, self.metadata.resize
            )
        with timer.stage("network"):
            heads = self.engine.run(canvas)
        with timer.stage("merge"):
            maps = self._merge(heads)
            result = build_result(image, maps, placement, self.metadata)
            if self._with_class_scores:
                result = _weighted(result, maps, heads, placement)
        return dataclasses.replace(result, timings_ms=timer.milliseconds)

    def _merge(self, heads: Heads) -> PanopticMaps:
        return merge_heads(
            heads.semantic_logits,
            heads.center_heatmap,
            heads.offset_map,
            canvas=self.metadata.canvas,
            settings=self.metadata.merge,
        )


def _weighted(
    result: PanopticResult, maps: PanopticMaps, heads: Heads, placement: Placement
) -> PanopticResult:
    """Multiplies the score of each thing by the mean probability of its class."""
    settings = result.metadata
    height, width = placement.resized_size
    probabilities = class_probabilities(
        heads.semantic_logits.astype(np.float32, copy=False),
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
