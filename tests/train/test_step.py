"""What one replica does in a step."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

import tensorflow as tf
import tf_keras

from deeplab2_edge import keys
from deeplab2_edge.config.schema import SolverOptions
from deeplab2_edge.layers.dropout import DropPath
from deeplab2_edge.train.losses.total import TOTAL_LOSS
from deeplab2_edge.train.step import ReplicaStep

pytestmark = pytest.mark.tf


def test_parts_of_a_batch_draw_masks_of_their_own() -> None:
    image = tf_keras.Input((3, 3, 3), batch_size=16)
    layer = DropPath(0.5)
    layer.seed_source = lambda: tf.constant(7, tf.int64)
    model = tf_keras.Model(image, {keys.SEMANTIC_LOGITS: layer(image)})
    # Each sample has a bit of its own: the sum tells which ones were kept.
    samples = np.ones((16, 3, 3, 3), np.float32) * (2.0 ** np.arange(16))[
        :, None, None, None
    ].astype(np.float32)

    def loss(outputs: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
        return {TOTAL_LOSS: tf.reduce_mean(outputs[keys.SEMANTIC_LOGITS], (1, 2, 3))}

    step = ReplicaStep(model, loss, (), SolverOptions(), 1.0, 2, None)
    batch = {keys.IMAGE: tf.constant(samples)}
    kept = [float(step.learn_part(batch, n)[0][TOTAL_LOSS]) for n in (0, 1, 0)]
    assert kept[0] == kept[2] != kept[1]
