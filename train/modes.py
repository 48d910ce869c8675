"""Training and evaluation together, or in processes of their own."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deeplab2_edge.config import ExperimentOptions
from deeplab2_edge.errors import CheckpointError
from deeplab2_edge.metrics import MetricReport
from deeplab2_edge.optional import require
from deeplab2_edge.train.best import Best, keep_if_best
from deeplab2_edge.train.evaluation import (
    Report,
    evaluate_experiment,
    require_evaluable,
)
from deeplab2_edge.train.trainer import RunOptions, TrainingSummary, train

tf: Any = require("tensorflow", extra="train")

_DEFAULTS = RunOptions()


@dataclass(frozen=True)
class Evaluated:
    """Is one evaluation of a run.

    Attributes:
        step: Global step.
        checkpoint: Prefix.
        report: The figures.
        is_best: True if no checkpoint before was as good.
    """

    step: int
    checkpoint: str
    report: Report
    is_best: bool


def train_and_evaluate(
    config: ExperimentOptions,
    model_dir: str | Path,
    options: RunOptions = _DEFAULTS,
    *,
    quiet: bool = False,
) -> tuple[TrainingSummary, list[Evaluated]]:
    """Trains, evaluates every `eval_interval` steps, and keeps the best checkpoint.

    Arguments and errors are those of `trainer.train`.

    Returns:
        The summary and the evaluations, the last of the last checkpoint. It is there
        also when nothing was left to train.
    """
    require_evaluable(config)
    output_dir = Path(model_dir) / config.experiment_name
    evaluated: list[Evaluated] = []

    def evaluate(step: int, checkpoint: str) -> None:
        evaluated.append(
            evaluate_once(config, output_dir, checkpoint, step, quiet=quiet)
        )

    summary = train(config, model_dir, options, quiet=quiet, evaluate=evaluate)
    if not evaluated:
        evaluate(summary.last_step, summary.checkpoint)
    return summary, evaluated


def evaluate_continuously(
    config: ExperimentOptions,
    model_dir: str | Path,
    *,
    timeout: float | None = None,
    quiet: bool = False,
) -> Iterator[Evaluated]:
    """Evaluates the checkpoints of a run as they come, and keeps the best.

    Args:
        config: The experiment.
        model_dir: As in `trainer.train`.
        timeout: Seconds without a new checkpoint after which this ends; by default
            `evaluator_options.continuous_eval_timeout`, where -1 waits for ever.
        quiet: Report no progress.

    Yields:
        One evaluation for each checkpoint that is there when the last one is done.

    Raises:
        CheckpointError: If there was none at all.
    """
    require_evaluable(config)
    output_dir = Path(model_dir) / config.experiment_name
    if timeout is None:
        timeout = config.evaluator_options.continuous_eval_timeout
    limit = None if timeout < 0 else timeout
    number = 0
    for checkpoint in tf.train.checkpoints_iterator(str(output_dir), timeout=limit):
        number += 1
        step = step_of(checkpoint)
        yield evaluate_once(config, output_dir, checkpoint, step, quiet=quiet)
        if step >= config.trainer_options.solver_options.training_number_of_steps:
            return
    if not number:
        raise CheckpointError(
            f"{output_dir}: no checkpoint came within {timeout:g} seconds"
        )


def evaluate_once(
    config: ExperimentOptions,
    output_dir: Path,
    checkpoint: str,
    step: int,
    *,
    quiet: bool,
) -> Evaluated:
    """Evaluates a checkpoint of a run, writes the figures and keeps it if it is best.

    Panoptic quality decides, or mean IoU where there is none.
    """
    report = evaluate_experiment(config, checkpoint, quiet=quiet)
    figures = _figures(report)
    writer = tf.summary.create_file_writer(str(output_dir / "eval"))
    with writer.as_default(step=step):
        for name, value in figures.items():
            tf.summary.scalar(name, value)
    writer.close()
    metric = "pq/PQ" if "evaluation/pq/PQ" in figures else "iou/IoU"
    value = figures[f"evaluation/{metric}"]
    best = Best(step, metric.rpartition("/")[2], value)
    is_best = keep_if_best(checkpoint, output_dir, best)
    return Evaluated(step, checkpoint, report, is_best)


def _figures(report: Report) -> dict[str, float]:
    """Names the figures of a report as the published trainer does."""
    results = (
        report.results
        if isinstance(report, MetricReport)
        else {"pq": report.pq, "miou": report.miou}
    )
    named = {
        ("pq", "pq"): {"PQ": "pq", "SQ": "sq", "RQ": "rq"},
        ("miou", "iou"): {"IoU": "miou"},
        ("stq", "step"): {"STQ": "stq", "AQ": "aq", "IoU": "sq"},
        ("vpq_2frames", "vpq_2frames"): {"PQ": "vpq"},
        ("depth", "depth"): {
            "SILog": "silog",
            "SqErrorRel": "sq_rel",
            "AbsErrorRel": "abs_rel",
            "DepthInlier": "inlier",
        },
    }
    return {
        f"evaluation/{group}/{figure}": getattr(results[metric], field)
        for (metric, group), fields in named.items()
        if metric in results
        for figure, field in fields.items()
    }


def step_of(checkpoint: str) -> int:
    """Reads the global step of a checkpoint of the trainer."""
    key = "global_step/.ATTRIBUTES/VARIABLE_VALUE"
    try:
        return int(tf.train.load_checkpoint(checkpoint).get_tensor(key))
    except (ValueError, RuntimeError, tf.errors.OpError):
        raise CheckpointError(
            f"{checkpoint}: holds no global_step; it is not a checkpoint of a run"
        ) from None
