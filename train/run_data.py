"""The data of a training run: opened, and shared between replicas."""

import glob
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from deeplab2_edge.config import ExperimentOptions, require_resolved
from deeplab2_edge.datasets.registry import DatasetInfo
from deeplab2_edge.records import missing_shards
from deeplab2_edge.train.data.pipeline import Share, training_dataset


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
    services: Sequence[str] = (),
) -> Iterator[Any]:
    """Gives the batches that follow on a step; each process makes its share of them.

    Args:
        config: The experiment.
        info: The data set of its records.
        strategy: Of `make_strategy`.
        seed: Of order and augmentation.
        first_step: Steps that were done before.
        services: See `training_dataset`.

    Raises:
        ConfigError: See `training_dataset`.
        DataError: See `training_dataset`.
    """

    def dataset_of_process(context: Any) -> Any:
        processes = context.num_input_pipelines
        share = Share(
            context.input_pipeline_id,
            processes,
            num_replicas=context.num_replicas_in_sync // processes,
        )
        return open_dataset(
            config,
            info,
            seed=seed,
            start_step=first_step,
            share=share,
            services=services,
        )

    return iter(strategy.distribute_datasets_from_function(dataset_of_process))


def open_dataset(config: ExperimentOptions, info: DatasetInfo, **settings: Any) -> Any:
    """Opens the records of an experiment, see `training_dataset`."""
    return training_dataset(
        config.train_dataset_options,
        info,
        has_instances=has_instances(config),
        has_depth=has_depth(config),
        **settings,
    )


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
