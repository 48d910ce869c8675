"""The float model that is converted, and what it sees of images."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import checkpoints, keys
from deeplab2_edge.config import ExperimentOptions
from deeplab2_edge.convert.images import ImageSet
from deeplab2_edge.convert.options import ConversionOptions
from deeplab2_edge.convert.provenance import describe_provenance
from deeplab2_edge.convert.quantization.calibration import Inputs
from deeplab2_edge.convert.quiet import quiet_native_notes
from deeplab2_edge.convert.recording import Recorder
from deeplab2_edge.datasets.folders import SampleLike
from deeplab2_edge.errors import CheckpointError
from deeplab2_edge.model_file import (
    ModelMetadata,
    is_picture,
)
from deeplab2_edge.models import build_model
from deeplab2_edge.models.engine import KerasEngine
from deeplab2_edge.progress import progress
from deeplab2_edge.runtime.predictors import CanvasEngine
from deeplab2_edge.runtime.preprocess import place_on_canvas
from deeplab2_edge.runtime.segmenter import PanopticSegmenter
from deeplab2_edge.samples import video_of


@dataclass(frozen=True, eq=False)
class Source:
    """Is the float model that is converted.

    Attributes:
        engine: With the weights of the checkpoint, in the forms it was trained in.
        unused: Variables of the checkpoint that it does not have.
    """

    engine: KerasEngine
    unused: tuple[str, ...]


def load_source(
    options: ConversionOptions,
    config: ExperimentOptions,
    prefix: str,
    canvas: tuple[int, int],
) -> Source:
    """Builds the float model.

    Args:
        options: Says what the user calls the checkpoint.
        config: Its experiment.
        prefix: What it was resolved to.
        canvas: (height, width) of the input.

    Raises:
        CheckpointError: If it is damaged or of another model.
    """
    with quiet_native_notes():
        model = build_model(config, input_size=canvas, batch_size=1)
        loaded = checkpoints.load_weights(model, options.checkpoint)
    _check_weights(model, prefix)
    provenance = describe_provenance(config, options.checkpoint, prefix)
    engine = KerasEngine(model, config, provenance=provenance)
    return Source(engine, loaded.unexpected)


def calibration_inputs(
    engine: KerasEngine, images: ImageSet | None, *, quiet: bool
) -> Iterator[tuple[str, Inputs]]:
    """Gives what a network sees of images, as devices give it to them.

    Frames of videos go through the float network one after the other, since what it
    says of one is an input with the next.

    Args:
        engine: The float model.
        images: The images; None gives nothing.
        quiet: Report no progress.
    """
    samples = images.samples if images else ()
    steps = progress(samples, total=len(samples), label="calibrating", quiet=quiet)
    if not engine.metadata.keeps_ids:
        canvas = CanvasEngine(engine)
        for sample in steps:
            pixels, _ = canvas.place(sample.load_image())
            yield sample.name, {keys.IMAGE: pixels}
        return
    for _, video in itertools.groupby(steps, key=video_of):
        frames = list(video)
        recorder = Recorder(engine)
        clip = PanopticSegmenter(recorder).segment_video(s.load_image() for s in frames)
        names = (sample.name for sample in frames)
        for _ in clip:
            for inputs in recorder.take_inputs():
                yield next(names), inputs


def inputs_of(metadata: ModelMetadata, sample: SampleLike) -> dict[str, NDArray[Any]]:
    """Gives what the network takes for an image without a past."""
    inputs: dict[str, NDArray[Any]] = {
        name: np.zeros(spec.shape, np.uint8 if is_picture(name) else np.float32)
        for name, spec in metadata.inputs.items()
    }
    inputs[keys.IMAGE], _ = place_on_canvas(
        sample.load_image(), metadata.canvas, metadata.resize
    )
    return inputs


def _check_weights(model: Any, prefix: str) -> None:
    for path, variable in checkpoints.variable_paths(model).items():
        if not np.isfinite(variable.numpy()).all():
            raise CheckpointError(
                f"{prefix}: {path} holds values that are not finite: the training "
                "diverged or the file is damaged; take an earlier checkpoint"
            )
