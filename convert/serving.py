"""From a checkpoint to a SavedModel for servers, compared with evaluation."""

import itertools
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import checkpoints, families, keys
from deeplab2_edge.config import load_config
from deeplab2_edge.config.validate import validate_config
from deeplab2_edge.convert.images import open_data
from deeplab2_edge.convert.job import choose_canvas, default_output, say
from deeplab2_edge.convert.modes import NONE
from deeplab2_edge.convert.options import (
    SAVED_MODEL,
    ConversionOptions,
    check_ending,
)
from deeplab2_edge.convert.pipeline import REPORT_SUFFIX
from deeplab2_edge.convert.quiet import quiet_native_notes
from deeplab2_edge.convert.saved_model import (
    ANY_SIZE,
    INITIAL_STATE,
    SERVING,
    SavedModelInfo,
    check_target,
    export_saved_model,
)
from deeplab2_edge.convert.source import load_source
from deeplab2_edge.errors import ConversionError, UsageError
from deeplab2_edge.experiments import find_config
from deeplab2_edge.files import atomic_write
from deeplab2_edge.models.engine import KerasEngine, dataset_of
from deeplab2_edge.optional import require
from deeplab2_edge.progress import progress
from deeplab2_edge.runtime.predictors import (
    CanvasEngine,
    MotionPredictor,
    TwoFramePredictor,
    image_predictor,
)

tf = require("tensorflow", extra="convert")

Image = NDArray[np.uint8]
Maps = Mapping[str, NDArray[np.int32]]

# Exponentials are rounded in one way by NumPy and in another by TensorFlow: so many
# pixels may fall on the other side of a threshold of MaX-DeepLab. All else is equal.
_MASK_DIFFERENCE = 1e-4


@dataclass(frozen=True)
class ExportResult:
    """Says what was written.

    Attributes:
        info: The folder, its signatures and size.
        report_path: The JSON beside it.
        compared_images: How many images went through the SavedModel and evaluation.
        different_pixels: On how many of their pixels the two differ.
        seconds: Wall time.
    """

    info: SavedModelInfo
    report_path: Path
    compared_images: int
    different_pixels: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Gives plain JSON values."""
        return {
            "saved_model": str(self.info.path),
            "size_bytes": self.info.size_bytes,
            "signatures": self.info.signatures,
            "verification": {
                "images": self.compared_images,
                "different_pixels": self.different_pixels,
            },
            "seconds": round(self.seconds, 1),
        }


@dataclass
class _Comparison:
    """Is what a comparison with evaluation found, see `compare`."""

    different: int = 0
    compared: int = 0
    images: int = 0


def export_checkpoint(
    options: ConversionOptions, *, quiet: bool = False
) -> ExportResult:
    """Exports a checkpoint as a SavedModel and compares it with evaluation.

    Args:
        options: `checkpoint`, `config`, `canvas`, `output` and those of verification
            count.
        quiet: Whether to show no progress.

    Raises:
        UsageError: If an option makes no sense for a SavedModel.
        ConfigError: If the configuration is missing or wrong.
        CheckpointError: If the checkpoint is missing, damaged or of another model.
        ConversionError: If the SavedModel says something else than evaluation.
        OutputError: If the folder exists or cannot be written.
    """
    start = time.monotonic()
    if options.quantization != NONE:
        raise UsageError(
            f"--quantize {options.quantization} is for devices; a SavedModel is "
            "float32: leave it out, or give --format tflite"
        )
    prefix = checkpoints.resolve_checkpoint(options.checkpoint)
    config = load_config(find_config(options.checkpoint, options.config))
    info = dataset_of(config)
    validate_config(config, info, needs=("model_options",))
    canvas = choose_canvas(config, options.canvas)
    output = Path(
        options.output or default_output(options, config, prefix, canvas, "saved_model")
    )
    check_ending(output, SAVED_MODEL)
    check_target(output)
    _, images = open_data(
        info,
        canvas,
        calibration_data=None,
        calibration_images=options.calibration_images,
        verification_data=options.verification_data,
        verification_images=options.verification_images,
        in_order=families.abilities_of(config).keeps_ids,
    )
    engine = load_source(options, config, prefix, canvas).engine
    say("exporting", quiet)
    frames = (sample.load_image() for sample in images.samples)
    steps = progress(frames, total=len(images.samples), label="comparing", quiet=quiet)
    limit = _MASK_DIFFERENCE if engine.metadata.family == families.MASKS else 0.0
    found = _Comparison()

    def check(folder: Path) -> None:
        found.different, found.compared, found.images = compare(engine, folder, steps)
        if found.different > limit * found.compared:
            raise ConversionError(
                f"{output}: not written: {found.different} of {found.compared} pixels "
                "differ from evaluation; please report this"
            )

    written = export_saved_model(engine, output, check=check)
    result = ExportResult(
        info=written,
        report_path=output.with_name(output.name + REPORT_SUFFIX),
        compared_images=found.images,
        different_pixels=found.different,
        seconds=time.monotonic() - start,
    )
    with atomic_write(result.report_path) as temporary:
        temporary.write_text(json.dumps(result.to_json(), indent=1) + "\n")
    return result


def compare(
    engine: KerasEngine, folder: Path, images: Iterator[Image]
) -> tuple[int, int, int]:
    """Compares a SavedModel with evaluation.

    Args:
        engine: What was exported.
        folder: The SavedModel.
        images: Of any size; for models of videos frames of one video.

    Returns:
        How many values of all maps differ, how many there are, and how many images.
    """
    with quiet_native_notes():
        model = tf.saved_model.load(str(folder))
    family = engine.metadata.family
    walk = {families.MOTION: _motion, families.TWO_FRAMES: _pairs}.get(family, _images)
    different = compared = count = 0
    for expected, found in walk(engine, model.signatures, images):
        count += 1
        for name, wanted in expected.items():
            value = found[name].numpy()
            different += int(np.count_nonzero(value.reshape(wanted.shape) != wanted))
            compared += wanted.size
    return different, compared, count


def _images(
    engine: KerasEngine, signatures: Mapping[str, Any], images: Iterator[Image]
) -> Iterator[tuple[Maps, Mapping[str, Any]]]:
    family = engine.metadata.family
    predict = image_predictor(CanvasEngine(engine))
    for image in images:
        predicted = predict(image)
        expected = {keys.SEMANTIC_PRED: predicted.semantic}
        if family != families.SEMANTIC:
            expected[keys.PANOPTIC_PRED] = predicted.panoptic
        yield expected, signatures[ANY_SIZE](image=tf.constant(image))


def _motion(
    engine: KerasEngine, signatures: Mapping[str, Any], images: Iterator[Image]
) -> Iterator[tuple[Maps, Mapping[str, Any]]]:
    canvas = CanvasEngine(engine)
    predict = MotionPredictor(canvas)
    state = signatures[INITIAL_STATE]()
    previous = None
    for image in images:
        placed, _ = canvas.place(image)
        pixels = tf.constant(placed[np.newaxis])
        previous = pixels if previous is None else previous
        found = signatures[SERVING](image=pixels, previous_image=previous, **state)
        state, previous = {name: found[name] for name in state}, pixels
        yield {keys.PANOPTIC_PRED: predict(placed).panoptic}, found


def _pairs(
    engine: KerasEngine, signatures: Mapping[str, Any], images: Iterator[Image]
) -> Iterator[tuple[Maps, Mapping[str, Any]]]:
    canvas = CanvasEngine(engine)
    for image, following in itertools.pairwise(images):
        pixels = [canvas.place(x)[0] for x in (image, following)]
        # Each pair alone: ids over a longer video are matched by the caller.
        pair = TwoFramePredictor(canvas)(*pixels).pair
        assert pair is not None
        first, second = (tf.constant(x[np.newaxis]) for x in pixels)
        found = signatures[SERVING](image=first, next_image=second)
        names = (keys.PANOPTIC_PRED, keys.NEXT_PANOPTIC_PRED)
        yield dict(zip(names, pair, strict=True)), found
