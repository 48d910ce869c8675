"""Processes that train together make, each its own part, the batches of one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

import tensorflow as tf

from deeplab2_edge.datasets.registry import get_dataset
from deeplab2_edge.train.data.pipeline import Share
from deeplab2_edge.train.run_data import open_dataset
from tests.train.small_run import experiment, write_scenes

pytestmark = pytest.mark.tf

BATCH_SIZE = 4


@pytest.mark.parametrize("start_step", [0, 3])
def test_shares_are_parts_of_the_batches_of_one_process(
    tmp_path: Path, start_step: int
) -> None:
    config = experiment(
        write_scenes(tmp_path, 5), {"train_dataset_options.batch_size": BATCH_SIZE}
    )
    info = get_dataset(config.train_dataset_options.dataset)

    def batches(count: int, share: Share) -> list[dict[str, Any]]:
        dataset = open_dataset(config, info, seed=1, start_step=start_step, share=share)
        return list(dataset.take(count).as_numpy_iterator())

    whole = batches(2, Share())
    parts = [batches(2, Share(tf.constant(index, tf.int64), 2)) for index in (0, 1)]
    for step, expected in enumerate(whole):
        for key, value in expected.items():
            found = np.concatenate([part[step][key] for part in parts])
            np.testing.assert_array_equal(found, value, err_msg=key)
