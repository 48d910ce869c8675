"""A loss that is not finite: its step, its term and its first tensor are named."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

import tensorflow as tf
import tf_keras

from deeplab2_edge import keys
from deeplab2_edge.checkpoints import variable_paths
from deeplab2_edge.config import SolverOptions
from deeplab2_edge.errors import DeepLabEdgeError
from deeplab2_edge.layers.conv import biased_conv, conv
from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.train import trainer
from deeplab2_edge.train.divergence import find_cause
from deeplab2_edge.train.optimizers import build_optimizer_groups
from deeplab2_edge.train.step import SKIPPED, make_train_step
from tests.train.small_run import experiment, write_scenes

pytestmark = pytest.mark.tf


def network() -> Any:
    image = tf_keras.Input((5, 5, 3), name=keys.IMAGE)
    x = conv(image, "encoder/_a", 2, kernel_size=3, defaults=LayerDefaults())
    x = tf_keras.layers.Lambda(tf.exp, name="encoder/_exp")(x)
    x = biased_conv(x, "semantic_last_layer", 2)
    return tf_keras.Model(image, {keys.SEMANTIC_LOGITS: x})


def batch() -> dict[str, Any]:
    image = np.random.default_rng(0).uniform(0, 255, (2, 5, 5, 3))
    return {keys.IMAGE: tf.constant(image, tf.float32), "target": tf.zeros([2])}


def loss(
    outputs: Mapping[str, Any], targets: Mapping[str, Any], scale: float = 1.0
) -> dict[str, Any]:
    value = tf.reduce_mean(tf.abs(outputs[keys.SEMANTIC_LOGITS]), [1, 2, 3])
    value = value * scale * scale + targets["target"]
    return {"semantic_loss": value, "total_loss": value}


def test_the_data_is_looked_at_first() -> None:
    faulty = batch() | {"target": tf.constant([0.0, np.nan])}
    found = find_cause(network(), loss, faulty)
    assert "is target of the batch, which the data gave: 1 of 2" in found


def test_a_weight_is_named() -> None:
    model = network()
    kernel = model.get_layer("semantic_last_layer").kernel
    kernel.assign(tf.fill(kernel.shape, np.inf))
    found = find_cause(model, loss, batch())
    assert "is the weight semantic_last_layer/kernel: 4 of 4" in found


def test_the_first_layer_that_overflows_is_named() -> None:
    model = network()
    norm = next(v for v in model.trainable_weights if "gamma" in v.name)
    norm.assign(tf.fill(norm.shape, 1e4))
    found = find_cause(model, loss, batch())
    assert "is the output of layer encoder/_exp: " in found
    # Nothing of the search stays behind.
    assert all("call" not in vars(layer) for layer in model.layers)


def test_a_term_that_overflows_by_itself_is_named() -> None:
    found = find_cause(network(), lambda o, t: loss(o, t, 1e38), batch())
    assert "is semantic_loss, computed from finite outputs and labels: " in found


def test_a_gradient_is_named() -> None:
    def steep(outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Any]:
        value = tf.reduce_sum(tf.sqrt(0.0 * outputs[keys.SEMANTIC_LOGITS]), [1, 2, 3])
        return {"semantic_loss": value, "total_loss": value}

    found = find_cause(network(), steep, batch())
    assert "is the gradient of the output semantic_logits: 100 of 100" in found


def test_finite_steps_are_not_blamed() -> None:
    assert "all its tensors are finite" in find_cause(network(), loss, batch())


def test_a_run_names_step_term_tensor_and_the_checkpoint_to_go_on_from(
    tmp_path: Path,
) -> None:
    pattern = write_scenes(tmp_path, 2)
    steps = {"trainer_options.solver_options.training_number_of_steps": 6}
    first = trainer.train(experiment(pattern, steps), tmp_path, quiet=True,
                          options=trainer.RunOptions(stop_after=2))  # fmt: skip
    # A rate so large that the weights overflow in the next update.
    diverging = experiment(
        pattern, steps | {"trainer_options.solver_options.base_learning_rate": 1e30}
    )
    with pytest.raises(DeepLabEdgeError) as caught:
        trainer.train(diverging, tmp_path, quiet=True)
    message = str(caught.value)
    # Which of the losses overflows first depends on the processor.
    assert re.match(r"step 4: \w+_loss( and \w+_loss)* (is|are) not finite", message)
    assert "the first tensor with such values is the output of layer " in message
    assert message.endswith(f"training resumes from {first.checkpoint}")
    again = trainer.train(experiment(pattern, steps), tmp_path, quiet=True,
                          options=trainer.RunOptions(stop_after=3))  # fmt: skip
    assert again.first_step == 2


def test_a_step_left_out_changes_nothing() -> None:
    """Nor do those after it: also statistics, which the forward pass moves, stay."""
    model = network()
    options = SolverOptions(base_learning_rate=0.1)
    global_step = tf.Variable(0, dtype=tf.int64, trainable=False)
    groups = build_optimizer_groups(options, variable_paths(model))
    step = make_train_step(model, loss, groups, global_step, solver=options)

    def state() -> dict[str, Any]:
        return {path: v.numpy() for path, v in variable_paths(model).items()}

    def changed(before: dict[str, Any]) -> set[str]:
        now = state()
        return {p for p, v in before.items() if not np.array_equal(v, now[p])}

    before = state()
    assert float(step(batch())[SKIPPED]) == 0
    assert {"encoder/_a/_bn/moving_mean", "encoder/_a/_conv/kernel"} & changed(before)
    before = state()
    faulty = batch() | {keys.IMAGE: tf.fill([2, 5, 5, 3], np.nan)}
    assert float(step(faulty)[SKIPPED]) == 1
    assert float(step(batch())[SKIPPED]) == 1
    assert not changed(before)
    assert int(global_step) == 3
