"""Networks that compute their activations again for the gradient."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

import tensorflow as tf
import tf_keras

from deeplab2_edge.backbones.residual import Network, Stage, build_network
from deeplab2_edge.checkpoints import variable_paths
from deeplab2_edge.layers.axial_block import Transformer, axial, basic, bottleneck
from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.layers.dropout import Replayable
from deeplab2_edge.layers.dual_path import memory_feature
from deeplab2_edge.layers.dual_path_options import DualPathOptions
from deeplab2_edge.layers.recompute import Recompute

pytestmark = pytest.mark.tf

HYBRID = Network(
    (
        Stage("_stage2", (bottleneck(8, stride=2), basic(8, use_sac=True))),
        Stage(
            "_stage3",
            (
                axial(8, stride=2, keep_prob=0.5),
                axial(
                    8,
                    keep_prob=0.5,
                    transformer=Transformer(
                        8, DualPathOptions(feed_forward_network_channels=16)
                    ),
                ),
            ),
        ),
    ),
    stem="resnet_beta",
)


def build(*, recompute: bool) -> Any:
    image = tf_keras.Input((17, 25, 3), batch_size=4)
    endpoints, memory = build_network(
        image,
        HYBRID,
        defaults=LayerDefaults(recompute=recompute),
        memory=memory_feature(image, "encoder", 5, 16),
    )
    model = tf_keras.Model(image, [endpoints["res3"], memory])
    random = np.random.default_rng(0)
    for path, variable in sorted(variable_paths(model).items()):
        low, high = (0.5, 1.5) if path.endswith(("gamma", "variance")) else (-0.3, 0.3)
        variable.assign(random.uniform(low, high, variable.shape))
    for layer in model.submodules:
        if isinstance(layer, Replayable):
            layer.seed_source = lambda: tf.constant(3, tf.int64)
    return model


def learn(model: Any, *, compiled: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns gradients, and variables after the pass, by path."""
    image = np.random.default_rng(1).normal(size=(4, 17, 25, 3)).astype(np.float32)

    def step() -> Any:
        with tf.GradientTape() as tape:
            feature, memory = model(image, training=True)
            loss = tf.reduce_mean(feature**2) + tf.reduce_mean(memory**2)
        return tape.gradient(loss, model.trainable_weights)

    gradients = (tf.function(step) if compiled else step)()
    paths = {id(v): path for path, v in variable_paths(model).items()}
    named = {
        # Rows of a table come as slices.
        paths[id(v)]: tf.convert_to_tensor(g).numpy()
        for v, g in zip(model.trainable_weights, gradients, strict=True)
    }
    return named, {p: v.numpy() for p, v in variable_paths(model).items()}


@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_and_statistics_equal_those_of_the_plain_network(
    compiled: bool,
) -> None:
    plain, recomputed = build(recompute=False), build(recompute=True)
    assert any(isinstance(layer, Recompute) for layer in recomputed.layers)
    expected_gradients, expected_state = learn(plain, compiled=compiled)
    gradients, state = learn(recomputed, compiled=compiled)
    assert gradients.keys() == expected_gradients.keys()
    assert state.keys() == expected_state.keys()
    for path, value in expected_state.items():
        np.testing.assert_allclose(
            state[path], value, rtol=1e-4, atol=1e-5, err_msg=path
        )
    for path, value in expected_gradients.items():
        tolerance = 2e-4 * max(np.abs(value).max(), 1e-3)
        np.testing.assert_allclose(gradients[path], value, atol=tolerance, err_msg=path)


def test_inference_is_the_same() -> None:
    image = np.random.default_rng(1).normal(size=(4, 17, 25, 3)).astype(np.float32)
    for mine, plain in zip(
        build(recompute=True)(image), build(recompute=False)(image), strict=True
    ):
        np.testing.assert_allclose(mine, plain, atol=1e-5)


def test_masks_without_a_seed_are_refused() -> None:
    model = build(recompute=True)
    for layer in model.submodules:
        if isinstance(layer, Replayable):
            layer.seed_source = None
    with pytest.raises(ValueError, match="set its seed_source"):
        learn(model, compiled=False)
