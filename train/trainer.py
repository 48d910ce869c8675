"""The training loop: resumable, observable, the same after a kill.

What is around it: how a run is carried out (`run_options`), what it learns and
remembers (`run_state`), its data (`run_data`), one step (`step`), means of losses
(`meter`), and the modes with evaluation (`modes`).
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deeplab2_edge import keys
from deeplab2_edge.config import ExperimentOptions, format_config
from deeplab2_edge.errors import ConfigError, UsageError
from deeplab2_edge.files import ensure_output_dir
from deeplab2_edge.models.cost import activation_bytes
from deeplab2_edge.optional import require
from deeplab2_edge.progress import progress
from deeplab2_edge.runtime.machine import peak_memory_bytes
from deeplab2_edge.train.cluster import wait_for_address
from deeplab2_edge.train.data.pipeline import Share
from deeplab2_edge.train.data.traced_checks import readable_errors
from deeplab2_edge.train.divergence import Suspect, refuse_divergence
from deeplab2_edge.train.dry_run import (
    DryRun,
    Restored,
    describe_start,
    timed_batches,
    timed_step,
)
from deeplab2_edge.train.losses import build_loss
from deeplab2_edge.train.meter import Meter
from deeplab2_edge.train.parameter_server import (
    Coordinator,
    asynchronous_cluster,
    check_asynchronous,
    check_batch_statistics,
    is_asynchronous,
    is_finished,
    parameter_server_cluster,
    serve,
)
from deeplab2_edge.train.run_checks import check_training
from deeplab2_edge.train.run_config import remember_config
from deeplab2_edge.train.run_data import (
    open_batches,
    open_dataset,
    warn_of_missing_records,
)
from deeplab2_edge.train.run_options import RunOptions
from deeplab2_edge.train.run_state import RunState, TransformModel
from deeplab2_edge.train.schedules import build_schedule
from deeplab2_edge.train.step import SKIPPED, make_train_step, seed_of
from deeplab2_edge.train.strategy import (
    check_batch_size,
    is_chief,
    make_strategy,
    num_replicas,
)
from deeplab2_edge.train.summaries import SummaryWriter
from deeplab2_edge.train.xla import check_replicas, readable_compile_errors
from deeplab2_edge.version import __version__

tf = require("tensorflow", extra="train")
tf_keras = require("tf_keras", extra="train")

__all__ = ["RunOptions", "TrainingSummary", "dry_run", "train"]

_DEFAULTS = RunOptions()


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
        waited_seconds: The part of it in which no batch was ready.
        restored: What this process began with: the last checkpoint of the run, or
            `initial_checkpoint`; None if weights were random.
        served_as: What this process was to a chief that trained, for example
            `worker 1`; empty if it trained itself.
    """

    output_dir: Path
    checkpoint: str
    first_step: int
    last_step: int
    losses: dict[str, float]
    skipped_steps: int
    seconds: float
    waited_seconds: float = 0.0
    restored: Restored | None = None
    served_as: str = ""

    @property
    def input_wait_fraction(self) -> float:
        """Share of the time in which steps waited for the data pipeline."""
        return self.waited_seconds / self.seconds if self.seconds else 0.0

    @property
    def steps_per_second(self) -> float:
        """Speed of this process, 0 if nothing was left to do."""
        steps = self.last_step - self.first_step
        return steps / self.seconds if steps and self.seconds else 0.0


def train(
    config: ExperimentOptions,
    model_dir: str | Path,
    options: RunOptions = _DEFAULTS,
    *,
    quiet: bool = False,
    evaluate: Callable[[int, str], None] | None = None,
    transform_model: TransformModel | None = None,
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
        transform_model: Gets the network of the experiment, with the weights of
            `initial_checkpoint`, and gives the one that is trained, for example
            annotated for quantization-aware training. Its layers keep their names;
            wrappers of tensorflow-model-optimization are known, see
            `checkpoints.quantizer_paths`. A resumed run needs the same function.

    Raises:
        ConfigError: If the configuration makes no sense.
        DataError: If records are missing or damaged.
        CheckpointError: If a checkpoint to start from does not fit.
        OutputError: If results cannot be written.
        DeepLabEdgeError: If training diverged.
    """
    options, served = _join_cluster(
        config, Path(model_dir), options, evaluates=evaluate is not None
    )
    if served is not None:
        return served
    run = _Run(
        config, Path(model_dir), options, is_dry=False, transform_model=transform_model
    )
    steps = run.steps()
    # Only now: a command that does not fit must not spoil what lies there.
    if is_chief(run.strategy):
        remember_config(config, run.output_dir)
        if not quiet:
            start = describe_start(run.state.restored, run.state.step())
            print(f"{start}; the first step takes longest", file=sys.stderr, flush=True)
    return run.train(steps, quiet=quiet, evaluate=evaluate)


def dry_run(
    config: ExperimentOptions,
    model_dir: str | Path,
    options: RunOptions = _DEFAULTS,
    *,
    transform_model: TransformModel | None = None,
) -> DryRun:
    """Builds all of a run, takes two steps, and writes nothing.

    What lies in the output folder is read: of a run that can be resumed, the steps
    that are left are predicted.

    Arguments and errors are those of `train`.
    """
    if asynchronous_cluster(options.strategy) is not None:
        raise UsageError(
            "--dry-run takes steps in this process alone: try strategy "
            "parameter_server out with --strategy one, on one of its workers"
        )
    return _Run(
        config, Path(model_dir), options, is_dry=True, transform_model=transform_model
    ).rehearse()


class _Run:
    """Holds what lives as long as one training process."""

    def __init__(
        self,
        config: ExperimentOptions,
        model_dir: Path,
        options: RunOptions,
        *,
        is_dry: bool,
        transform_model: TransformModel | None,
    ) -> None:
        info = check_training(config)
        self.config = config
        self.info = info
        self.output_dir = model_dir / config.experiment_name
        self.run_options = options
        self.meter = Meter()
        if not is_dry:
            ensure_output_dir(self.output_dir)
        # TensorFlow's own seed does not reach Keras' initializers.
        tf_keras.utils.set_random_seed(options.seed)
        if options.deterministic:
            tf.config.experimental.enable_op_determinism()
        for address in options.data_services:
            wait_for_address(
                address, timeout=options.worker_timeout, what="--data-service"
            )
        self.strategy = strategy = make_strategy(
            options.strategy,
            tpu=options.tpu,
            greeting=(
                f"version: {__version__}\n{format_config(config)}{options.agreement()}"
            ),
            timeout=options.worker_timeout,
        )
        check_batch_statistics(strategy, config.trainer_options.solver_options)
        _check_batch(config.train_dataset_options.batch_size, options, strategy)
        if is_chief(strategy):
            warn_of_missing_records(config)
        self.options = config.trainer_options
        self.schedule = build_schedule(self.options.solver_options)
        if options.xla:
            check_replicas(num_replicas(strategy))
        self.state = RunState(
            config,
            options,
            strategy,
            self.output_dir,
            is_dry=is_dry,
            transform_model=transform_model,
        )
        self.loss = build_loss(
            self.options.loss_options,
            info,
            model_options=config.model_options,
            seed_source=seed_of(self.state.global_step),
        )
        self.step_function: Any = make_train_step(
            self.state.model,
            self.loss,
            self.state.groups,
            self.state.global_step,
            solver=self.options.solver_options,
            strategy=strategy,
            num_micro_batches=options.num_micro_batches,
            loss_scale=self.state.loss_scale,
            xla=options.xla,
        )

    def train(
        self,
        steps: Iterator[tuple[int, Any, Any]],
        *,
        quiet: bool,
        evaluate: Callable[[int, str], None] | None,
    ) -> TrainingSummary:
        first, last = self._interval()
        meter = self.meter
        meter.start_interval()
        skipped = 0
        before: Suspect | None = None
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
                # Looking at the step before does not keep the device waiting.
                self._refuse_divergence(before)
                before = this = Suspect(step, losses, batch)
                meter.add(losses)
                if step % self.options.save_summaries_steps == 0 or step == last:
                    self._refuse_divergence(this)
                    means = meter.means()
                    skipped += meter.count_skipped()
                    summaries.scalars(
                        step,
                        means,
                        learning_rate=float(self.schedule(step)),
                        steps_per_second=meter.steps_per_second(),
                        input_wait_fraction=meter.input_wait_fraction(),
                    )
                    meter.start_interval()
                is_evaluated = evaluate is not None and self._is_evaluated(step, last)
                if is_evaluated or self._is_saved(step, last):
                    self._refuse_divergence(this)
                    prefix = self.state.save()
                    if self._is_alone and batch is not None:
                        summaries.images(step, self._local(batch), self.state.model)
                    if evaluate is not None and is_evaluated:
                        evaluate(step, prefix)
        return TrainingSummary(
            output_dir=self.output_dir,
            checkpoint=self.state.checkpoint_of_run(),
            first_step=first,
            last_step=max(first, last),
            losses=meter.last_means,
            skipped_steps=skipped,
            waited_seconds=meter.waited_seconds,
            seconds=time.monotonic() - started,
            restored=self.state.restored,
        )

    def rehearse(self) -> DryRun:
        first, last = self._interval()
        batch, batch_seconds = timed_batches(self._batches(first))
        with self._compile_errors():
            losses, first_seconds = timed_step(self.step_function, batch)
        self._refuse_divergence(Suspect(first + 1, losses, batch))
        _, seconds = timed_step(self.step_function, batch)
        graph = self.step_function.get_concrete_function(batch).graph
        return DryRun(
            parameters=self.state.model.count_params(),
            restored=self.state.restored,
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

    def steps(self) -> Iterator[tuple[int, Any, Any]]:
        """Opens the data and gives the steps that are left, each as it is taken.

        Returns:
            Number, batch and losses of each step.
        """
        first, last = self._interval()
        if first >= last:
            return iter(())
        if is_asynchronous(self.strategy):
            return self._hand_out(first, last)
        return self._take(self._batches(first), range(first + 1, last + 1))

    def _hand_out(self, first: int, last: int) -> Iterator[tuple[int, Any, Any]]:
        """Lets workers take the steps, on batches of their own."""
        batch_size = self.config.train_dataset_options.batch_size
        cluster = parameter_server_cluster()
        num_workers = len(cluster.jobs["worker"])

        def dataset_of_worker(share: Share, seed: Any) -> Any:
            return open_dataset(
                self.config,
                self.info,
                seed=seed,
                start_step=first // num_workers,
                batch_size=batch_size * num_workers,
                share=share,
                services=self.run_options.data_services,
            )

        coordinator = Coordinator(
            self.strategy,
            self.step_function,
            dataset_of_worker,
            num_workers=num_workers,
            seed=self.run_options.seed,
        )
        stops = (self.options.save_summaries_steps, self.options.save_checkpoints_steps)
        for step, losses in coordinator.run_between(first, last, stops):
            yield step, None, losses

    def _take(
        self, batches: Iterator[Any], numbers: range
    ) -> Iterator[tuple[int, Any, Any]]:
        for step in numbers:
            with readable_errors(), self.meter.waiting():
                batch = next(batches)
            with self._compile_errors():
                losses = self.step_function(batch)
            yield step, batch, losses

    def _compile_errors(self) -> contextlib.AbstractContextManager[None]:
        is_compiled = self.run_options.xla
        return readable_compile_errors() if is_compiled else contextlib.nullcontext()

    def _interval(self) -> tuple[int, int]:
        """Returns the steps done and the step to stop at."""
        return self.state.step(), _last_step(self.config, self.run_options)

    def _is_evaluated(self, step: int, last: int) -> bool:
        return step % self.config.evaluator_options.eval_interval == 0 or step == last

    def _is_saved(self, step: int, last: int) -> bool:
        return step % self.options.save_checkpoints_steps == 0 or step == last

    def _batches(self, first: int) -> Iterator[Any]:
        """Gives the batches that follow on a step."""
        return open_batches(
            self.config,
            self.info,
            self.strategy,
            seed=self.run_options.seed,
            first_step=first,
            services=self.run_options.data_services,
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
        return SummaryWriter(self.state.checkpoint_dir / "train", self.info)

    def _refuse_divergence(self, suspect: Suspect | None) -> None:
        if suspect is None or not float(suspect.losses[SKIPPED]):
            return
        # Steps that other machines take leave no batch here.
        batch = None if suspect.batch is None else self._local(suspect.batch)
        local = Suspect(suspect.step, suspect.losses, batch)
        refuse_divergence(local, self.state, self.loss)


def _join_cluster(
    config: ExperimentOptions,
    model_dir: Path,
    options: RunOptions,
    *,
    evaluates: bool,
) -> tuple[RunOptions, TrainingSummary | None]:
    """Finds the part of this process in an asynchronous run; plays that of a server.

    Returns:
        The options to train with, and, if this process has served, how that ended.
    """
    cluster = asynchronous_cluster(options.strategy)
    if cluster is None:
        return options, None
    check_asynchronous(options, evaluates=evaluates)
    output_dir, last = model_dir / config.experiment_name, _last_step(config, options)
    if cluster.is_chief:
        # Servers do not come if nothing is left to do.
        is_over = is_finished(output_dir, last)
        return (replace(options, strategy="one") if is_over else options), None
    serve(cluster, lambda: is_finished(output_dir, last))
    return options, TrainingSummary(
        output_dir=output_dir,
        checkpoint=str(tf.train.latest_checkpoint(str(output_dir))),
        first_step=last,
        last_step=last,
        losses={},
        skipped_steps=0,
        seconds=0.0,
        served_as=f"{cluster.task_type} {cluster.task_index}",
    )


def _last_step(config: ExperimentOptions, options: RunOptions) -> int:
    last = config.trainer_options.solver_options.training_number_of_steps
    return last if options.stop_after is None else min(last, options.stop_after)


def _check_batch(batch_size: int, options: RunOptions, strategy: Any) -> None:
    check_batch_size(batch_size, strategy)
    share = batch_size // num_replicas(strategy)
    if share % options.num_micro_batches:
        raise ConfigError(
            f"each replica has {share} samples of train_dataset_options.batch_size, "
            f"which cannot be split into {options.num_micro_batches} micro-batches"
        )
