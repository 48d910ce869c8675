"""Training and evaluation together, or in processes of their own."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deeplab2_edge.checkpoint_files import find_checkpoint
from deeplab2_edge.config import ExperimentOptions
from deeplab2_edge.errors import CheckpointError, ConfigError, DataError
from deeplab2_edge.metrics import MetricReport
from deeplab2_edge.optional import require
from deeplab2_edge.runtime.evaluation import Report
from deeplab2_edge.train.best import Best, keep_if_best
from deeplab2_edge.train.checkpoint_folder import (
    newest_checkpoint,
    readable_write_errors,
)
from deeplab2_edge.train.evaluation import evaluate_experiment, require_evaluable
from deeplab2_edge.train.run_checks import check_evaluation
from deeplab2_edge.train.run_options import RunOptions
from deeplab2_edge.train.run_state import TransformModel
from deeplab2_edge.train.trainer import TrainingSummary, train
from deeplab2_edge.train.validation_loss import ValidationLoss

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
        losses: Mean of every loss on the evaluation data; empty if not asked for.
    """

    step: int
    checkpoint: str
    report: Report
    is_best: bool
    losses: Mapping[str, float] = field(default_factory=dict)


def train_and_evaluate(
    config: ExperimentOptions,
    model_dir: str | Path,
    options: RunOptions = _DEFAULTS,
    *,
    quiet: bool = False,
    with_losses: bool = True,
    transform_model: TransformModel | None = None,
) -> tuple[TrainingSummary, list[Evaluated]]:
    """Trains, evaluates every `eval_interval` steps, and keeps the best checkpoint.

    Args:
        config: See `trainer.train`, as for `model_dir`, `options` and errors.
        model_dir: See there.
        options: See there.
        quiet: Report no progress.
        with_losses: See `Evaluator`.
        transform_model: See `trainer.train`. What is evaluated is the network of the
            experiment with the weights that were learnt.

    Returns:
        The summary and the evaluations, the last of the last checkpoint. It is there
        also when nothing was left to train.
    """
    output_dir = Path(model_dir) / config.experiment_name
    evaluator = Evaluator(config, output_dir, with_losses=with_losses, quiet=quiet)
    evaluated: list[Evaluated] = []

    def evaluate(step: int, checkpoint: str) -> None:
        evaluated.append(evaluator.evaluate(checkpoint, step))

    summary = train(
        config,
        model_dir,
        options,
        quiet=quiet,
        evaluate=evaluate,
        transform_model=transform_model,
    )
    if not evaluated:
        evaluate(summary.last_step, summary.checkpoint)
    return summary, evaluated


def evaluate_continuously(
    config: ExperimentOptions,
    model_dir: str | Path,
    *,
    timeout: float | None = None,
    quiet: bool = False,
    with_losses: bool = True,
) -> Iterator[Evaluated]:
    """Evaluates the checkpoints of a run as they come, and keeps the best.

    Args:
        config: The experiment.
        model_dir: As in `trainer.train`.
        timeout: Seconds without a new checkpoint after which this ends; by default
            `evaluator_options.continuous_eval_timeout`, where -1 waits for ever.
        quiet: Report no progress.
        with_losses: See `Evaluator`.

    Yields:
        One evaluation for each checkpoint that is there when the last one is done.

    Raises:
        CheckpointError: If there was none at all.
    """
    output_dir = Path(model_dir) / config.experiment_name
    evaluator = Evaluator(config, output_dir, with_losses=with_losses, quiet=quiet)
    if timeout is None:
        timeout = config.evaluator_options.continuous_eval_timeout
    limit = None if timeout < 0 else timeout
    number = 0
    for checkpoint in tf.train.checkpoints_iterator(str(output_dir), timeout=limit):
        number += 1
        step = step_of(checkpoint)
        yield evaluator.evaluate(checkpoint, step)
        if step >= config.trainer_options.solver_options.training_number_of_steps:
            return
    if not number:
        raise CheckpointError(
            f"{output_dir}: no checkpoint came within {timeout:g} seconds"
        )


def evaluate_latest(
    config: ExperimentOptions,
    model_dir: str | Path,
    *,
    quiet: bool = False,
    with_losses: bool = True,
) -> Evaluated:
    """Evaluates the newest checkpoint of a run.

    Arguments are those of `train_and_evaluate`.

    Raises:
        CheckpointError: If there is none.
    """
    output_dir = Path(model_dir) / config.experiment_name
    evaluator = Evaluator(config, output_dir, with_losses=with_losses, quiet=quiet)
    prefix = newest_checkpoint(output_dir) or find_checkpoint(output_dir).prefix
    return evaluator.evaluate(prefix, step_of(prefix))


class Evaluator:
    """Evaluates checkpoints of a run, writes the figures, and keeps the best.

    Args:
        config: The experiment.
        output_dir: Of the run.
        with_losses: Also compute the losses on the evaluation data: one more forward
            pass for every image.
        quiet: Report no progress.

    Raises:
        ConfigError: If the experiment cannot be evaluated.
    """

    def __init__(
        self,
        config: ExperimentOptions,
        output_dir: Path,
        *,
        with_losses: bool = True,
        quiet: bool = False,
    ) -> None:
        require_evaluable(config)
        check_evaluation(config)
        self._config = config
        self._output_dir = output_dir
        self._with_losses = with_losses
        self._quiet = quiet
        self._loss: ValidationLoss | None = None

    def evaluate(self, checkpoint: str, step: int) -> Evaluated:
        """Evaluates a checkpoint; panoptic quality, else mean IoU, says how good it is.

        Args:
            checkpoint: Prefix.
            step: Its global step.
        """
        report = evaluate_experiment(self._config, checkpoint, quiet=self._quiet)
        losses = self._measure_losses(checkpoint, step)
        figures = _figures(report)
        scalars = figures | {f"losses/eval_{n}": v for n, v in losses.items()}
        folder = self._output_dir / "eval"
        with readable_write_errors(folder, "summaries"):
            writer = tf.summary.create_file_writer(str(folder))
            with writer.as_default(step=step):
                for name, value in scalars.items():
                    tf.summary.scalar(name, value)
            writer.close()
        metric = "pq/PQ" if "evaluation/pq/PQ" in figures else "iou/IoU"
        value = figures[f"evaluation/{metric}"]
        best = Best(step, metric.rpartition("/")[2], value)
        is_best = keep_if_best(checkpoint, self._output_dir, best)
        return Evaluated(step, checkpoint, report, is_best, losses)

    def _measure_losses(self, checkpoint: str, step: int) -> dict[str, float]:
        """Measures and draws; what has no losses is told once, and evaluated still."""
        if not self._with_losses:
            return {}
        if self._loss is None:
            try:
                self._loss = ValidationLoss(self._config)
            except (ConfigError, DataError) as error:
                print(f"warning: no validation losses: {error}", file=sys.stderr)
                self._with_losses = False
                return {}
        losses = self._loss.measure(checkpoint, quiet=self._quiet)
        self._loss.draw(self._output_dir / "eval", step)
        return losses


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
