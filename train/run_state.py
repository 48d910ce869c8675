"""What a run learns and remembers: network, optimizers, step, and their checkpoints."""

import atexit
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deeplab2_edge.checkpoints import (
    LoadReport,
    inspect_checkpoint,
    quantizer_paths,
    track,
    variable_paths,
)
from deeplab2_edge.config import ExperimentOptions
from deeplab2_edge.errors import CheckpointError, OutputError
from deeplab2_edge.experiments import CONFIG_NAME
from deeplab2_edge.models import build_model
from deeplab2_edge.optional import require
from deeplab2_edge.train.checkpoint_folder import (
    CHECKPOINT_NAME,
    name_newest,
    newest_checkpoint,
    readable_write_errors,
    remove_unfinished,
)
from deeplab2_edge.train.dry_run import Restored
from deeplab2_edge.train.loss_scale import LossScale
from deeplab2_edge.train.optimizers import build_optimizer_groups
from deeplab2_edge.train.restore import restore_initial_checkpoint
from deeplab2_edge.train.run_options import RunOptions
from deeplab2_edge.train.strategy import is_chief, num_replicas

tf = require("tensorflow", extra="train")


# From the network of the experiment to the one that is trained.
TransformModel = Callable[[Any], Any]


class RunState:
    """Holds everything that a checkpoint of a run holds.

    Attributes:
        model: The network that is trained.
        groups: Optimizers with their variables.
        global_step: int64 variable, the steps done.
        loss_scale: With float16, else None.
        num_replicas: Of the model.
        restored: What this process began with, see `TrainingSummary`.
        checkpoint_dir: Where this process saves. Saving reads averages of all workers,
            so all of them must save; what another than the chief writes is thrown
            away.

    Args:
        config: The experiment.
        options: How it is run.
        strategy: Of `make_strategy`.
        output_dir: Of the run; a checkpoint there is resumed from.
        is_dry: Nothing will be saved.
        transform_model: See `trainer.train`.

    Raises:
        CheckpointError: If a checkpoint to start from does not fit.
    """

    def __init__(
        self,
        config: ExperimentOptions,
        options: RunOptions,
        strategy: Any,
        output_dir: Path,
        *,
        is_dry: bool,
        transform_model: TransformModel | None = None,
    ) -> None:
        self.num_replicas = num_replicas(strategy)
        solver = config.trainer_options.solver_options
        latest = newest_checkpoint(output_dir)
        report = None
        with strategy.scope():
            self.model = build_model(
                config,
                input_size=config.train_dataset_options.crop_size,
                synchronize_batch_norm=solver.use_sync_batchnorm
                and self.num_replicas > 1,
                recompute=options.recompute,
                precision=options.precision,
            )
            if latest is None:
                report = restore_initial_checkpoint(self.model, config.model_options)
            if transform_model is not None:
                self.model = transform_model(self.model)
            self.global_step = tf.Variable(
                0,
                dtype=tf.int64,
                trainable=False,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )
            frozen = {id(variable) for variable in self.model.non_trainable_weights}
            self.groups = build_optimizer_groups(
                solver,
                {
                    path: variable
                    for path, variable in variable_paths(self.model).items()
                    if id(variable) not in frozen
                },
            )
            self.loss_scale = (
                LossScale() if options.precision == "mixed_float16" else None
            )
        self._output_dir = output_dir
        is_writer = is_chief(strategy) and not is_dry
        self.checkpoint_dir = output_dir if is_writer or is_dry else _temporary_folder()
        if is_writer:
            name_newest(output_dir)
        self._manager = self._make_manager(
            config.trainer_options.num_checkpoints_to_keep
        )
        if latest is not None:
            report = self._resume(latest)
        self._last = latest
        self.restored = (
            None
            if report is None
            else Restored(
                report.prefix, len(report.loaded), len(variable_paths(self.model))
            )
        )

    def step(self) -> int:
        """Returns the steps done."""
        return int(self.global_step.numpy())

    def save(self) -> str:
        """Writes a checkpoint of this step and returns its prefix.

        Raises:
            OutputError: If it cannot be written, for example because the disk is full.
                Those that were written before are left as they are.
        """
        step, last = self.step(), self._last or "the beginning"
        try:
            with readable_write_errors(
                self.checkpoint_dir,
                f"the checkpoint of step {step}",
                f", then start again: training resumes from {last}",
            ):
                self._last = str(self._manager.save(step))
        except OutputError:
            remove_unfinished(self.checkpoint_dir, step)
            raise
        return self._last

    def last_checkpoint(self) -> str | None:
        """Returns the prefix that was saved, or else resumed from, last."""
        return self._last

    def checkpoint_of_run(self) -> str:
        """Returns that prefix as the chief writes it.

        Other workers save to a folder that is thrown away.
        """
        return str(self._output_dir / Path(str(self._last)).name)

    def _make_manager(self, num_kept: int) -> Any:
        state = {group.name: group.optimizer for group in self.groups}
        if self.loss_scale is not None:
            state["loss_scale"] = self.loss_scale
        paths = variable_paths(self.model) | quantizer_paths(self.model)
        return tf.train.CheckpointManager(
            tf.train.Checkpoint(global_step=self.global_step, **state, **track(paths)),
            str(self.checkpoint_dir),
            max_to_keep=num_kept,
            checkpoint_name=CHECKPOINT_NAME,
        )

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
            status = self._manager.checkpoint.restore(latest)
            status.assert_existing_objects_matched()
        except (AssertionError, ValueError, IndexError, tf.errors.OpError) as error:
            raise CheckpointError(
                f"{latest}: the state of the training cannot be restored "
                f"({str(error).splitlines()[0]}); was the optimizer changed, or the "
                "precision, or was it no training of a quantized network?"
            ) from None
        return report


def _temporary_folder() -> Path:
    folder = tempfile.mkdtemp(prefix="deeplab2_edge_worker_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
