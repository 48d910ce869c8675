"""The data of a training run: checked, opened, and shared between replicas."""

import glob
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deeplab2_edge.config import ExperimentOptions, require_resolved
from deeplab2_edge.datasets.folders import DESCRIPTION_NAME
from deeplab2_edge.datasets.registry import DatasetInfo, load_description
from deeplab2_edge.errors import ConfigError
from deeplab2_edge.optional import require
from deeplab2_edge.records import missing_shards
from deeplab2_edge.train.data.pipeline import training_dataset

tf = require("tensorflow", extra="train")


def check_classes(config: ExperimentOptions, info: DatasetInfo) -> None:
    """Refuses records that say they hold other classes than the experiment's.

    Raises:
        ConfigError: If a `dataset.json` beside them differs.
    """
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
        has_instances=_has_instances(config),
        has_depth=_has_depth(config),
    )
    # Every worker reads all batches and keeps its part of each.
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    return iter(strategy.experimental_distribute_dataset(dataset.with_options(options)))


def _has_instances(config: ExperimentOptions) -> bool:
    model = config.model_options
    if model.has("deeplab_v3") or model.has("deeplab_v3_plus"):
        return False
    options = model.panoptic_deeplab or model.vip_deeplab
    return options is None or options.instance.enable


def _has_depth(config: ExperimentOptions) -> bool:
    options = config.model_options.vip_deeplab
    return options is not None and options.depth_head is not None
