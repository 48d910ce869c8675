"""Axial attention against a literal definition and against Keras' own layers."""

import dataclasses
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

from benchmarks.attention import EinsumAttention
from deeplab2_edge.checkpoints import variable_paths
from deeplab2_edge.layers import axial_attention as module
from deeplab2_edge.layers.attention import RelativePositions, TermNormalization
from deeplab2_edge.layers.axial_attention import (
    AttentionOptions,
    AxisAttention,
    axial_attention,
)
from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.layers.recompute import recomputed
from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="train")
tf_keras: Any = require("tf_keras", extra="train")

pytestmark = pytest.mark.tf

Array = NDArray[Any]
PATH = "encoder/_stage4/_block2/_attention"
DEFAULTS = LayerDefaults(batch_norm_momentum=0.75, batch_norm_epsilon=0.01)
SMALL = AttentionOptions(num_heads=2)
POSITIONLESS: dict[str, Any] = {
    "use_query_rpe_similarity": False,
    "use_key_rpe_similarity": False,
    "retrieve_value_rpe": False,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "all": {},
    "sigmoid": {"self_attention_activation": "sigmoid"},
    "content_only": POSITIONLESS,
    "positions_only": {
        "use_content_similarity": False,
        "retrieve_value_content": False,
    },
    "query_only": {"use_content_similarity": False, "use_key_rpe_similarity": False},
    "key_only": {
        "use_content_similarity": False,
        "use_query_rpe_similarity": False,
        "retrieve_value_content": False,
    },
    "wide": {"key_expansion": 2.0, "value_expansion": 4.0},
    "one_head": {"num_heads": 1},
}


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [(7, 10), (8, 5), (1, 6)])
def test_attention_equals_its_definition(size: tuple[int, int], stride: int) -> None:
    model = build(size, stride=stride)
    x = feature(size)
    expected = axial_definition(x, model, 6, SMALL, stride=stride)
    assert_close(model(x, training=False), expected)


@pytest.mark.parametrize("changes", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("training", [False, True])
def test_every_option_equals_its_definition(
    changes: dict[str, Any], training: bool
) -> None:
    options = dataclasses.replace(SMALL, **changes)
    model = build((6, 7), options=options)
    x = feature((6, 7))
    expected = axial_definition(
        x, model, round(6 * options.key_expansion), options, training=training
    )
    assert_close(model(x, training=training), expected)


def test_variables_have_published_names_and_shapes() -> None:
    model = build((5, 4), filters=8, channels=3, options=AttentionOptions())
    shapes = {
        path.removeprefix(f"{PATH}/_height_axis/"): tuple(variable.shape)
        for path, variable in variable_paths(model).items()
        if "_height_axis" in path
    }
    leaves = ("gamma", "beta", "moving_mean", "moving_variance")
    assert shapes == {
        "qkv_kernel": (3, 32),
        "_query_rpe/embeddings": (509, 1),
        "_key_rpe/embeddings": (509, 1),
        "_value_rpe/embeddings": (509, 2),
        **{f"_batch_norm_qkv/{leaf}": (32,) for leaf in leaves},
        **{f"_batch_norm_similarity/{leaf}": (3, 1, 8, 1, 1) for leaf in leaves},
        **{f"_batch_norm_retrieved_output/{leaf}": (2, 1, 8, 1, 2) for leaf in leaves},
    }
    assert len(variable_paths(model)) == 2 * len(shapes)
    assert model.layers[-1].name == f"{PATH}/_width_axis"
    trainable = {variable.name.split("/")[-1] for variable in model.trainable_variables}
    assert trainable == {"qkv_kernel:0", "embeddings:0", "gamma:0", "beta:0"}


def test_disabled_terms_leave_shorter_stacks() -> None:
    changes: dict[str, Any] = {
        "use_query_rpe_similarity": False,
        "retrieve_value_content": False,
    }
    model = build((5, 4), options=dataclasses.replace(SMALL, **changes))
    paths = variable_paths(model)
    axis = f"{PATH}/_width_axis"
    assert paths[f"{axis}/_batch_norm_similarity/gamma"].shape == (2, 1, 2, 1, 1)
    assert paths[f"{axis}/_batch_norm_retrieved_output/gamma"].shape == (1, 1, 2, 1, 6)
    assert f"{axis}/_query_rpe/embeddings" not in paths
    assert f"{axis}/_value_rpe/embeddings" in paths


@pytest.mark.parametrize("axis", ["height", "width"])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_training_step_equals_keras_normalization_of_the_stack(
    axis: str, stride: int
) -> None:
    x = feature((7, 6))
    results = []
    for layer in (AxisAttention, EinsumAttention):
        image = tf_keras.Input((7, 6, 5))
        attention = layer(
            axis,
            6,
            12,
            options=SMALL,
            defaults=DEFAULTS,
            stride=stride,
            name="attention",
        )
        model = tf_keras.Model(image, attention(image))
        randomize(model)
        with tf.GradientTape() as tape:
            source = tf.convert_to_tensor(x)
            tape.watch(source)
            out = model(source, training=True)
            loss = tf.reduce_sum(tf.sin(3.0 * out))
        paths = variable_paths(model)
        trained = [path for path in sorted(paths) if paths[path].trainable]
        gradients = tape.gradient(loss, [source, *(paths[path] for path in trained)])
        result = dict(zip(["x", *trained], gradients, strict=True))
        result = {name: tf.convert_to_tensor(t).numpy() for name, t in result.items()}
        moving = {path: paths[path].numpy() for path in paths if "/moving_" in path}
        results.append({"out": out.numpy(), **result, **moving})
    mine, keras = results
    assert mine.keys() == keras.keys()
    for name, expected in keras.items():
        np.testing.assert_allclose(
            mine[name], expected, atol=3e-5 * (1 + np.abs(expected).max()), err_msg=name
        )
    # A shift of all logits changes nothing; optimizers are told so.
    assert not mine["attention/_batch_norm_similarity/beta"].any()


@pytest.mark.parametrize(
    ("shape", "depth"), [((3, 4, 2, 5, 5), 1), ((2, 4, 2, 5, 3), 3)]
)
def test_term_normalization_equals_keras_batch_normalization(
    shape: tuple[int, ...], depth: int
) -> None:
    stack = 3 * np.random.default_rng(0).standard_normal(shape).astype(np.float32) + 1
    terms, _, heads, _, _ = shape
    axis = [0, 2] if depth == 1 else [0, 2, 4]
    keras = tf_keras.layers.BatchNormalization(axis=axis, momentum=0.75, epsilon=0.01)
    keras.build(shape)
    mine = TermNormalization(terms, heads, depth, momentum=0.75, epsilon=0.01)
    mine.build(None)
    rng = np.random.default_rng(1)
    for theirs, own in zip(keras.variables, mine.variables, strict=True):
        value = np.abs(rng.standard_normal(theirs.shape))
        theirs.assign(value)
        own.assign(value)
    kept = (1, 3) if depth > 1 else (1, 3, 4)
    size = (terms, heads, depth)
    mean = stack.mean(kept).reshape(size)
    variance = stack.var(kept).reshape(size)
    count = tf.constant(float(stack.size // mean.size))

    def normalized(affine: tuple[Any, Any]) -> Array:
        scale, shift = (np.asarray(t)[:, None, :, None] for t in affine)
        result: Array = stack * scale + shift
        return result

    assert_close(normalized(mine.moving_affine()), keras(stack, training=False))
    affine = mine.batch_affine(list(mean), list(variance), count)
    assert_close(normalized(affine), keras(stack, training=True))
    for theirs, own in zip(keras.variables, mine.variables, strict=True):
        np.testing.assert_allclose(own, theirs, rtol=1e-5, atol=1e-6)


def test_frozen_normalization_uses_moving_statistics_in_training() -> None:
    model = build((6, 7))
    x = feature((6, 7))
    expected = model(x, training=False)
    before = {path: v.numpy() for path, v in variable_paths(model).items()}
    for part in model.submodules:
        if "_batch_norm" in part.name:
            part.trainable = False
    assert_close(model(x, training=True), expected)
    for path, variable in variable_paths(model).items():
        np.testing.assert_array_equal(variable, before[path])


def test_recomputation_changes_neither_gradients_nor_moving_statistics() -> None:
    x = tf.constant(feature((6, 7)))
    results = []
    for is_recomputed in (False, True):
        defaults = dataclasses.replace(DEFAULTS, recompute=is_recomputed)

        def attend(image: Any, defaults: LayerDefaults = defaults) -> Any:
            return axial_attention(image, PATH, 6, options=SMALL, defaults=defaults)

        image = tf_keras.Input((6, 7, 5))
        out = recomputed(attend, [image], "r") if is_recomputed else attend(image)
        model = tf_keras.Model(image, out)
        randomize(model)
        paths = variable_paths(model)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.sin(3.0 * model(x, training=True)))
        trained = [paths[path] for path in sorted(paths) if paths[path].trainable]
        gradients = [tf.convert_to_tensor(g) for g in tape.gradient(loss, trained)]
        results.append([*gradients, *(paths[path] for path in sorted(paths))])
    for kept, repeated in zip(*results, strict=True):
        np.testing.assert_allclose(kept, repeated, atol=1e-4, rtol=1e-5)


def test_an_empty_batch_changes_no_statistics() -> None:
    norm = TermNormalization(1, 2)
    norm.build(None)
    zeros = [tf.zeros((2, 1))]
    norm.batch_affine(zeros, zeros, tf.constant(0.0))
    assert np.all(norm.moving_variance.numpy() == 1.0)


@pytest.mark.slow
def test_synchronized_replicas_equal_one_batch() -> None:
    subprocess.run([sys.executable, "-c", _REPLICAS], check=True)


_REPLICAS = """
import numpy as np
import tensorflow as tf
import tf_keras
from deeplab2_edge.layers.axial_attention import AttentionOptions, axial_attention
from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.layers.recompute import recomputed

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)
defaults = LayerDefaults(batch_norm_momentum=0.5, synchronize_batch_norm=True)
x = np.random.default_rng(0).standard_normal((4, 5, 6, 8)).astype(np.float32)


def run(strategy):
    tf_keras.utils.set_random_seed(1)
    with strategy.scope():
        image = tf_keras.Input((5, 6, 8))
        out = axial_attention(
            image,
            "attention",
            16,
            options=AttentionOptions(),
            defaults=defaults,
        )
        model = tf_keras.Model(image, out)
        dataset = tf.data.Dataset.from_tensors(x).unbatch().batch(4)
        train = lambda x: model(x, training=True)
        step = tf.function(lambda x: strategy.run(train, [x]))
        for batch in strategy.experimental_distribute_dataset(dataset):
            parts = strategy.experimental_local_results(step(batch))
    return np.concatenate(parts), [v.numpy() for v in model.variables]


one = run(tf.distribute.MirroredStrategy(["CPU:0"]))
two = run(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
np.testing.assert_allclose(one[0], two[0], atol=1e-4)
for a, b in zip(one[1], two[1], strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)
"""


@pytest.mark.parametrize("training", [False, True])
def test_half_precision_stays_near_full_precision(training: bool) -> None:
    # In training the scale of the input does not matter, unless something overflows.
    x = feature((6, 7)) * (1000.0 if training else 1.0)
    expected = build((6, 7))(x, training=training)
    tf_keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = build((6, 7))
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    out = model(x, training=training)
    assert out.dtype == tf.float16
    assert all(variable.dtype == tf.float32 for variable in model.variables)
    assert_close(tf.cast(out, tf.float32), expected, tolerance=0.05)


@pytest.mark.parametrize("trained_length", [None, 300])
def test_long_axes_equal_their_definition(trained_length: int | None) -> None:
    options = AttentionOptions(num_heads=1)
    trained_size = (2, trained_length) if trained_length else None
    model = build((1, 270), filters=2, options=options, trained_size=trained_size)
    x = feature((1, 270), batch=1)
    expected = axial_definition(
        x, model, 2, options, trained_size=trained_size or (None, None)
    )
    assert_close(model(x, training=False), expected)


def test_weights_of_another_size_see_the_same_relative_extents() -> None:
    table = RelativePositions(1, 1.0, name="table")
    table.build(None)
    table.embeddings.assign(np.arange(-254.0, 255.0)[:, None])
    distances = np.arange(-8, 9)
    # From 9 pixels to 5: half the distance reads the same row.
    at_9 = table.vectors(distances)[..., 0].numpy()
    at_5 = table.vectors(np.arange(-4, 5), 8 / 4)[..., 0].numpy()
    np.testing.assert_array_equal(at_9, distances)
    np.testing.assert_array_equal(at_5, at_9[::2])
    # From 9 to 17: every second distance lies between two rows.
    at_17 = table.vectors(np.arange(-16, 17), 8 / 16)[..., 0].numpy()
    np.testing.assert_allclose(at_17, np.arange(-8, 8.1, 0.5))
    far = table.vectors(np.array([-300, -254, 254, 300]))[..., 0].numpy()
    np.testing.assert_array_equal(far, [-254, -254, 254, 254])


LOCAL = {
    "within_one_block": ((9, 20), 3),
    "whole_axis": ((4, 8), 7),
    "longer_than_the_axis": ((3, 5), 50),
    "blocks": ((2, 85), 3),
    "blocks_exactly": ((2, 96), 5),
    "blocks_of_the_span": ((1, 250), 40),
    "blocks_along_the_height": ((75, 2), 2),
}


@pytest.mark.parametrize(("size", "span"), LOCAL.values(), ids=LOCAL)
@pytest.mark.parametrize("training", [False, True])
def test_local_attention_equals_its_definition(
    size: tuple[int, int], span: int, training: bool
) -> None:
    options = AttentionOptions(num_heads=1, span=span)
    model = build(size, filters=2, options=options)
    x = feature(size)
    expected = axial_definition(x, model, 2, options, training=training)
    assert_close(model(x, training=training), expected)


@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_strided_local_attention_equals_its_definition(
    stride: int, activation: str
) -> None:
    options = AttentionOptions(
        num_heads=1, span=4, self_attention_activation=activation
    )
    for training in (False, True):
        model = build((2, 95), filters=2, options=options, stride=stride)
        x = feature((2, 95))
        expected = axial_definition(
            x, model, 2, options, stride=stride, training=training
        )
        assert_close(model(x, training=training), expected)


def test_blocks_of_local_attention_have_the_gradients_of_one_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = tf.constant(feature((2, 95)))
    results = []
    for min_block in (8, 1000):
        monkeypatch.setattr(module, "_MIN_BLOCK", min_block)
        model = build((2, 95), options=dataclasses.replace(SMALL, span=5))
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.sin(3.0 * model(x, training=True)))
        gradients = tape.gradient(loss, [x, *model.trainable_variables])
        results.append([tf.convert_to_tensor(g).numpy() for g in gradients])
    for blocks, one in zip(*results, strict=True):
        np.testing.assert_allclose(blocks, one, atol=1e-4 * (1 + np.abs(one).max()))


def test_local_attention_needs_memory_in_proportion_to_the_length() -> None:
    options = AttentionOptions(num_heads=1, span=8)
    largest = [
        max(
            int(np.prod(shape))
            for shape in tensor_shapes(build((1, length), 2, options=options))
        )
        for length in (300, 600)
    ]
    assert largest[1] < 2.2 * largest[0]


@pytest.mark.parametrize("span", [None, 3])
def test_no_tensor_has_more_than_four_axes(span: int | None) -> None:
    model = build((3, 90), options=dataclasses.replace(SMALL, span=span), stride=2)
    assert max(len(shape) for shape in tensor_shapes(model)) == 4


def test_a_model_can_be_rebuilt_from_its_configuration() -> None:
    options = dataclasses.replace(SMALL, span=2)
    model = build((6, 7), options=options, stride=2, trained_size=(9, 9))
    copy = tf_keras.Model.from_config(model.get_config())
    copy.set_weights(model.get_weights())
    x = feature((6, 7))
    np.testing.assert_array_equal(copy(x), model(x))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {
                "use_content_similarity": False,
                "use_query_rpe_similarity": False,
                "use_key_rpe_similarity": False,
            },
            "use_key_rpe_similarity",
        ),
        (
            {"retrieve_value_content": False, "retrieve_value_rpe": False},
            "retrieve_value_content",
        ),
        ({"self_attention_activation": "relu"}, "self_attention_activation is 'relu'"),
        ({"span": 0}, "span is 0"),
        ({"num_heads": 0}, "num_heads is 0"),
    ],
)
def test_impossible_options_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AttentionOptions(**changes)


def test_depths_that_heads_cannot_share_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be split among 4 heads"):
        build((4, 4), filters=6, options=AttentionOptions(num_heads=4))
    with pytest.raises(ValueError, match="axis is 'depth'"):
        AxisAttention("depth", 4, 4, options=SMALL, defaults=DEFAULTS)


def build(
    size: tuple[int, int], filters: int = 6, channels: int = 5, **arguments: Any
) -> Any:
    arguments = {"options": SMALL, "defaults": DEFAULTS, **arguments}
    image = tf_keras.Input((*size, channels))
    model = tf_keras.Model(image, axial_attention(image, PATH, filters, **arguments))
    randomize(model)
    return model


def randomize(model: Any) -> None:
    rng = np.random.default_rng(0)
    for path, variable in sorted(variable_paths(model).items()):
        value = rng.standard_normal(variable.shape)
        if path.endswith("gamma"):
            value = 1 + 0.3 * value
        elif path.endswith("variance"):
            value = 0.5 + np.abs(value)
        else:
            value = 0.4 * value
        variable.assign(value.astype(np.float32))


def feature(size: tuple[int, int], batch: int = 2) -> Array:
    rng = np.random.default_rng(1)
    return rng.standard_normal((batch, *size, 5)).astype(np.float32)


def tensor_shapes(model: Any) -> list[tuple[int, ...]]:
    """Returns the shapes of all tensors of inference on one image."""
    function = tf.function(lambda x: model(x, training=False))
    graph = function.get_concrete_function(
        tf.TensorSpec((1, *model.input_shape[1:]), tf.float32)
    ).graph
    # Parameters have the rank of published checkpoints, until they are squeezed.
    shapes = [
        tensor.shape
        for operation in graph.get_operations()
        for tensor in operation.outputs
        if operation.type != "ReadVariableOp"
    ]
    return [tuple(shape) for shape in shapes if shape.is_fully_defined()]


def axial_definition(
    x: Array,
    model: Any,
    key_depth: int,
    options: AttentionOptions,
    *,
    stride: int = 1,
    trained_size: Sequence[int | None] = (None, None),
    training: bool = False,
) -> Array:
    variables = {p: v.numpy() for p, v in variable_paths(model).items()}
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
            training=training,
        )
        x = x.reshape(batch, other, length, -1)[:, :, ::stride]
        if axis == "height":
            x = x.transpose(0, 2, 1, 3)
    return x


def definition(
    x: Array,
    variables: Mapping[str, Array],
    path: str,
    key_depth: int,
    options: AttentionOptions,
    *,
    trained_length: int | None = None,
    training: bool = False,
) -> Array:
    """Computes attention on sequences `[N, L, C]`, pair by pair, in float64."""
    v = {
        name.removeprefix(f"{path}/"): value.astype(np.float64)
        for name, value in variables.items()
        if name.startswith(f"{path}/")
    }
    count, length, _ = x.shape
    heads = options.num_heads

    def norm(values: Array, name: str, index: Any, axes: Any) -> Array:
        gamma, beta, mean, variance = (
            v[f"{name}/{leaf}"][index].reshape(-1)
            for leaf in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        if training:
            mean, variance = np.nanmean(values, axes), np.nanvar(values, axes)
        scale = gamma / np.sqrt(variance + DEFAULTS.batch_norm_epsilon)
        result: Array = scale * (values - mean) + beta
        return result

    def row(table: Array, distance: int) -> Array:
        place = float(distance)
        if trained_length is not None and length > 1:
            place *= (trained_length - 1) / (length - 1)
        place = min(max(place, -254.0), 254.0) + 254.0
        low = int(place)
        high = min(low + 1, 508)
        result: Array = table[low] * (low + 1 - place) + table[high] * (place - low)
        return result

    z = norm(
        x.astype(np.float64) @ v["qkv_kernel"], "_batch_norm_qkv", slice(None), (0, 1)
    )
    q, k, value = (
        np.split(part, heads, axis=-1)
        for part in np.split(z, [key_depth, 2 * key_depth], axis=-1)
    )
    # Not a number where a query does not see a key.
    nothing = np.full((count, length, length), np.nan)
    seen = [
        (i, m)
        for i in range(length)
        for m in range(length)
        if options.span is None or abs(m - i) <= options.span
    ]
    vectors = {
        name: {m - i: row(v[f"_{name}_rpe/embeddings"], m - i) for i, m in seen}
        for name in ("query", "key", "value")
        if f"_{name}_rpe/embeddings" in v
    }
    out = []
    for head in range(heads):
        content, query, key = nothing.copy(), nothing.copy(), nothing.copy()
        for i, m in seen:
            content[:, i, m] = (q[head][:, i] * k[head][:, m]).sum(-1)
            if options.use_query_rpe_similarity:
                query[:, i, m] = q[head][:, i] @ vectors["query"][m - i]
            if options.use_key_rpe_similarity:
                key[:, i, m] = k[head][:, m] @ vectors["key"][m - i]
        terms = [content] * options.use_content_similarity
        terms += [query] * options.use_query_rpe_similarity
        terms += [key] * options.use_key_rpe_similarity
        logits = sum(
            norm(term, "_batch_norm_similarity", (s, 0, head), None)
            for s, term in enumerate(terms)
        )
        if options.self_attention_activation == "softmax":
            weights = np.exp(logits - np.nanmax(logits, axis=-1, keepdims=True))
            weights = weights / np.nansum(weights, axis=-1, keepdims=True)
        else:
            weights = 1 / (1 + np.exp(-logits))
        by_content = np.zeros_like(value[head])
        by_position = np.zeros_like(value[head])
        for i, m in seen:
            by_content[:, i] += weights[:, i, m, None] * value[head][:, m]
            if options.retrieve_value_rpe:
                by_position[:, i] += weights[:, i, m, None] * vectors["value"][m - i]
        retrieved = [by_content] * options.retrieve_value_content
        retrieved += [by_position] * options.retrieve_value_rpe
        out.append(
            sum(
                norm(term, "_batch_norm_retrieved_output", (s, 0, head), (0, 1))
                for s, term in enumerate(retrieved)
            )
        )
    return np.concatenate(out, axis=-1)


def assert_close(mine: Any, expected: Any, tolerance: float = 3e-5) -> None:
    mine, expected = np.asarray(mine), np.asarray(expected)
    assert mine.shape == expected.shape
    scale = expected.std() or 1.0
    np.testing.assert_allclose(mine / scale, expected / scale, atol=tolerance, rtol=0)
