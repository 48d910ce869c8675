"""The training loop: resumable, observable, the same after a kill."""

import atexit
import glob
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deeplab2_edge import assets, keys
from deeplab2_edge.checkpoints import (
    LoadReport,
    inspect_checkpoint,
    track,
    variable_paths,
)
from deeplab2_edge.config import (
    ExperimentOptions,
    apply_overrides,
    format_config,
    require_resolved,
    validate_config,
)
from deeplab2_edge.datasets.folders import DESCRIPTION_NAME
from deeplab2_edge.datasets.registry import (
    DatasetInfo,
    dataset_names,
    get_dataset,
    load_description,
)
from deeplab2_edge.errors import (
    CheckpointError,
    ConfigError,
    DeepLabEdgeError,
    UsageError,
)
from deeplab2_edge.experiments import CONFIG_NAME
from deeplab2_edge.files import atomic_write, ensure_output_dir
from deeplab2_edge.models import build_model
from deeplab2_edge.models.cost import activation_bytes
from deeplab2_edge.optional import require
from deeplab2_edge.progress import progress
from deeplab2_edge.records import missing_shards
from deeplab2_edge.runtime.machine import peak_memory_bytes
from deeplab2_edge.train.data.pipeline import training_dataset
from deeplab2_edge.train.data.traced_checks import readable_errors
from deeplab2_edge.train.dry_run import DryRun, Restored, timed_batches, timed_step
from deeplab2_edge.train.loss_scale import LossScale
from deeplab2_edge.train.losses import TOTAL_LOSS, build_loss
from deeplab2_edge.train.optimizers import build_optimizer_groups
from deeplab2_edge.train.restore import restore_initial_checkpoint
from deeplab2_edge.train.schedules import build_schedule
from deeplab2_edge.train.step import (
    GRADIENT_NORM,
    SKIPPED,
    make_train_step,
    seed_of,
)
from deeplab2_edge.train.strategy import (
    check_batch_size,
    is_chief,
    make_strategy,
    num_replicas,
)
from deeplab2_edge.train.summaries import SummaryWriter

tf = require("tensorflow", extra="train")
tf_keras = require("tf_keras", extra="train")


@dataclass(frozen=True)
class TrainingSummary:
    """Says how a training run ended.

    Attributes:
        output_dir: Where checkpoints and summaries are.
        checkpoint: Prefix of the last checkpoint.
        first_step: Step at which this process began; above 0 after a resume.
        last_step: Step at which it ended.
        losses: Mean of every loss over the last interval.
        skipped_steps: Steps left out because of a loss that was not finite.
        seconds: Time of this process's steps.
        restored: What this process began with: the last checkpoint of the run, or
            `initial_checkpoint`; None if weights were random.
    """

    output_dir: Path
    checkpoint: str
    first_step: int
    last_step: int
    losses: dict[str, float]
    skipped_steps: int
    seconds: float
    restored: Restored | None = None

    @property
    def steps_per_second(self) -> float:
        """Speed of this process, 0 if nothing was left to do."""
        steps = self.last_step - self.first_step
        return steps / self.seconds if steps and self.seconds else 0.0


@dataclass(frozen=True)
class RunOptions:
    """Says how a run is carried out; what is learnt stands in the experiment.

    Attributes:
        seed: Of weights, data order and augmentation.
        deterministic: Use only ops with a fixed summation order: a resumed run then
            equals an uninterrupted one bit for bit; somewhat slower.
        strategy: See `make_strategy`.
        tpu: Name or address of a TPU.
        precision: See `build_model`. With float16 the loss is scaled.
        recompute: See `build_model`: less memory, more time, the same result.
        num_micro_batches: See `make_train_step`.
        stop_after: Stop at this step, before the configured number.
    """

    seed: int = 0
    deterministic: bool = False
    strategy: str = "auto"
    tpu: str = ""
    precision: str = "float32"
    recompute: bool = False
    num_micro_batches: int = 1
    stop_after: int | None = None

    def __post_init__(self) -> None:
        if self.stop_after is not None and self.stop_after < 1:
            raise UsageError(
                f"the step to stop at is {self.stop_after}; must be at least 1"
            )
        if self.num_micro_batches < 1:
            raise UsageError(
                f"the number of micro-batches is {self.num_micro_batches}; must be at "
                "least 1"
            )


def train(
    config: ExperimentOptions,
    model_dir: str | Path,
    options: RunOptions = RunOptions(),
    *,
    quiet: bool = False,
    evaluate: Callable[[int, str], None] | None = None,
) -> TrainingSummary:
    """Trains an experiment, from where an earlier run of it stopped.

    Data order, augmentation and dropout are functions of `seed` and the step, so a run
    that is killed and started again sees what an uninterrupted one sees.

    Args:
        config: The experiment.
        model_dir: Results go to `<model_dir>/<experiment_name>`.
        options: How.
        quiet: Report no progress.
        evaluate: Called with step and checkpoint every
            `evaluator_options.eval_interval` steps and at the end.

    Raises:
        ConfigError: If the configuration makes no sense.
        DataError: If records are missing or damaged.
        CheckpointError: If a checkpoint to start from does not fit.
        DeepLabEdgeError: If training diverged.
    """
    run = _Run(config, Path(model_dir), options, is_dry=False)
    steps = run.steps()
    # Only now: a command that does not fit must not spoil what lies there.
    if is_chief(run.strategy):
        _remember_config(config, run.output_dir)
    return run.train(steps, quiet=quiet, evaluate=evaluate)


def dry_run(
    config: ExperimentOptions,
    model_dir: str | Path,
    options: RunOptions = RunOptions(),
) -> DryRun:
    """Builds all of a run, takes two steps, and writes nothing.

    What lies in the output folder is read: of a run that can be resumed, the steps
    that are left are predicted.

    Arguments and errors are those of `train`.
    """
    return _Run(config, Path(model_dir), options, is_dry=True).rehearse()


class _Run:
    """Holds what lives as long as one training process."""

    def __init__(
        self,
        config: ExperimentOptions,
        model_dir: Path,
        options: RunOptions,
        *,
        is_dry: bool,
    ) -> None:
        info = get_dataset(require_resolved(config.train_dataset_options, "dataset"))
        validate_config(config, info, needs=("model_options", "train_dataset_options"))
        _check_classes(config, info)
        self.config = config
        self.info = info
        self.output_dir = model_dir / config.experiment_name
        self.run_options = options
        self.is_dry = is_dry
        if not is_dry:
            ensure_output_dir(self.output_dir)
        # TensorFlow's own seed does not reach Keras' initializers.
        tf_keras.utils.set_random_seed(options.seed)
        if options.deterministic:
            tf.config.experimental.enable_op_determinism()
        self.strategy = strategy = make_strategy(options.strategy, tpu=options.tpu)
        _check_batch(config.train_dataset_options.batch_size, options, strategy)
        if is_chief(strategy):
            _warn_of_missing_records(config)
        self.options = config.trainer_options
        solver = self.options.solver_options
        self.schedule = build_schedule(solver)
        with strategy.scope():
            self.model = build_model(
                config,
                input_size=config.train_dataset_options.crop_size,
                synchronize_batch_norm=solver.use_sync_batchnorm
                and num_replicas(strategy) > 1,
                recompute=options.recompute,
                precision=options.precision,
            )
            self.global_step = tf.Variable(
                0,
                dtype=tf.int64,
                trainable=False,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )
            groups = build_optimizer_groups(solver, variable_paths(self.model))
            self.loss_scale = (
                LossScale() if options.precision == "mixed_float16" else None
            )
        state = {group.name: group.optimizer for group in groups}
        if self.loss_scale is not None:
            state["loss_scale"] = self.loss_scale
        self.manager = tf.train.CheckpointManager(
            tf.train.Checkpoint(
                global_step=self.global_step,
                **state,
                **track(variable_paths(self.model)),
            ),
            str(self._checkpoint_dir()),
            max_to_keep=self.options.num_checkpoints_to_keep,
            checkpoint_name="ckpt",
        )
        self.restored = self._restore()
        self.step_function: Any = make_train_step(
            self.model,
            build_loss(
                self.options.loss_options,
                info,
                model_options=config.model_options,
                seed_source=seed_of(self.global_step),
            ),
            groups,
            self.global_step,
            solver=solver,
            strategy=strategy,
            num_micro_batches=options.num_micro_batches,
            loss_scale=self.loss_scale,
        )

    def _checkpoint_dir(self) -> Path:
        """Returns the folder this process saves to.

        Saving reads averages of all workers, so all of them must save; what another
        than the chief writes is thrown away.
        """
        if self.is_dry or is_chief(self.strategy):
            return self.output_dir
        folder = tempfile.mkdtemp(prefix="deeplab2_edge_worker_")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return Path(folder)

    def train(
        self,
        steps: Iterator[tuple[int, Any, Any]],
        *,
        quiet: bool,
        evaluate: Callable[[int, str], None] | None,
    ) -> TrainingSummary:
        first, last = self._interval()
        meter = _Meter()
        skipped = 0
        started = time.monotonic()
        with self._summaries() as summaries:
            shown = progress(
                steps,
                total=last - first,
                label="training",
                quiet=quiet,
                status=meter.status,
            )
            for step, batch, losses in shown:
                self._refuse_divergence(meter.last, step - 1)
                meter.add(losses)
                if step % self.options.save_summaries_steps == 0 or step == last:
                    self._refuse_divergence(losses, step)
                    means = meter.means()
                    skipped += meter.count_skipped()
                    summaries.scalars(
                        step,
                        means,
                        learning_rate=float(self.schedule(step)),
                        steps_per_second=meter.steps_per_second(),
                    )
                    meter.start_interval()
                is_evaluated = evaluate is not None and (
                    step % self.config.evaluator_options.eval_interval == 0
                    or step == last
                )
                if (
                    step % self.options.save_checkpoints_steps == 0
                    or step == last
                    or is_evaluated
                ):
                    self._refuse_divergence(losses, step)
                    prefix = self.manager.save(step)
                    if self._is_alone:
                        summaries.images(step, self._local(batch), self.model)
                    if evaluate is not None and is_evaluated:
                        evaluate(step, str(prefix))
        return TrainingSummary(
            output_dir=self.output_dir,
            checkpoint=str(self.manager.latest_checkpoint),
            first_step=first,
            last_step=max(first, last),
            losses=meter.last_means,
            skipped_steps=skipped,
            seconds=time.monotonic() - started,
            restored=self.restored,
        )

    def rehearse(self) -> DryRun:
        first, last = self._interval()
        batch, batch_seconds = timed_batches(self._batches(first))
        losses, first_seconds = timed_step(self.step_function, batch)
        self._refuse_divergence(losses, first + 1)
        _, seconds = timed_step(self.step_function, batch)
        graph = self.step_function.get_concrete_function(batch).graph
        return DryRun(
            parameters=self.model.count_params(),
            restored=self.restored,
            first_step=first,
            last_step=max(first, last),
            batch_size=self.config.train_dataset_options.batch_size,
            losses={n: v for n, v in losses.items() if n != SKIPPED},
            first_step_seconds=first_seconds,
            step_seconds=seconds,
            batch_seconds=batch_seconds,
            memory_bytes_per_image=activation_bytes(graph) // self._num_images(batch),
            peak_memory_bytes=peak_memory_bytes(),
        )

    def _interval(self) -> tuple[int, int]:
        """Returns the steps done and the step to stop at."""
        last = self.options.solver_options.training_number_of_steps
        if self.run_options.stop_after is not None:
            last = min(last, self.run_options.stop_after)
        return int(self.global_step.numpy()), last

    def steps(self) -> Iterator[tuple[int, Any, Any]]:
        """Opens the data and gives the steps that are left, each as it is taken.

        Returns:
            Number, batch and losses of each step.
        """
        first, last = self._interval()
        if first >= last:
            return iter(())
        return self._take(self._batches(first), range(first + 1, last + 1))

    def _take(
        self, batches: Iterator[Any], numbers: range
    ) -> Iterator[tuple[int, Any, Any]]:
        for step in numbers:
            with readable_errors():
                batch = next(batches)
            yield step, batch, self.step_function(batch)

    def _batches(self, first: int) -> Iterator[Any]:
        """Gives the batches that follow on a step."""
        dataset = training_dataset(
            self.config.train_dataset_options,
            self.info,
            seed=self.run_options.seed,
            start_step=first,
            has_instances=_has_instances(self.config),
            has_depth=_has_depth(self.config),
        )
        # Every worker reads all batches and keeps its part of each.
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = (
            tf.data.experimental.AutoShardPolicy.DATA
        )
        return iter(
            self.strategy.experimental_distribute_dataset(dataset.with_options(options))
        )

    @property
    def _is_alone(self) -> bool:
        """True if no other process takes part, which would have to join in."""
        resolver = self.strategy.cluster_resolver
        return resolver is None or num_replicas(self.strategy) == 1

    def _local(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the part of a batch that the first replica has."""
        first = self.strategy.experimental_local_results
        return {name: first(value)[0] for name, value in batch.items()}

    def _num_images(self, batch: Mapping[str, Any]) -> int:
        """Counts the images of a batch that this process has."""
        parts = self.strategy.experimental_local_results(batch[keys.IMAGE])
        return sum(int(part.shape[0]) for part in parts)

    def _summaries(self) -> SummaryWriter:
        folder = self.output_dir if is_chief(self.strategy) else self._checkpoint_dir()
        return SummaryWriter(folder / "train", self.info)

    def _restore(self) -> Restored | None:
        latest = tf.train.latest_checkpoint(str(self.output_dir))
        if latest is None:
            model_options = self.config.model_options
            report = restore_initial_checkpoint(self.model, model_options)
        else:
            report = self._resume(latest)
        if report is None:
            return None
        num_variables = len(variable_paths(self.model))
        return Restored(report.prefix, len(report.loaded), num_variables)

    def _resume(self, latest: str) -> LoadReport:
        report = inspect_checkpoint(self.model, latest)
        differences = [*report.mismatching, *report.missing, *report.unexpected]
        if differences:
            raise CheckpointError(
                f"{latest}: does not fit this experiment, first {differences[0]}; the "
                f"folder keeps the run of its own {CONFIG_NAME}: give that, or another "
                "--output or experiment_name"
            )
        try:
            status = self.manager.checkpoint.restore(latest)
            status.assert_existing_objects_matched()
        except (AssertionError, ValueError, IndexError, tf.errors.OpError) as error:
            raise CheckpointError(
                f"{latest}: the state of the optimizer cannot be restored "
                f"({str(error).splitlines()[0]}); was the optimizer changed?"
            ) from None
        return report

    def _refuse_divergence(self, losses: Mapping[str, Any], step: int) -> None:
        """Stops at a step that could not be learnt from.

        With float16 such steps are part of finding the scale of the loss, until the
        scale can sink no further.
        """
        if not losses or not float(losses[SKIPPED]):
            return
        if self.loss_scale is not None and not self.loss_scale.is_smallest():
            return
        culprits = [
            name
            for name, value in losses.items()
            if name not in (TOTAL_LOSS, GRADIENT_NORM) and not np.isfinite(value)
        ]
        what = " and ".join(culprits) or "the gradient of a finite loss"
        latest = tf.train.latest_checkpoint(str(self.output_dir))
        raise DeepLabEdgeError(
            f"step {step}: {what} is not finite, so nothing was learnt from it; lower "
            "solver_options.base_learning_rate or set use_gradient_clipping, then "
            f"start again: training resumes from {latest or 'the beginning'}"
        )


class _Meter:
    """Averages losses over an interval without waiting for every step."""

    def __init__(self) -> None:
        self.last_means: dict[str, float] = {}
        self.last: Mapping[str, Any] = {}
        self.start_interval()

    def start_interval(self) -> None:
        self._sums: dict[str, Any] = {}
        self._count = 0
        self._started = time.monotonic()

    def add(self, losses: dict[str, Any]) -> None:
        self._count += 1
        self.last = losses
        # A step that is not finite must not poison the mean.
        kept = 1.0 - losses[SKIPPED]
        for name, value in losses.items():
            clean = value if name == SKIPPED else tf.math.multiply_no_nan(value, kept)
            self._sums[name] = self._sums.get(name, 0.0) + clean

    def means(self) -> dict[str, float]:
        kept = max(self._count - self.count_skipped(), 1)
        self.last_means = {
            name: float(total) / kept
            for name, total in self._sums.items()
            if name != SKIPPED
        }
        return self.last_means

    def count_skipped(self) -> int:
        return int(float(self._sums.get(SKIPPED, 0.0)))

    def steps_per_second(self) -> float:
        return self._count / max(time.monotonic() - self._started, 1e-9)

    def status(self) -> str:
        total = self.means().get(TOTAL_LOSS) if self._count else None
        return "" if total is None else f"loss {total:.3f}"


def _check_batch(batch_size: int, options: RunOptions, strategy: Any) -> None:
    check_batch_size(batch_size, strategy)
    share = batch_size // num_replicas(strategy)
    if share % options.num_micro_batches:
        raise ConfigError(
            f"each replica has {share} samples of train_dataset_options.batch_size, "
            f"which cannot be split into {options.num_micro_batches} micro-batches"
        )


def _has_instances(config: ExperimentOptions) -> bool:
    model = config.model_options
    if model.has("deeplab_v3") or model.has("deeplab_v3_plus"):
        return False
    options = model.panoptic_deeplab or model.vip_deeplab
    return options is None or options.instance.enable


def _has_depth(config: ExperimentOptions) -> bool:
    options = config.model_options.vip_deeplab
    return options is not None and options.depth_head is not None


def _check_classes(config: ExperimentOptions, info: DatasetInfo) -> None:
    """Refuses records that say they hold other classes than the experiment's."""
    for pattern in require_resolved(config.train_dataset_options, "file_pattern"):
        description = Path(pattern).parent / DESCRIPTION_NAME
        if not description.is_file():
            continue
        found = load_description(description)
        difference = found.label_difference(info)
        if difference is not None:
            raise ConfigError(
                f"train_dataset_options.dataset is {info.name!r}, but "
                f"{description} describes {found.name!r} with other {difference}: "
                f"set train_dataset_options.dataset={description}"
            )


def _warn_of_missing_records(config: ExperimentOptions) -> None:
    patterns = require_resolved(config.train_dataset_options, "file_pattern")
    files = {Path(path) for pattern in patterns for path in glob.glob(pattern)}
    for message in missing_shards(sorted(files)):
        print(f"warning: {message}", file=sys.stderr)


def _remember_config(config: ExperimentOptions, output_dir: Path) -> None:
    """Writes the experiment beside its results, where other commands look for it."""
    with atomic_write(output_dir / CONFIG_NAME) as temporary:
        text = format_config(_with_absolute_paths(config))
        temporary.write_text(text, encoding="utf-8")


def _with_absolute_paths(config: ExperimentOptions) -> ExperimentOptions:
    """Makes the paths of an experiment hold in any working folder."""
    changes: dict[str, Any] = {}
    for part in ("train_dataset_options", "eval_dataset_options"):
        options = getattr(config, part)
        name = options.dataset
        if name not in dataset_names() and Path(name).is_file():
            changes[f"{part}.dataset"] = str(Path(name).absolute())
        if options.has("file_pattern"):
            changes[f"{part}.file_pattern"] = [
                pattern if "${" in pattern else str(Path(pattern).absolute())
                for pattern in options.file_pattern
            ]
    initial = config.model_options.initial_checkpoint
    is_path = Path(initial).exists() or Path(f"{initial}.index").is_file()
    if initial and initial != assets.DEMO_CHECKPOINT and is_path:
        changes["model_options.initial_checkpoint"] = str(Path(initial).absolute())
    return apply_overrides(config, changes)
