"""Global attention against a literal definition."""

import dataclasses
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

from deeplab2_edge.checkpoints import variable_paths
from deeplab2_edge.layers.attention import AttentionOptions
from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.layers.global_attention import global_attention
from deeplab2_edge.optional import require

tf_keras: Any = require("tf_keras", extra="train")

pytestmark = pytest.mark.tf

PATH = "encoder/_stage5/_block1/_attention"
OPTIONS = AttentionOptions(
    num_heads=2,
    use_query_rpe_similarity=False,
    use_key_rpe_similarity=False,
    retrieve_value_rpe=False,
)


def test_every_pixel_attends_to_every_other() -> None:
    model = build(stride=2)
    x = np.random.default_rng(1).standard_normal((2, 3, 5, 4)).astype(np.float32)
    expected = definition(x.reshape(2, 15, 4), model, "_global").reshape(2, 3, 5, 12)
    out = model(x, training=False).numpy()
    assert out.shape == (2, 2, 3, 12)
    np.testing.assert_allclose(out, expected[:, ::2, ::2], atol=1e-4)


def test_two_layers_follow_each_other() -> None:
    model = build(options=dataclasses.replace(OPTIONS, double_global_attention=True))
    x = np.random.default_rng(1).standard_normal((1, 3, 5, 4)).astype(np.float32)
    once = definition(x.reshape(1, 15, 4), model, "_global")
    expected = definition(once, model, "_global2").reshape(1, 3, 5, 12)
    np.testing.assert_allclose(model(x, training=False), expected, atol=1e-4)


def test_variables_have_published_names_and_shapes() -> None:
    model = build()
    shapes = {path: tuple(v.shape) for path, v in variable_paths(model).items()}
    leaves = ("gamma", "beta", "moving_mean", "moving_variance")
    path = f"{PATH}/_global"
    assert shapes == {
        f"{path}/qkv_kernel": (4, 24),
        **{f"{path}/_batch_norm_qkv/{leaf}": (24,) for leaf in leaves},
        **{f"{path}/_batch_norm_similarity/{leaf}": (1, 1, 2, 1, 1) for leaf in leaves},
        **{
            f"{path}/_batch_norm_retrieved_output/{leaf}": (1, 1, 2, 1, 6)
            for leaf in leaves
        },
    }


def test_training_normalizes_by_the_batch() -> None:
    model = build()
    for path, variable in variable_paths(model).items():
        if path.endswith("_batch_norm_retrieved_output/gamma"):
            variable.assign(np.ones(variable.shape))
        if path.endswith("_batch_norm_retrieved_output/beta"):
            variable.assign(np.zeros(variable.shape))
    x = np.random.default_rng(1).standard_normal((2, 3, 5, 4)).astype(np.float32)
    out = model(100.0 * x, training=True).numpy()
    np.testing.assert_allclose(out.mean((0, 1, 2)), 0.0, atol=1e-4)
    np.testing.assert_allclose(out.std((0, 1, 2)), 1.0, atol=0.1)


def test_relative_positions_and_spans_are_refused() -> None:
    names = "use_query_rpe_similarity, use_key_rpe_similarity, retrieve_value_rpe"
    with pytest.raises(ValueError, match=names):
        build(options=AttentionOptions(num_heads=2))
    with pytest.raises(ValueError, match="retrieve_value_rpe must be False"):
        build(options=dataclasses.replace(OPTIONS, retrieve_value_rpe=True))
    with pytest.raises(ValueError, match="span is 4"):
        build(options=dataclasses.replace(OPTIONS, span=4))


def build(options: AttentionOptions = OPTIONS, stride: int = 1) -> Any:
    image = tf_keras.Input((3, 5, 4))
    out = global_attention(
        image, PATH, 6, options=options, defaults=LayerDefaults(), stride=stride
    )
    model = tf_keras.Model(image, out)
    rng = np.random.default_rng(0)
    for variable in model.variables:
        value = 0.4 * rng.standard_normal(variable.shape)
        positive = "gamma" in variable.name or "variance" in variable.name
        variable.assign(0.5 + np.abs(value) if positive else value)
    return model


def definition(x: Any, model: Any, edge: str) -> Any:
    v = {
        path.removeprefix(f"{PATH}/{edge}/"): variable.numpy().astype(np.float64)
        for path, variable in variable_paths(model).items()
    }

    def norm(values: Any, name: str, index: Any) -> Any:
        gamma, beta, mean, variance = (
            v[f"{name}/{leaf}"][index].reshape(-1)
            for leaf in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return gamma * (values - mean) / np.sqrt(variance + 0.001) + beta

    z = norm(x @ v["qkv_kernel"], "_batch_norm_qkv", slice(None))
    out = np.zeros((*x.shape[:2], 12))
    for image in range(len(x)):
        for head in range(2):
            query = z[image, :, 3 * head : 3 * head + 3]
            key = z[image, :, 6 + 3 * head : 9 + 3 * head]
            value = z[image, :, 12 + 6 * head : 18 + 6 * head]
            logits = norm(query @ key.T, "_batch_norm_similarity", (0, 0, head))
            weights = np.exp(logits)
            weights /= weights.sum(axis=1, keepdims=True)
            out[image, :, 6 * head : 6 * head + 6] = norm(
                weights @ value, "_batch_norm_retrieved_output", (0, 0, head)
            )
    return out
