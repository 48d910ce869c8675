"""Evaluation of checkpoints with the pipeline that devices run."""

from collections.abc import Sequence
from pathlib import Path

from deeplab2_edge.checkpoints import load_weights
from deeplab2_edge.config import ExperimentOptions, require_resolved
from deeplab2_edge.errors import ConfigError
from deeplab2_edge.metrics import EvaluationReport, evaluate_predictions
from deeplab2_edge.models import build_model
from deeplab2_edge.models.engine import KerasEngine, dataset_of, describe_model
from deeplab2_edge.runtime import PanopticSegmenter
from deeplab2_edge.samples import SampleSet, open_samples


def load_segmenter(
    config: ExperimentOptions,
    checkpoint: str | Path,
    *,
    canvas: Sequence[int] | None = None,
) -> PanopticSegmenter:
    """Builds the float model of a checkpoint behind the runtime's interface.

    Args:
        config: The experiment.
        checkpoint: See `checkpoints.resolve_checkpoint`.
        canvas: (height, width) in pixels; by default the evaluation crop.

    Raises:
        CheckpointError: If the checkpoint does not fit the experiment.
        ConfigError: If there is no canvas.
    """
    size = tuple(canvas or config.eval_dataset_options.crop_size)
    if len(size) != 2:
        raise ConfigError(
            "eval_dataset_options.crop_size is not set; it is the canvas of the "
            "evaluation: set it, or give a size"
        )
    model = build_model(config, input_size=size, batch_size=1)
    load_weights(model, checkpoint)
    return PanopticSegmenter(KerasEngine(model, describe_model(config, model)))


def evaluate_checkpoint(
    config: ExperimentOptions,
    checkpoint: str | Path,
    data: SampleSet,
    *,
    canvas: Sequence[int] | None = None,
    quiet: bool = False,
) -> EvaluationReport:
    """Measures a checkpoint on labeled images, at their original size.

    Args:
        config: The experiment.
        checkpoint: See `load_segmenter`.
        data: Images with labels.
        canvas: See `load_segmenter`.
        quiet: Report no progress.
    """
    segmenter = load_segmenter(config, checkpoint, canvas=canvas)
    return evaluate_predictions(
        segmenter, data.samples, dataset_of(config), label=str(checkpoint), quiet=quiet
    )


def evaluate_experiment(
    config: ExperimentOptions, checkpoint: str | Path, *, quiet: bool = False
) -> EvaluationReport:
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
