"""What a run learns and remembers: network, optimizers, step, and their checkpoints."""

import atexit
import shutil
import tempfile
from pathlib import Path
from typing import Any

from deeplab2_edge.checkpoints import (
    LoadReport,
    inspect_checkpoint,
    track,
    variable_paths,
)
from deeplab2_edge.config import ExperimentOptions
from deeplab2_edge.errors import CheckpointError
from deeplab2_edge.experiments import CONFIG_NAME
from deeplab2_edge.models import build_model
from deeplab2_edge.optional import require
from deeplab2_edge.train.dry_run import Restored
from deeplab2_edge.train.loss_scale import LossScale
from deeplab2_edge.train.optimizers import build_optimizer_groups
from deeplab2_edge.train.restore import restore_initial_checkpoint
from deeplab2_edge.train.run_options import RunOptions
from deeplab2_edge.train.strategy import is_chief, num_replicas

tf = require("tensorflow", extra="train")


class RunState:
    """Holds everything that a checkpoint of a run holds.

    Attributes:
        model: The network.
        groups: Optimizers with their variables.
        global_step: int64 variable, the steps done.
        loss_scale: With float16, else None.
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
    ) -> None:
        self._output_dir = output_dir
        solver = config.trainer_options.solver_options
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
            self.groups = build_optimizer_groups(solver, variable_paths(self.model))
            self.loss_scale = (
                LossScale() if options.precision == "mixed_float16" else None
            )
        self.checkpoint_dir = (
            output_dir if is_dry or is_chief(strategy) else _temporary_folder()
        )
        self._manager = self._make_manager(
            config.trainer_options.num_checkpoints_to_keep
        )
        self.restored = self._restore(config)

    def step(self) -> int:
        """Returns the steps done."""
        return int(self.global_step.numpy())

    def save(self) -> str:
        """Writes a checkpoint of this step and returns its prefix."""
        return str(self._manager.save(self.step()))

    def last_saved(self) -> str:
        """Returns the prefix of the last checkpoint this process saved or found."""
        return str(self._manager.latest_checkpoint)

    def latest_checkpoint(self) -> str | None:
        """Returns the prefix of the run's newest checkpoint, None without one."""
        prefix: str | None = tf.train.latest_checkpoint(str(self._output_dir))
        return prefix

    def _make_manager(self, num_kept: int) -> Any:
        state = {group.name: group.optimizer for group in self.groups}
        if self.loss_scale is not None:
            state["loss_scale"] = self.loss_scale
        return tf.train.CheckpointManager(
            tf.train.Checkpoint(
                global_step=self.global_step,
                **state,
                **track(variable_paths(self.model)),
            ),
            str(self.checkpoint_dir),
            max_to_keep=num_kept,
            checkpoint_name="ckpt",
        )

    def _restore(self, config: ExperimentOptions) -> Restored | None:
        latest = self.latest_checkpoint()
        if latest is None:
            report = restore_initial_checkpoint(self.model, config.model_options)
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
            status = self._manager.checkpoint.restore(latest)
            status.assert_existing_objects_matched()
        except (AssertionError, ValueError, IndexError, tf.errors.OpError) as error:
            raise CheckpointError(
                f"{latest}: the state of the optimizer cannot be restored "
                f"({str(error).splitlines()[0]}); was the optimizer changed?"
            ) from None
        return report


def _temporary_folder() -> Path:
    folder = tempfile.mkdtemp(prefix="deeplab2_edge_worker_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
