"""What a conversion is asked for."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deeplab2_edge import assets
from deeplab2_edge.convert import modes
from deeplab2_edge.convert.forms import (
    AXIAL_FORMS,
    CPU,
    EDGE_TPU,
    TARGETS,
    Forms,
    forms_for,
)
from deeplab2_edge.convert.forms import ONNX as ONNX_TARGET
from deeplab2_edge.errors import UsageError
from deeplab2_edge.families import MASKS, MOTION, PANOPTIC, SEMANTIC, TWO_FRAMES
from deeplab2_edge.model_file import CUSTOM_OP, HOST, MERGE_PLACES, ONNX, TFLITE

FORMATS = (TFLITE, ONNX)
SAVED_MODEL = "saved-model"
# Endings of files, which a folder had better not have.
_NO_FOLDERS = (".pb", ".h5", ".keras", ".zip")

# What can be lost by a conversion, by family.
LIMITED_METRICS = {
    SEMANTIC: ("miou",),
    PANOPTIC: ("pq", "miou"),
    MASKS: ("pq", "miou"),
    MOTION: ("pq", "miou", "stq"),
    TWO_FRAMES: ("pq", "miou", "stq", "depth"),
}


@dataclass(frozen=True)
class DropLimit:
    """Says how much a metric may get worse.

    Attributes:
        metric: One of `verification.METRICS`.
        points: Percentage points.
    """

    metric: str
    points: float


@dataclass(frozen=True)
class ConversionOptions:
    """Says what to convert and how.

    Attributes:
        checkpoint: What `checkpoints.resolve_checkpoint` takes; `demo` is shipped.
        config: The experiment's file; by default `config.textproto` beside the
            checkpoint.
        format: `tflite` or `onnx`; by default what `target` and `output` say.
        target: One of `forms.TARGETS`: what the graph is written for.
        quantization: One of `modes.MODE_NAMES`.
        axial: One of `forms.AXIAL_FORMS`: how attention is written; by default as is
            good on the target.
        merge: One of `model_file.MERGE_PLACES`: where heads become maps.
        canvas: (height, width) of the input; by default the evaluation crop.
        output: The model file; by default a name made of model, canvas and
            quantization, in the working folder.
        calibration_data: What `open_samples` takes; needed for static quantization
            unless the checkpoint is `demo`.
        calibration_images: Most images to calibrate with.
        calibration_quantile: Share of the calibration images whose range is covered;
            None chooses it by the verification images.
        quantizer: One of `modes.QUANTIZERS`, for TFLite files of int8.
        sensitivity: Whether to measure which layers cost most.
        qat: Whether to train on with quantizers in the network: at once, or, with
            `drop_limits`, if all else fails.
        qat_steps: Of that training.
        qat_data: Record files for it, a pattern or a folder; by default those of the
            experiment.
        verification_data: What `open_samples` takes; by default the calibration data
            (other images of it, if there are enough), else scenes of the synthetic
            world.
        verification_images: Most images to verify with.
        drop_limits: Try ways to quantize until none is worse; refuse to write a file
            that is.
        weights_license: Of the weights, written into the file; that of the shipped
            checkpoint is known.
        card: Write a model card beside the file.
    """

    checkpoint: str = assets.DEMO_CHECKPOINT
    config: str | None = None
    format: str | None = None
    target: str = CPU
    quantization: str = modes.NONE
    axial: str | None = None
    merge: str = HOST
    canvas: tuple[int, int] | None = None
    output: str | os.PathLike[str] | None = None
    calibration_data: str | None = None
    calibration_images: int = 100
    calibration_quantile: float | None = None
    quantizer: str = modes.DEFAULT_QUANTIZER
    sensitivity: bool = False
    qat: bool = False
    qat_steps: int = modes.QAT_STEPS
    qat_data: str | None = None
    verification_data: str | None = None
    verification_images: int = 8
    drop_limits: Sequence[DropLimit] = ()
    weights_license: str | None = None
    card: bool = True

    @property
    def file_format(self) -> str:
        """The format of the product."""
        if self.format is not None:
            return self.format
        is_onnx = self.target == ONNX_TARGET or str(self.output).endswith(".onnx")
        return ONNX if is_onnx else TFLITE

    @property
    def forms(self) -> Forms:
        """In which ops the network is written.

        Raises:
            UsageError: If there is no such target or form.
        """
        forms = forms_for(self.target, self.quantization)
        return forms if self.axial is None else forms.replace(axial=self.axial)

    @property
    def license_of_weights(self) -> str | None:
        """What is known about the license of the weights."""
        is_shipped = self.checkpoint == assets.DEMO_CHECKPOINT
        return self.weights_license or (assets.DEMO_LICENSE if is_shipped else None)


def check_options(options: ConversionOptions) -> None:
    """Finds what is wrong with options by themselves.

    Raises:
        UsageError: If one makes no sense, or two contradict each other; the message
            gives the nearest that is possible.
    """
    if options.target not in TARGETS:
        raise UsageError(
            f"--target is {options.target!r}; must be {', '.join(TARGETS)}"
        )
    if options.axial == CUSTOM_OP:
        raise UsageError(
            "--axial custom-op: there is no such op; attention needs none, since the "
            "builtin form runs whole on every runtime: give --axial builtin"
        )
    if options.axial is not None and options.axial not in AXIAL_FORMS:
        raise UsageError(
            f"--axial is {options.axial!r}; must be {', '.join(AXIAL_FORMS)}"
        )
    file_format = options.file_format
    if file_format not in FORMATS:
        raise UsageError(f"--format is {file_format!r}; must be {', '.join(FORMATS)}")
    if file_format != ONNX and options.target == ONNX_TARGET:
        raise UsageError("--target onnx makes ONNX files; leave out --format tflite")
    if file_format == ONNX and options.target not in (CPU, ONNX_TARGET):
        raise UsageError(
            f"--target {options.target} takes TFLite files; leave out --format onnx, "
            "or give --target onnx"
        )
    modes.check_mode(options.quantization, file_format, options.target)
    _check_quantization(options)
    _check_training(options)
    if options.merge not in MERGE_PLACES:
        raise UsageError(
            f"--merge is {options.merge!r}; must be {', '.join(MERGE_PLACES)}"
        )
    if options.merge == CUSTOM_OP and file_format == ONNX:
        raise UsageError(
            "--merge custom-op makes TFLite files: ONNX Runtime does not have the op; "
            "use --merge graph"
        )
    if options.merge != HOST and options.target == EDGE_TPU:
        raise UsageError(
            f"--merge {options.merge}: an Edge TPU runs none of these ops, and the "
            "host is faster than its processor at them; use --merge host"
        )
    if options.output is not None and not Path(options.output).is_dir():
        check_ending(options.output, file_format)
    for name, count in (
        ("--calibration-images", options.calibration_images),
        ("--verify-images", options.verification_images),
    ):
        if count < 1:
            raise UsageError(f"{name} is {count}; must be at least 1")
    for limit in options.drop_limits:
        known = LIMITED_METRICS[TWO_FRAMES]
        if limit.metric not in known or not limit.points >= 0:
            raise UsageError(
                f"--max-drop is {limit.points}{limit.metric}; must be points of "
                f"{', '.join(known)}, for example 1.0pq"
            )


def check_ending(output: str | os.PathLike[str], file_format: str) -> None:
    """Refuses a name that says something else than what is written.

    Args:
        output: Of the product.
        file_format: One of `FORMATS`, or `SAVED_MODEL`.

    Raises:
        UsageError: If the ending is not that of the format, which all commands go by.
    """
    ending = Path(output).suffix
    endings = {name: f".{name}" for name in FORMATS}
    if file_format == SAVED_MODEL:
        fits = ending not in (*endings.values(), *_NO_FOLDERS)
    else:
        fits = ending == endings[file_format]
    if not fits:
        raise UsageError(
            f"--output is {output}, but --format is {file_format}; tflite files end in "
            ".tflite, onnx files in .onnx, and saved-model is a folder without ending"
        )


def _check_quantization(options: ConversionOptions) -> None:
    if options.quantizer not in modes.QUANTIZERS:
        raise UsageError(
            f"--quantizer is {options.quantizer!r}; must be "
            f"{' or '.join(modes.QUANTIZERS)}"
        )
    is_searched = modes.is_searched(options.quantization, options.file_format)
    for name, is_asked in (
        (
            f"--quantizer {options.quantizer}",
            options.quantizer != modes.DEFAULT_QUANTIZER,
        ),
        ("--sensitivity", options.sensitivity),
    ):
        if is_asked and not is_searched:
            raise UsageError(
                f"{name} is for TFLite files of --quantize int8 or int8-mixed, not of "
                f"{options.quantization} in {options.file_format}"
            )
    quantile = options.calibration_quantile
    if quantile is not None and not 0.5 <= quantile <= 1:
        raise UsageError(
            f"--calibration-quantile is {quantile:g}; must be 0.5 to 1, or auto"
        )


def _check_training(options: ConversionOptions) -> None:
    if not options.qat:
        if options.qat_data is not None or options.qat_steps != modes.QAT_STEPS:
            raise UsageError("--qat-steps and --qat-data say how --qat trains; add it")
        return
    if options.quantization != modes.INT8 or options.file_format != TFLITE:
        raise UsageError(
            "--qat makes TFLite files of --quantize int8; found --quantize "
            f"{options.quantization} and --format {options.file_format}"
        )
    if options.target != CPU:
        raise UsageError(
            f"--qat writes graphs for --target cpu, not {options.target}; use that, or "
            "leave out --qat"
        )
    if options.sensitivity and not options.drop_limits:
        raise UsageError(
            "--sensitivity measures quantization after training; leave out --qat, or "
            "give --max-drop, which trains only if it must"
        )


def check_merge(options: ConversionOptions, family: str) -> None:
    """Refuses families whose heads do not become maps frame by frame.

    Raises:
        UsageError: If the model is of such a family.
    """
    if options.merge != HOST and family == TWO_FRAMES:
        raise UsageError(
            f"--merge {options.merge}: this model makes its result of the heads of two "
            "frames, which stays on the host; use --merge host"
        )
    if options.merge == CUSTOM_OP and family not in (PANOPTIC, MOTION):
        raise UsageError(
            "--merge custom-op: the op merges classes and centers, which this model "
            "does not have; use --merge graph"
        )


def check_limits(options: ConversionOptions, family: str) -> None:
    """Refuses limits of metrics that a family does not have.

    Raises:
        UsageError: If there is one.
    """
    known = LIMITED_METRICS[family]
    for limit in options.drop_limits:
        if limit.metric not in known:
            raise UsageError(
                f"--max-drop {limit.points:g}{limit.metric}: this model has no such "
                f"metric; it is measured with {', '.join(known)}"
            )
