"""The data of a training run: opened, and shared between replicas."""

import glob
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deeplab2_edge.config import ExperimentOptions, require_resolved
from deeplab2_edge.datasets.registry import DatasetInfo
from deeplab2_edge.optional import require
from deeplab2_edge.records import missing_shards
from deeplab2_edge.train.data.pipeline import training_dataset

tf = require("tensorflow", extra="train")


def warn_of_missing_records(config: ExperimentOptions) -> None:
    """Says on stderr which record files are missing beside those that are there."""
    patterns = require_resolved(config.train_dataset_options, "file_pattern")
    files = {Path(path) for pattern in patterns for path in glob.glob(pattern)}
    for message in missing_shards(sorted(files)):
        print(f"warning: {message}", file=sys.stderr)


def open_batches(
    config: ExperimentOptions,
    info: DatasetInfo,
    strategy: Any,
    *,
    seed: int,
    first_step: int,
) -> Iterator[Any]:
    """Gives the batches that follow on a step.

    Args:
        config: The experiment.
        info: The data set of its records.
        strategy: Of `make_strategy`.
        seed: Of order and augmentation.
        first_step: Steps that were done before.

    Raises:
        ConfigError: See `training_dataset`.
        DataError: See `training_dataset`.
    """
    dataset = training_dataset(
        config.train_dataset_options,
        info,
        seed=seed,
        start_step=first_step,
        has_instances=has_instances(config),
        has_depth=has_depth(config),
    )
    # Every worker reads all batches and keeps its part of each.
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    return iter(strategy.experimental_distribute_dataset(dataset.with_options(options)))


def has_instances(config: ExperimentOptions) -> bool:
    """Tells whether a network learns instances."""
    model = config.model_options
    if model.has("deeplab_v3") or model.has("deeplab_v3_plus"):
        return False
    options = model.panoptic_deeplab or model.vip_deeplab
    return options is None or options.instance.enable


def has_depth(config: ExperimentOptions) -> bool:
    """Tells whether a network learns depth."""
    options = config.model_options.vip_deeplab
    return options is not None and options.depth_head is not None
