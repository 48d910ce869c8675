"""Axial attention against a literal definition and against Keras' own layers."""

import dataclasses
from typing import Any

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
tf_keras = pytest.importorskip("tf_keras")

from deeplab2_edge.checkpoints import variable_paths
from deeplab2_edge.layers.axial_attention import (
    AttentionOptions,
    AxisAttention,
    axial_attention,
)
from deeplab2_edge.layers.defaults import LayerDefaults

pytestmark = pytest.mark.tf

PATH = "encoder/_stage4/_block2/_attention"
DEFAULTS = LayerDefaults()
SMALL = AttentionOptions(num_heads=2)
POSITIONLESS = {
    "use_query_rpe_similarity": False,
    "use_key_rpe_similarity": False,
    "retrieve_value_rpe": False,
}


def build(size, filters=6, channels=5, **arguments: Any):
    arguments = {"options": SMALL, "defaults": DEFAULTS, **arguments}
    image = tf_keras.Input((*size, channels))
    model = tf_keras.Model(image, axial_attention(image, PATH, filters, **arguments))
    randomize(model)
    return model


def randomize(model, seed=0) -> None:
    rng = np.random.default_rng(seed)
    for path, variable in sorted(variable_paths(model).items()):
        value = rng.standard_normal(variable.shape)
        if path.endswith("gamma"):
            value = 1 + 0.3 * value
        elif path.endswith("variance"):
            value = 0.5 + np.abs(value)
        else:
            value = 0.4 * value
        variable.assign(value.astype(np.float32))


def feature(size, channels=5, batch=2, seed=1):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((batch, *size, channels)).astype(np.float32)


def definition(
    x,
    variables,
    path,
    key_depth,
    options,
    epsilon=0.001,
    trained_length=None,
):
    """Computes attention on sequences `[N, L, C]`, one query at a time, in float64."""
    v = {
        name.removeprefix(f"{path}/"): variable.numpy().astype(np.float64)
        for name, variable in variables.items()
        if name.startswith(f"{path}/")
    }

    def norm(values, name, index):
        gamma, beta, mean, variance = (
            v[f"{name}/{leaf}"][index].squeeze()
            for leaf in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return gamma / np.sqrt(variance + epsilon) * (values - mean) + beta

    count, length, _ = x.shape
    heads = options.num_heads
    z = norm(x.astype(np.float64) @ v["qkv_kernel"], "_batch_norm_qkv", slice(None))
    q, k, val = np.split(z, [key_depth, 2 * key_depth], axis=-1)
    depth, value_depth = key_depth // heads, val.shape[-1] // heads

    def row(table, distance):
        if trained_length is None or length == 1:
            return table[np.clip(distance, -254, 254) + 254]
        place = distance * (trained_length - 1) / (length - 1) + 254
        place = np.clip(place, 0, 508)
        low = int(np.floor(place))
        high = min(low + 1, 508)
        return table[low] * (low + 1 - place) + table[high] * (place - low)

    out = np.zeros((count, length, val.shape[-1]))
    for n in range(count):
        for head in range(heads):
            channels = slice(head * depth, (head + 1) * depth)
            qh, kh = q[n, :, channels], k[n, :, channels]
            vh = val[n, :, head * value_depth : (head + 1) * value_depth]
            for query in range(length):
                seen = [
                    m
                    for m in range(length)
                    if options.span is None or abs(m - query) <= options.span
                ]
                terms = []
                if options.use_content_similarity:
                    terms.append([qh[query] @ kh[m] for m in seen])
                if options.use_query_rpe_similarity:
                    table = v["_query_rpe/embeddings"]
                    terms.append([qh[query] @ row(table, m - query) for m in seen])
                if options.use_key_rpe_similarity:
                    table = v["_key_rpe/embeddings"]
                    terms.append([kh[m] @ row(table, m - query) for m in seen])
                logits = sum(
                    norm(np.array(term), "_batch_norm_similarity", (s, 0, head))
                    for s, term in enumerate(terms)
                )
                if options.self_attention_activation == "softmax":
                    weights = np.exp(logits - logits.max())
                    weights /= weights.sum()
                else:
                    weights = 1 / (1 + np.exp(-logits))
                retrieved = []
                if options.retrieve_value_content:
                    retrieved.append(weights @ vh[seen])
                if options.retrieve_value_rpe:
                    table = v["_value_rpe/embeddings"]
                    rows = np.array([row(table, m - query) for m in seen])
                    retrieved.append(weights @ rows)
                out[n, query, head * value_depth : (head + 1) * value_depth] = sum(
                    norm(term, "_batch_norm_retrieved_output", (s, 0, head))
                    for s, term in enumerate(retrieved)
                )
    return out


def axial_definition(x, model, key_depth, options, stride=1, trained_size=(None, None)):
    variables = variable_paths(model)
    for number, axis in enumerate(("height", "width")):
        if axis == "height":
            x = x.transpose(0, 2, 1, 3)
        batch, other, length, channels = x.shape
        x = definition(
            x.reshape(-1, length, channels),
            variables,
            f"{PATH}/_{axis}_axis",
            key_depth,
            options,
            trained_length=trained_size[number],
        )
        x = x.reshape(batch, other, length, -1)[:, :, ::stride]
        if axis == "height":
            x = x.transpose(0, 2, 1, 3)
    return x


OPTIONS = {
    "all": {},
    "sigmoid": {"self_attention_activation": "sigmoid"},
    "content only": POSITIONLESS,
    "positions only": {
        "use_content_similarity": False,
        "retrieve_value_content": False,
    },
    "query only": {
        "use_content_similarity": False,
        "use_key_rpe_similarity": False,
    },
    "key only": {
        "use_content_similarity": False,
        "use_query_rpe_similarity": False,
        "retrieve_value_content": False,
    },
    "wide": {"key_expansion": 2.0, "value_expansion": 4.0},
}


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(7, 10), (8, 5), (1, 6)])
def test_attention_equals_its_definition(size, stride) -> None:
    model = build(size, stride=stride)
    x = feature(size)
    expected = axial_definition(x, model, 6, SMALL, stride)
    assert_close(model(x, training=False), expected)


@pytest.mark.parametrize("changes", OPTIONS.values(), ids=OPTIONS)
def test_every_option_equals_its_definition(changes) -> None:
    options = dataclasses.replace(SMALL, **changes)
    model = build((6, 7), options=options)
    x = feature((6, 7))
    expected = axial_definition(x, model, round(6 * options.key_expansion), options)
    assert_close(model(x, training=False), expected)


def assert_close(mine, expected, tolerance=2e-5) -> None:
    mine, expected = np.asarray(mine), np.asarray(expected)
    assert mine.shape == expected.shape
    scale = expected.std() or 1.0
    np.testing.assert_allclose(mine / scale, expected / scale, atol=tolerance, rtol=0)
