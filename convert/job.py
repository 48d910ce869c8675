"""What a conversion is about: checked options, found images, a place to write."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deeplab2_edge import assets, checkpoints
from deeplab2_edge.config import ExperimentOptions, load_config
from deeplab2_edge.config.sizes import expected_size, fits_stride
from deeplab2_edge.config.validate import validate_config
from deeplab2_edge.convert.coverage import check_network
from deeplab2_edge.convert.images import ImageSet, open_data
from deeplab2_edge.convert.modes import find_mode
from deeplab2_edge.convert.options import (
    ConversionOptions,
    check_limits,
    check_merge,
    check_options,
)
from deeplab2_edge.errors import ConfigError, UsageError
from deeplab2_edge.experiments import find_config
from deeplab2_edge.families import abilities_of, family_of
from deeplab2_edge.files import ensure_output_file
from deeplab2_edge.model_file import MAX_CANVAS_PIXELS
from deeplab2_edge.models.engine import dataset_of
from deeplab2_edge.samples import SYNTHETIC

if TYPE_CHECKING:
    from deeplab2_edge.convert.qat import Trainer


RUN_SUFFIX = ".qat"


@dataclass(frozen=True, eq=False)
class Job:
    """Is a conversion whose options have been checked and whose images are found.

    Attributes:
        options: As given.
        prefix: Of the checkpoint.
        config: Its experiment.
        canvas: (height, width) of the input.
        output: The model file, in a folder that is there.
        calibration: For `int8`.
        verification: Images to compare with.
        train: See `convert_checkpoint`.
        quiet: Whether to show no progress.
    """

    options: ConversionOptions
    prefix: str
    config: ExperimentOptions
    canvas: tuple[int, int]
    output: Path
    calibration: ImageSet | None
    verification: ImageSet
    train: "Trainer | None"
    quiet: bool

    @property
    def run_dir(self) -> Path:
        """Where training with quantizers keeps what it needs to go on."""
        return self.output.with_name(self.output.name + RUN_SUFFIX)


def prepare(options: ConversionOptions, train: "Trainer | None", quiet: bool) -> Job:
    """Finds all that can be wrong before anything takes long."""
    check_options(options)
    prefix = checkpoints.resolve_checkpoint(options.checkpoint)
    config = load_config(find_config(options.checkpoint, options.config))
    check_limits(options, family_of(config))
    check_network(config.model_options.backbone, options.target)
    check_merge(options, family_of(config))
    if options.qat:
        _check_training(options, config, train)
    calibration_data = _calibration_data(options)
    info = dataset_of(config)
    validate_config(config, info, needs=("model_options",))
    canvas = choose_canvas(config, options.canvas)
    output = ensure_output_file(
        options.output
        or default_output(
            options,
            config,
            prefix,
            canvas,
            f"{options.quantization}.{options.file_format}",
        )
    )
    calibration, verification = open_data(
        info,
        canvas,
        calibration_data=calibration_data,
        calibration_images=options.calibration_images,
        verification_data=options.verification_data or options.calibration_data,
        verification_images=options.verification_images,
        in_order=abilities_of(config).keeps_ids,
    )
    return Job(
        options, prefix, config, canvas, output, calibration, verification, train, quiet
    )


def choose_canvas(
    config: ExperimentOptions, asked: tuple[int, int] | None
) -> tuple[int, int]:
    """Returns the size of the input: what was asked for, or the evaluation crop.

    Raises:
        UsageError: If a side is not `k * output_stride + 1`, or the canvas is too
            large; the message gives the nearest size that fits.
        ConfigError: If nothing was asked for and the configuration has no crop.
    """
    stride = config.model_options.backbone.output_stride
    place = "--input-size"
    if asked is None:
        crop = config.eval_dataset_options.crop_size
        place = "eval_dataset_options.crop_size"
        if len(crop) != 2:
            raise ConfigError(
                f"{place} is {list(crop)}; expected height and width of the input, "
                "or give --input-size"
            )
        asked = (crop[0], crop[1])
    if not fits_stride(asked, stride):
        raise UsageError(
            f"{place} is {asked[0]}x{asked[1]} (height x width); expected "
            f"{expected_size(asked, stride, as_option=True)}"
        )
    if asked[0] * asked[1] > MAX_CANVAS_PIXELS:
        raise UsageError(
            f"{place} is {asked[0]}x{asked[1]}; a canvas has at most "
            f"{MAX_CANVAS_PIXELS} pixels"
        )
    return asked


def default_output(
    options: ConversionOptions,
    config: ExperimentOptions,
    prefix: str,
    canvas: tuple[int, int],
    ending: str,
) -> str:
    """Names a product after its model and canvas, in the working folder."""
    name = config.experiment_name
    if options.checkpoint == assets.DEMO_CHECKPOINT:
        name = assets.DEMO_CHECKPOINT
    elif not re.fullmatch(r"[\w.-]+", name):  # missing, or a placeholder
        name = Path(prefix).name
    return f"{name}_{canvas[0]}x{canvas[1]}_{ending}"


def say(text: str, quiet: bool) -> None:
    """Tells people how far the work is."""
    if not quiet:
        print(text, file=sys.stderr, flush=True)


def _check_training(
    options: ConversionOptions, config: ExperimentOptions, train: "Trainer | None"
) -> None:
    from deeplab2_edge.convert.qat import check_fine_tuning

    if train is None:
        raise UsageError(
            "qat needs the trainer; give train=deeplab2_edge.train.trainer.train"
        )
    check_fine_tuning(config, steps=options.qat_steps, data=options.qat_data)


def _calibration_data(options: ConversionOptions) -> str | None:
    """Says where calibration images come from, None if none are needed."""
    if not find_mode(options.quantization).needs_calibration:
        return None
    if options.calibration_data is not None:
        return options.calibration_data
    if options.checkpoint == assets.DEMO_CHECKPOINT:
        return f"{SYNTHETIC}:train"
    raise UsageError(
        f"--quantize {options.quantization} needs --calibration-data: a folder with "
        "50 to 200 images like those the model will see, or record files; labels are "
        "not needed. "
        "Without such images use --quantize dynamic"
    )
