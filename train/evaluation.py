"""Evaluation of checkpoints with the pipeline that devices run."""

from collections.abc import Sequence
from pathlib import Path

from deeplab2_edge.config import ExperimentOptions, require_resolved
from deeplab2_edge.errors import ConfigError
from deeplab2_edge.metrics import (
    EvaluationReport,
    OfficialWriter,
    evaluate_predictions,
)
from deeplab2_edge.models.engine import dataset_of, load_engine
from deeplab2_edge.runtime import PanopticSegmenter
from deeplab2_edge.samples import SampleSet, open_samples


def evaluate_checkpoint(
    config: ExperimentOptions,
    checkpoint: str | Path,
    data: SampleSet,
    *,
    canvas: Sequence[int] | None = None,
    with_ap: bool = False,
    quiet: bool = False,
    writer: OfficialWriter | None = None,
) -> EvaluationReport:
    """Measures a checkpoint on labeled images, at their original size.

    Args:
        config: The experiment.
        checkpoint: See `models.engine.load_engine`.
        data: Images with labels.
        canvas: See `models.engine.load_engine`.
        with_ap: See `evaluate_predictions`.
        quiet: Report no progress.
        writer: Gets every prediction.
    """
    _refuse_test_time_augmentation(config)
    segmenter = PanopticSegmenter(load_engine(config, checkpoint, canvas=canvas))
    return evaluate_predictions(
        segmenter,
        data.samples,
        dataset_of(config),
        label=str(checkpoint),
        with_ap=with_ap,
        quiet=quiet,
        writer=writer,
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


def _refuse_test_time_augmentation(config: ExperimentOptions) -> None:
    options = config.evaluator_options
    if options.add_flipped_images or tuple(options.eval_scales) not in ((), (1.0,)):
        raise ConfigError(
            "evaluator_options.add_flipped_images and eval_scales ask for test-time "
            "augmentation, which this version does not do: remove them"
        )
