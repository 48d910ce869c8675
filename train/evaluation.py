"""Evaluation of checkpoints with the pipeline that devices run."""

from collections.abc import Sequence
from pathlib import Path

from deeplab2_edge.config import ExperimentOptions, require_resolved
from deeplab2_edge.errors import ConfigError
from deeplab2_edge.families import family_of
from deeplab2_edge.metrics import VPQ_WINDOWS, OfficialWriter
from deeplab2_edge.models.engine import dataset_of
from deeplab2_edge.runtime.evaluation import Report, evaluate_engine
from deeplab2_edge.samples import SampleSet, open_samples
from deeplab2_edge.train.views import load_evaluation_engine, require_averageable


def evaluate_checkpoint(
    config: ExperimentOptions,
    checkpoint: str | Path,
    data: SampleSet,
    *,
    metrics: Sequence[str] | None = None,
    windows: Sequence[int] = VPQ_WINDOWS,
    canvas: Sequence[int] | None = None,
    quiet: bool = False,
    writer: OfficialWriter | None = None,
) -> Report:
    """Measures a checkpoint on labeled images, at their original size.

    Args:
        config: The experiment; test-time augmentation is done as it says.
        checkpoint: See `models.engine.load_engine`.
        data: See `evaluate_engine`, as all that follows.
        metrics: Keys of `METRICS`.
        windows: Window sizes of VPQ and DVPQ.
        canvas: See `models.engine.load_engine`.
        quiet: Report no progress.
        writer: Gets every prediction.

    Raises:
        CheckpointError: If the checkpoint does not fit the experiment.
        ConfigError: As `require_evaluable`.
        DataError: As `evaluate_engine`.
        UsageError: As `evaluate_engine`.
    """
    require_evaluable(config)
    return evaluate_engine(
        load_evaluation_engine(config, checkpoint, canvas=canvas),
        data,
        label=str(checkpoint),
        metrics=metrics,
        windows=windows,
        quiet=quiet,
        writer=writer,
    )


def require_evaluable(config: ExperimentOptions) -> None:
    """Refuses models that cannot be evaluated.

    Raises:
        ConfigError: As `families.abilities_of` and `require_averageable`.
    """
    family_of(config)
    require_averageable(config)


def evaluate_experiment(
    config: ExperimentOptions, checkpoint: str | Path, *, quiet: bool = False
) -> Report:
    """Measures a checkpoint on the experiment's own evaluation records.

    `evaluator_options.eval_steps` is the number of images, the first ones; -1 for all.
    """
    patterns = require_resolved(config.eval_dataset_options, "file_pattern")
    if not patterns:
        raise ConfigError(
            "eval_dataset_options.file_pattern is not set; it names the records to "
            "evaluate"
        )
    info = dataset_of(config)
    samples = [s for p in patterns for s in open_samples(p, info).samples]
    limit = config.evaluator_options.eval_steps
    if limit != -1:
        if limit < 1:
            raise ConfigError(
                f"evaluator_options.eval_steps is {limit}; expected a number of images "
                "above 0, or -1 for all"
            )
        samples = samples[:limit]
    return evaluate_checkpoint(
        config, checkpoint, SampleSet(info, samples), quiet=quiet
    )
