"""Quantization-aware training: calibrate, train on with quantizers, give the result.

The trainer is handed in, since nothing but commands imports the room it lives in.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from deeplab2_edge import assets
from deeplab2_edge.checkpoints import load_weights, resolve_checkpoint
from deeplab2_edge.config import ExperimentOptions, apply_overrides
from deeplab2_edge.config.placeholders import unresolved_placeholders
from deeplab2_edge.convert.qat.annotate import annotate, set_ranges
from deeplab2_edge.convert.qat.graph import Range, expand
from deeplab2_edge.convert.qat.ranges import Images, choose_quantile, measure
from deeplab2_edge.convert.quantization.calibration import Calibration
from deeplab2_edge.convert.quantization.quantile import QuantileChoice
from deeplab2_edge.errors import UsageError
from deeplab2_edge.files import atomic_write, ensure_output_dir
from deeplab2_edge.models import build_model

ARCHITECTURES = ("panoptic_deeplab", "deeplab_v3", "deeplab_v3_plus")
# Where nothing says which is best: 0.9 costs 1.5 dB more on CamVid.
_QUANTILE = 0.8
# Where a run remembers what its quantizers were set to.
RANGES_NAME = "ranges.json"

# Adam from here along half a cosine to 0 gained most in trials, and lost nothing.
_LEARNING_RATE = 1e-4
# At most so many steps are lost when a run is killed.
_SAVE_STEPS = 50
_SUMMARY_STEPS = 20
# Sums on several threads differ by less than this part of a range.
_SAME_RANGE = 0.01


class TrainingSummary(Protocol):
    """Is what a trainer says of a run."""

    @property
    def checkpoint(self) -> str:
        """Prefix of the last checkpoint."""


class Trainer(Protocol):
    """Is `deeplab2_edge.train.trainer.train`."""

    def __call__(
        self,
        config: ExperimentOptions,
        model_dir: Path,
        *,
        quiet: bool,
        transform_model: Callable[[Any], Any],
    ) -> TrainingSummary:
        """Trains, from where an earlier run stopped."""


@dataclass(frozen=True, eq=False)
class QatModel:
    """Is a network with quantizers, ready for conversion.

    Attributes:
        model: For one image; its ranges are set.
        config: The experiment it was trained by.
        checkpoint: Prefix of its weights.
        steps: Of quantization-aware training.
        ranges: Of activations, by name of the layer.
        calibration: What set them.
        quantile: How the share of the images that they cover was chosen, if it was.
    """

    model: Any
    config: ExperimentOptions
    checkpoint: str
    steps: int
    ranges: Mapping[str, Range]
    calibration: Calibration
    quantile: QuantileChoice | None = None


def fine_tune(
    config: ExperimentOptions,
    checkpoint: str,
    images: Images,
    *,
    canvas: tuple[int, int],
    steps: int,
    run_dir: Path,
    train: Trainer,
    data: str | None = None,
    quantile: float | None = None,
    validation: Images = (),
    quiet: bool = False,
) -> QatModel:
    """Trains a float checkpoint on with the rounding of an integer device.

    Ranges of activations come from images and stay; kernels, scales and offsets learn.
    A run that was killed goes on when this is called again with the same arguments.

        qat = fine_tune(config, "demo", images, canvas=(257, 513), steps=200,
                        run_dir=Path("model.tflite.qat"), train=trainer.train)
        converted = convert_quantized(qat)

    Args:
        config: The experiment; of its training the data, losses and batch are used.
        checkpoint: What `resolve_checkpoint` takes.
        images: To calibrate with: names, and `image` uint8 `[H, W, 3]` of the canvas.
        canvas: (height, width) of the network that is converted.
        steps: Of training; 0 gives the calibrated network as it is.
        run_dir: Keeps checkpoints and summaries of the training.
        train: `deeplab2_edge.train.trainer.train`.
        data: Record files to train on, a pattern or a folder; by default those of the
            experiment.
        quantile: Share of the images whose range is covered; None chooses it by
            `validation`.
        validation: Images like `images`, but others; with none the quantile is 0.8.
        quiet: Report no progress.

    Raises:
        UsageError: If the model or an option is not supported, or `run_dir` holds
            another run.
        DataError: If there are no images, or records cannot be used.
        ConfigError: If the experiment cannot be trained.
        CheckpointError: If the checkpoint does not fit.
        OutputError: If the run cannot be written.
    """
    check_fine_tuning(config, steps=steps, data=data)
    network = build_model(config, input_size=canvas, batch_size=1)
    load_weights(network, checkpoint)
    expanded = expand(network)
    measured = measure(expanded, images)
    model = annotate(expanded.model)
    choice = None
    if quantile is None:
        others = list(validation)
        choice = choose_quantile(measured, model, others) if others else None
        quantile = choice.quantile if choice else _QUANTILE
    ranges, calibration = measured.choose(quantile)
    if steps:
        ensure_output_dir(run_dir)
        _remember(ranges, run_dir)
        config = training_config(config, checkpoint, run_dir, steps=steps, data=data)

        def with_quantizers(float_network: Any) -> Any:
            trained = annotate(expand(float_network).model)
            set_ranges(trained, ranges)
            return trained

        checkpoint = train(
            config, run_dir.parent, quiet=quiet, transform_model=with_quantizers
        ).checkpoint
    prefix = resolve_checkpoint(checkpoint)
    load_weights(model, prefix)
    # The ranges of kernels in the checkpoint are those of the step before the last.
    set_ranges(model, ranges)
    return QatModel(model, config, prefix, steps, ranges, calibration, choice)


def check_fine_tuning(
    config: ExperimentOptions, *, steps: int, data: str | None
) -> None:
    """Finds what can be wrong before anything takes long.

    Raises:
        UsageError: See `fine_tune`.
    """
    if steps < 0:
        raise UsageError(f"--qat-steps is {steps}; must be at least 0")
    architecture = config.model_options.meta_architecture
    if architecture not in ARCHITECTURES:
        raise UsageError(
            f"--qat supports {', '.join(ARCHITECTURES)}; the meta-architecture of this "
            f"model is {architecture}; the nearest for it is --quantize int8-mixed "
            "without --qat"
        )
    pattern = "train_dataset_options.file_pattern"
    options = config.train_dataset_options
    if steps and data is None:
        if not options.file_pattern or pattern in unresolved_placeholders(config):
            found = ", ".join(options.file_pattern) or "missing"
            raise UsageError(
                f"--qat needs labeled records to train on, and {pattern} is {found}; "
                "give --qat-data with record files, for example "
                "--qat-data 'data/train-*.tfrecord'"
            )
    if steps and len(options.crop_size) != 2:
        raise UsageError(
            "--qat trains on crops, and train_dataset_options.crop_size is "
            f"{list(options.crop_size)}; expected height and width"
        )


def training_config(
    config: ExperimentOptions,
    checkpoint: str,
    run_dir: Path,
    *,
    steps: int,
    data: str | None = None,
) -> ExperimentOptions:
    """Derives the experiment of the fine-tuning from that of the float training.

    Losses, augmentation, crop and batch stay; the optimizer is Adam with a rate that
    falls from 1e-4 to 0 along half a cosine, without warm-up.

    Arguments are those of `fine_tune`.
    """
    initial = checkpoint
    if checkpoint != assets.DEMO_CHECKPOINT:
        initial = str(Path(resolve_checkpoint(checkpoint)).absolute())
    solver = "trainer_options.solver_options"
    changes: dict[str, Any] = {
        "experiment_name": run_dir.name,
        "model_options.initial_checkpoint": initial,
        "model_options.restore_semantic_last_layer_from_initial_checkpoint": True,
        "model_options.restore_instance_last_layer_from_initial_checkpoint": True,
        f"{solver}.optimizer": "adam",
        f"{solver}.learning_policy": "cosine",
        f"{solver}.base_learning_rate": _LEARNING_RATE,
        f"{solver}.backbone_learning_rate_multiplier": None,
        f"{solver}.warmup_steps": 0,
        f"{solver}.training_number_of_steps": steps,
        "trainer_options.save_checkpoints_steps": min(_SAVE_STEPS, steps),
        "trainer_options.save_summaries_steps": min(_SUMMARY_STEPS, steps),
        "trainer_options.steps_per_loop": 1,
        "trainer_options.num_checkpoints_to_keep": 2,
    }
    if data is not None:
        changes["train_dataset_options.file_pattern"] = [_record_pattern(data)]
    return apply_overrides(config, changes)


def _record_pattern(data: str) -> str:
    folder = Path(data)
    if not folder.is_dir():
        return data
    has_split = any(folder.glob("train-*.tfrecord"))
    return str(folder / ("train-*.tfrecord" if has_split else "*.tfrecord"))


def _remember(ranges: Mapping[str, Range], run_dir: Path) -> None:
    """Writes the ranges of a run, or compares them with those it began with.

    Raises:
        UsageError: If the run began with others.
    """
    path = run_dir / RANGES_NAME
    if not path.is_file():
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(ranges, indent=1) + "\n")
        return
    try:
        began = json.loads(path.read_text())
        differing = [name for name in ranges if not _is_same(ranges[name], began[name])]
    except (ValueError, KeyError, TypeError, OSError) as error:
        differing = [f"{error}"]
    if differing:
        raise UsageError(
            f"{run_dir}: holds a training with other ranges, first of {differing[0]}: "
            "the checkpoint, the calibration images or the input size were others; "
            "give those again to go on, or remove the folder to begin anew"
        )


def _is_same(one: Range, other: Range) -> bool:
    low, high = (float(value) for value in one)
    tolerance = _SAME_RANGE * (high - low)
    return bool(np.allclose((low, high), [float(v) for v in other], 0, tolerance))
