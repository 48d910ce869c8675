"""The dual-path transformer against its equations, written out in NumPy."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

from deeplab2_edge.checkpoints import load_weights, save_weights, variable_paths
from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.layers.dropout import DropPath
from deeplab2_edge.layers.dual_path import (
    MAX_SLOTS,
    DualPathOptions,
    MemoryFeature,
    dual_path_transformer,
    memory_feature,
)
from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="train")
tf_keras: Any = require("tf_keras", extra="train")

pytestmark = pytest.mark.tf

Array = NDArray[Any]
PATH = "encoder/_stage5/_block1_transformer"
EPSILON = 0.01
DEFAULTS = LayerDefaults(batch_norm_momentum=0.75, batch_norm_epsilon=EPSILON)
HEIGHT, WIDTH, PIXEL_CHANNELS = 3, 5, 10
SLOTS, MEMORY_CHANNELS = 6, 12
BASE = 16
OPTIONS = DualPathOptions(
    num_heads=4,
    bottleneck_expansion=2,
    key_expansion=1,
    value_expansion=2,
    feed_forward_network_channels=20,
)
VARIANTS = {
    "default": OPTIONS,
    "sigmoid": dataclasses.replace(OPTIONS, transformer_activation="sigmoid"),
    "pixel_keys_only": dataclasses.replace(OPTIONS, use_memory_self_attention=False),
    "no_feedback": dataclasses.replace(
        OPTIONS, use_pixel2memory_feedback_attention=False
    ),
    "memory_reads_pixels_only": dataclasses.replace(
        OPTIONS,
        use_memory_self_attention=False,
        use_pixel2memory_feedback_attention=False,
    ),
    "other_widths": dataclasses.replace(
        OPTIONS, num_heads=2, bottleneck_expansion=3, key_expansion=2, value_expansion=1
    ),
}


def build(
    options: DualPathOptions = OPTIONS,
    *,
    keep_prob: float = 1.0,
    batch: int | None = None,
    defaults: LayerDefaults = DEFAULTS,
) -> Any:
    pixels = tf_keras.Input((HEIGHT, WIDTH, PIXEL_CHANNELS), batch_size=batch)
    memory = tf_keras.Input((SLOTS, MEMORY_CHANNELS), batch_size=batch)
    outputs = dual_path_transformer(
        pixels,
        memory,
        PATH,
        BASE,
        options=options,
        defaults=defaults,
        keep_prob=keep_prob,
    )
    return tf_keras.Model([pixels, memory], list(outputs))


def randomize(model: Any, seed: int = 0) -> dict[str, Array]:
    """Gives every variable a value that would show if it were misread."""
    generator = np.random.default_rng(seed)
    values = {}
    for path, variable in sorted(variable_paths(model).items()):
        value = generator.normal(size=variable.shape)
        if path.endswith("moving_variance"):
            value = 0.5 + np.abs(value)
        elif path.endswith("gamma"):
            value = 1.0 + 0.3 * value
        elif path.endswith("kernel"):
            value = value / np.sqrt(variable.shape[-2])
        variable.assign(value)
        values[path] = value.astype(np.float32).astype(np.float64)
    return values


def inputs(batch: int, seed: int = 1) -> list[Array]:
    generator = np.random.default_rng(seed)
    shapes = (
        (batch, HEIGHT, WIDTH, PIXEL_CHANNELS),
        (batch, SLOTS, MEMORY_CHANNELS),
    )
    return [generator.normal(size=shape).astype(np.float32) for shape in shapes]


@dataclasses.dataclass
class Equations:
    """Is the definition, head by head, in float64.

    Attributes:
        weights: Value of each variable.
        options: Of the transformer.
        training: Normalize by the statistics of the batch.
        seen: Those statistics (mean, variance), by the path of the moving ones.
    """

    weights: Mapping[str, Array]
    options: DualPathOptions
    training: bool = False
    seen: dict[str, Array] = dataclasses.field(default_factory=dict)

    def normalize(self, x: Array, name: str, part: Any = ...) -> Array:
        """Normalizes `x`, of whose last axis each entry has its own statistics.

        Args:
            x: `[..., C]`.
            name: Path of the norm below the transformer.
            part: Entries of the variables that belong to `x`.
        """
        value = {
            leaf: self.weights[f"{PATH}/{name}/{leaf}"][part]
            for leaf in ("gamma", "beta", "moving_mean", "moving_variance")
        }
        mean, variance = value["moving_mean"], value["moving_variance"]
        if self.training:
            axes = tuple(range(x.ndim - 1))
            mean, variance = x.mean(axis=axes), x.var(axis=axes)
            for leaf, now in (("moving_mean", mean), ("moving_variance", variance)):
                path = f"{PATH}/{name}/{leaf}"
                self.seen.setdefault(path, np.empty_like(self.weights[path]))
                self.seen[path][part] = now
        scale = value["gamma"] / np.sqrt(variance + EPSILON)
        return np.asarray((x - mean) * scale + value["beta"])

    def linear(self, x: Array, name: str) -> Array:
        kernel = self.weights[f"{PATH}/{name}/_conv/kernel"][0]
        return self.normalize(x @ kernel, f"{name}/_batch_norm")

    def attend(self, name: str, q: Array, k: Array, v: Array) -> Array:
        """Maps `[B, L, Dk]`, `[B, M, Dk]`, `[B, M, Dv]` to `[B, L, Dv]`."""
        heads = self.options.num_heads
        outputs = []
        for head in range(heads):
            qh, kh, vh = (np.split(part, heads, axis=2)[head] for part in (q, k, v))
            logits = np.einsum("bld,bmd->blm", qh, kh)[..., None]
            # One mean and variance for all logits of a head.
            logits = self.normalize(
                logits, f"{name}/_batch_norm_similarity", slice(head, head + 1)
            )[..., 0]
            if self.options.transformer_activation == "softmax":
                exponentials = np.exp(logits - logits.max(axis=2, keepdims=True))
                attention = exponentials / exponentials.sum(axis=2, keepdims=True)
            else:
                attention = 1 / (1 + np.exp(-logits))
            output = self.normalize(
                attention @ vh, f"{name}/_batch_norm_retrieved_value", (0, head, 0)
            )
            outputs.append(relu(output))
        return np.concatenate(outputs, axis=2)

    def __call__(self, pixels: Array, memory: Array) -> tuple[Array, Array]:
        options = self.options
        feedback = options.use_pixel2memory_feedback_attention
        dk = BASE * options.key_expansion
        p = relu(pixels).reshape(len(pixels), -1, pixels.shape[-1])
        p = relu(self.linear(p, "_pixel_conv1_bn_act"))
        m = relu(self.linear(memory, "_memory_conv1_bn_act"))
        p = self.linear(p, "_pixel_qkv_conv_bn")
        m = self.linear(m, "_memory_qkv_conv_bn")
        # Pixels that ask nothing have no queries.
        qp, kp, vp = np.split(p, [dk, 2 * dk] if feedback else [0, dk], axis=2)
        # Empty where nobody reads the memory.
        qm, km, vm = np.split(m, [dk, 2 * dk], axis=2)
        keys, values = kp, vp
        if options.use_memory_self_attention:
            keys = np.concatenate([kp, km], axis=1)
            values = np.concatenate([vp, vm], axis=1)
        t = self.attend("_memory_attention", qm, keys, values)
        attended = relu(memory + self.linear(t, "_memory_conv3_bn"))
        f = relu(self.linear(attended, "_memory_ffn_conv1_bn_act"))
        new_memory = relu(attended + self.linear(f, "_memory_ffn_conv2_bn"))
        if not feedback:
            return pixels, new_memory
        u = self.attend("_pixel_attention", qp, km, vm)
        u = self.linear(u, "_pixel_conv3_bn")
        return pixels + u.reshape(pixels.shape), new_memory


def relu(x: Array) -> Array:
    return np.asarray(np.maximum(x, 0))


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
def test_outputs_are_those_of_the_equations(
    options: DualPathOptions, batch: int
) -> None:
    model = build(options, batch=batch if batch == 1 else None)
    equations = Equations(randomize(model), options)
    pixels, memory = inputs(batch)
    found = model([pixels, memory], training=False)
    for mine, theirs in zip(found, equations(pixels, memory), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
def test_training_uses_and_remembers_the_statistics_of_the_batch(
    options: DualPathOptions, batch: int
) -> None:
    model = build(options)
    equations = Equations(randomize(model), options, training=True)
    pixels, memory = inputs(batch)
    found = model([pixels, memory], training=True)
    for mine, theirs in zip(found, equations(pixels, memory), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-4, rtol=1e-4)
    moving = {p: v for p, v in variable_paths(model).items() if "/moving_" in p}
    assert moving.keys() == equations.seen.keys()
    for path, variable in moving.items():
        wanted = 0.75 * equations.weights[path] + 0.25 * equations.seen[path]
        np.testing.assert_allclose(variable, wanted, atol=1e-4, err_msg=path)


def test_synchronized_statistics_are_the_same_on_one_device() -> None:
    models = [
        build(defaults=dataclasses.replace(DEFAULTS, synchronize_batch_norm=sync))
        for sync in (False, True)
    ]
    for model in models:
        randomize(model)
    results = [model(inputs(2), training=True) for model in models]
    for plain, synchronized in zip(*results, strict=True):
        np.testing.assert_allclose(plain, synchronized, atol=1e-4)


def test_new_transformer_changes_nothing_but_the_sign_of_memory() -> None:
    pixels, memory = inputs(2)
    found = build()([pixels, memory], training=False)
    np.testing.assert_array_equal(found[0], pixels)
    np.testing.assert_array_equal(found[1], relu(memory))


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_variable_has_a_gradient(options: DualPathOptions) -> None:
    model = build(options)
    randomize(model)
    with tf.GradientTape() as tape:
        pixels, memory = model(inputs(2), training=True)
        loss = tf.reduce_sum(memory**2)
        if options.use_pixel2memory_feedback_attention:
            loss += tf.reduce_sum(pixels**3)
    variables = model.trainable_variables
    for variable, gradient in zip(
        variables, tape.gradient(loss, variables), strict=True
    ):
        assert gradient is not None, variable.name
        assert np.isfinite(gradient).all(), variable.name
        assert np.abs(gradient).max() > 0, variable.name


def test_pixels_without_feedback_pass_and_leave_no_variables() -> None:
    model = build(VARIANTS["no_feedback"])
    randomize(model)
    pixels, memory = inputs(2)
    np.testing.assert_array_equal(model([pixels, memory])[0], pixels)
    paths = variable_paths(model)
    assert not [p for p in paths if "_pixel_attention" in p or "_pixel_conv3" in p]
    # Keys and values, no queries.
    kernel = paths[f"{PATH}/_pixel_qkv_conv_bn/_conv/kernel"]
    assert kernel.shape[-1] == 3 * BASE


def test_drop_path_draws_for_each_branch_and_sample() -> None:
    keep_prob = 0.5
    model = build(keep_prob=keep_prob)
    layers = [layer for layer in model.layers if isinstance(layer, DropPath)]
    assert {layer.name for layer in layers} == {
        f"{PATH}/{branch}_drop_path" for branch in ("_memory", "_memory_ffn", "_pixel")
    }
    probe = tf_keras.Model(
        model.inputs, [(layer.input, layer.output) for layer in layers]
    )
    randomize(model)
    tf.random.set_seed(0)
    masks = []
    for before, after in probe(inputs(64), training=True):
        axes = tuple(range(1, before.shape.rank))
        kept = np.abs(after).max(axis=axes) > 0
        scale = np.where(kept, 1 / keep_prob, 0)
        np.testing.assert_allclose(
            after, before * scale.reshape(-1, *[1] * len(axes)), rtol=1e-6
        )
        assert 16 < kept.sum() < 48
        masks.append(kept)
    assert not np.array_equal(masks[0], masks[1])
    assert not np.array_equal(masks[1], masks[2])
    for before, after in probe(inputs(2), training=False):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("training", [False, True])
def test_mixed_precision_stays_close(policy: str, training: bool) -> None:
    exact = build()
    randomize(exact)
    tf_keras.mixed_precision.set_global_policy(policy)
    try:
        mixed = build()
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    randomize(mixed)
    assert all(v.dtype == tf.float32 for v in mixed.variables)
    for name in ("_memory_attention", "_pixel_attention"):
        assert mixed.get_layer(f"{PATH}/{name}/_weights").output.dtype == tf.float32
    wanted = exact(inputs(2), training=training)
    found = mixed(inputs(2), training=training)
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine.dtype == policy.removeprefix("mixed_")
        error = np.abs(np.asarray(mine, np.float32) - theirs)
        assert error.mean() < 0.03 * np.std(theirs)


def test_transformer_is_rebuilt_from_its_configuration() -> None:
    model = build(VARIANTS["other_widths"], keep_prob=0.9)
    clone = tf_keras.Model.from_config(model.get_config())
    randomize(model)
    randomize(clone)
    for mine, theirs in zip(clone(inputs(2)), model(inputs(2)), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_compiled_transformer_is_the_same() -> None:
    model = build()
    randomize(model)
    compiled = tf.function(model, jit_compile=True)
    for mine, theirs in zip(compiled(inputs(2)), model(inputs(2)), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-4)


def test_tensors_have_four_axes_at_most() -> None:
    for layer in build().layers:
        for tensor in tf.nest.flatten(layer.output):
            assert tensor.shape.rank <= 4, layer.name


def test_widths_that_heads_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(16, 16, 32\).* 3 heads"):
        build(dataclasses.replace(OPTIONS, num_heads=3))


def test_impossible_options_are_refused() -> None:
    with pytest.raises(ValueError, match="'softmax' or 'sigmoid'"):
        DualPathOptions(transformer_activation="relu")
    with pytest.raises(ValueError, match="num_heads is 0"):
        DualPathOptions(num_heads=0)


def test_variables_are_those_of_published_checkpoints() -> None:
    pixels = tf_keras.Input((3, 4, 2048))
    memory = tf_keras.Input((128, 256))
    outputs = dual_path_transformer(
        pixels,
        memory,
        PATH,
        128,
        options=DualPathOptions(),
        defaults=DEFAULTS,
    )
    model = tf_keras.Model([pixels, memory], list(outputs))
    kernels = {
        "_memory_conv1_bn_act": [1, 256, 256],
        "_pixel_conv1_bn_act": [1, 2048, 256],
        "_memory_qkv_conv_bn": [1, 256, 512],
        "_pixel_qkv_conv_bn": [1, 256, 512],
        "_memory_conv3_bn": [1, 256, 256],
        "_memory_ffn_conv1_bn_act": [1, 256, 2048],
        "_memory_ffn_conv2_bn": [1, 2048, 256],
        "_pixel_conv3_bn": [1, 256, 2048],
    }
    norms = {f"{name}/_batch_norm": [shape[-1]] for name, shape in kernels.items()}
    for attention in ("_memory_attention", "_pixel_attention"):
        norms[f"{attention}/_batch_norm_similarity"] = [8]
        norms[f"{attention}/_batch_norm_retrieved_value"] = [1, 8, 1, 32]
    expected = {f"{PATH}/{n}/_conv/kernel": shape for n, shape in kernels.items()}
    for name, shape in norms.items():
        for leaf in ("gamma", "beta", "moving_mean", "moving_variance"):
            expected[f"{PATH}/{name}/{leaf}"] = shape
    found = {p: v.shape.as_list() for p, v in variable_paths(model).items()}
    assert found == expected


@pytest.mark.parametrize("batch", [1, 2])
def test_memory_feature_is_the_first_slots_for_every_sample(batch: int) -> None:
    image = tf_keras.Input((9, 9, 3))
    # Names of other layers lie below the name of this one.
    x = tf_keras.layers.Conv2D(4, 1, name="encoder/_stem/_conv")(image)
    memory = memory_feature(x, "encoder", slots=5, channels=7)
    model = tf_keras.Model(image, [x, memory])
    variable = variable_paths(model)["encoder/memory_feature"]
    assert variable.shape == (1, MAX_SLOTS, 7)
    found = model(np.zeros((batch, 9, 9, 3), np.float32))[1]
    np.testing.assert_array_equal(found, np.repeat(variable[:, :5], batch, axis=0))


def test_memory_feature_travels_through_a_checkpoint(tmp_path: Path) -> None:
    def model() -> Any:
        image = tf_keras.Input((9, 9, 3))
        x = tf_keras.layers.Conv2D(4, 1, name="encoder/_stem/_conv")(image)
        return tf_keras.Model(image, [x, memory_feature(x, "encoder", 5, 7)])

    first, second = model(), model()
    prefix = save_weights(first, tmp_path / "ckpt")
    assert load_weights(second, prefix).is_exact
    image = np.zeros((1, 9, 9, 3), np.float32)
    np.testing.assert_array_equal(first(image)[1], second(image)[1])


@pytest.mark.parametrize("slots", [0, MAX_SLOTS + 1])
def test_number_of_slots_is_checked(slots: int) -> None:
    with pytest.raises(ValueError, match=f"slots is {slots}; must be 1 to 128"):
        memory_feature(tf_keras.Input((4,)), "encoder", slots, 8)


def test_memory_feature_is_rebuilt_from_its_configuration() -> None:
    layer = MemoryFeature(5, 7, name="encoder")
    config = MemoryFeature.from_config(layer.get_config()).get_config()
    assert config == layer.get_config()
