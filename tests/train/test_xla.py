"""Steps compiled with XLA learn what others learn."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

import tensorflow as tf
import tf_keras

from deeplab2_edge.cli import main
from deeplab2_edge.config import format_config
from deeplab2_edge.datasets.registry import get_dataset
from deeplab2_edge.errors import UsageError
from deeplab2_edge.layers.dropout import Replayable
from deeplab2_edge.models import build_model
from deeplab2_edge.train.data import training_dataset
from deeplab2_edge.train.losses import build_loss
from deeplab2_edge.train.optimizers import OptimizerGroup
from deeplab2_edge.train.run_data import has_instances
from deeplab2_edge.train.step import ReplicaStep
from deeplab2_edge.train.xla import check_replicas, readable_compile_errors
from tests.train.small_run import experiment, write_scenes
from tests.train.test_architectures import (
    NO_INSTANCE_LOSS,
    PANOPTIC,
    mask_transformer,
)

pytestmark = pytest.mark.tf

SEMANTIC = {
    PANOPTIC: None,
    "model_options.deeplab_v3_plus.num_classes": 11,
    "model_options.deeplab_v3_plus.low_level.feature_key": "res2",
    "model_options.deeplab_v3_plus.low_level.channels_project": 8,
    **NO_INSTANCE_LOSS,
}
MODELS = {"deeplab_v3_plus": SEMANTIC, "panoptic": {}, "max": mask_transformer()}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_compiled_step_gives_the_same(tmp_path: Path, name: str) -> None:
    config = experiment(write_scenes(tmp_path, 2), dict(MODELS[name]))
    options, info = config.train_dataset_options, get_dataset("synthetic_street")
    instances = has_instances(config)
    batch = next(iter(training_dataset(options, info, seed=0, has_instances=instances)))
    tf_keras.utils.set_random_seed(0)
    model = build_model(config, input_size=options.crop_size)
    for layer in model.submodules:
        if isinstance(layer, Replayable):
            layer.seed_source = lambda: tf.constant(5, tf.int64)
    step = ReplicaStep(
        model,
        build_loss(
            config.trainer_options.loss_options,
            info,
            model_options=config.model_options,
            seed_source=lambda: tf.constant(3, tf.int64),
        ),
        (OptimizerGroup("optimizer", None, tuple(model.trainable_weights)),),
        config.trainer_options.solver_options,
        share=1.0,
        num_micro_batches=1,
        loss_scale=None,
    )

    expected, expected_gradients = tf.function(step.learn_part)(batch)
    found, gradients = tf.function(step.learn_part, jit_compile=True)(batch)
    for key, value in expected.items():
        assert float(found[key]) == pytest.approx(float(value), rel=1e-3), key
    pairs = [*zip(gradients, expected_gradients, strict=True)]
    assert all((one is None) == (other is None) for one, other in pairs)
    rest = tf.linalg.global_norm([a - b for a, b in pairs if a is not None])
    assert float(rest) < 0.01 * float(tf.linalg.global_norm(expected_gradients))


@pytest.mark.slow
def test_a_run_is_compiled_on_request(tmp_path: Path) -> None:
    config = tmp_path / "experiment.textproto"
    config.write_text(format_config(experiment(write_scenes(tmp_path, 2))))
    command = ["train", str(config), "--output", str(tmp_path), "--quiet", "--xla"]
    assert main(command) == 0
    assert (tmp_path / "run" / "ckpt-2.index").is_file()


def test_operations_that_cannot_be_compiled_are_named() -> None:
    @tf.function(jit_compile=True)  # type: ignore[untyped-decorator]
    def unsupported(x: Any) -> Any:
        return tf.strings.length(tf.strings.as_string(x))

    with (
        pytest.raises(UsageError, match=r"XLA cannot compile .*AsString"),
        readable_compile_errors(),
    ):
        unsupported(tf.constant([1, 2]))


def test_other_faults_pass_through() -> None:
    with (
        pytest.raises(tf.errors.InvalidArgumentError),
        readable_compile_errors(),
    ):
        tf.debugging.assert_equal(np.float32(1), np.float32(2))


def test_several_replicas_are_refused() -> None:
    check_replicas(1)
    with pytest.raises(UsageError, match="this run has 2"):
        check_replicas(2)
