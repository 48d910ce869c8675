"""The dual-path transformer against its equations, written out in NumPy."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

from deeplab2_edge.checkpoints import variable_paths
from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.layers.dropout import DropPath
from deeplab2_edge.layers.dual_path import (
    MAX_SLOTS,
    DualPathOptions,
    MatMul,
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
# Keys half as wide as the base, so that no two widths are equal by accident.
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
    options: DualPathOptions = OPTIONS, keep_prob: float = 1.0, batch: int | None = None
) -> Any:
    pixels = tf_keras.Input((HEIGHT, WIDTH, PIXEL_CHANNELS), batch_size=batch)
    memory = tf_keras.Input((SLOTS, MEMORY_CHANNELS), batch_size=batch)
    outputs = dual_path_transformer(
        pixels,
        memory,
        PATH,
        BASE,
        options=options,
        defaults=DEFAULTS,
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
    """Is the definition, sample by sample and head by head, in float64."""

    weights: Mapping[str, Array]
    options: DualPathOptions

    def scale_and_shift(self, name: str) -> tuple[Array, Array]:
        part = {
            leaf: self.weights[f"{PATH}/{name}/{leaf}"]
            for leaf in ("gamma", "beta", "moving_mean", "moving_variance")
        }
        scale = part["gamma"] / np.sqrt(part["moving_variance"] + EPSILON)
        return scale, part["beta"] - part["moving_mean"] * scale

    def linear(self, x: Array, name: str) -> Array:
        scale, shift = self.scale_and_shift(f"{name}/_batch_norm")
        return np.asarray(x @ self.weights[f"{PATH}/{name}/_conv/kernel"][0]) * (
            scale
        ) + (shift)

    def attend(self, name: str, q: Array, k: Array, v: Array) -> Array:
        """Maps `[L, Dk]`, `[M, Dk]`, `[M, Dv]` to `[L, Dv]`."""
        heads = self.options.num_heads
        similarity = self.scale_and_shift(f"{name}/_batch_norm_similarity")
        retrieval = self.scale_and_shift(f"{name}/_batch_norm_retrieved_value")
        outputs = []
        for head in range(heads):
            qh, kh, vh = (np.split(part, heads, axis=1)[head] for part in (q, k, v))
            logits = qh @ kh.T * similarity[0][head] + similarity[1][head]
            if self.options.transformer_activation == "softmax":
                exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
                attention = exponentials / exponentials.sum(axis=1, keepdims=True)
            else:
                attention = 1 / (1 + np.exp(-logits))
            output = attention @ vh * retrieval[0][0, head] + retrieval[1][0, head]
            outputs.append(relu(output))
        return np.concatenate(outputs, axis=1)

    def __call__(self, pixels: Array, memory: Array) -> tuple[Array, Array]:
        options = self.options
        feedback = options.use_pixel2memory_feedback_attention
        dk, dv = BASE * options.key_expansion, BASE * options.value_expansion
        p = relu(pixels).reshape(-1, pixels.shape[-1])
        p = relu(self.linear(p, "_pixel_conv1_bn_act"))
        m = relu(self.linear(memory, "_memory_conv1_bn_act"))
        p = self.linear(p, "_pixel_qkv_conv_bn")
        m = self.linear(m, "_memory_qkv_conv_bn")
        qp, kp, vp = np.split(p, [dk, 2 * dk] if feedback else [0, dk], axis=1)
        qm, km, vm = np.split(m, [dk, 2 * dk], axis=1)
        if feedback or options.use_memory_self_attention:
            assert m.shape[1] == 2 * dk + dv
        keys, values = kp, vp
        if options.use_memory_self_attention:
            keys, values = np.concatenate([kp, km]), np.concatenate([vp, vm])
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
    for sample in range(batch):
        wanted = equations(pixels[sample], memory[sample])
        for mine, theirs in zip(found, wanted, strict=True):
            np.testing.assert_allclose(mine[sample], theirs, atol=2e-5, rtol=2e-5)


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


def test_matmul_keeps_its_configuration() -> None:
    layer = MatMul.from_config(MatMul(transpose_b=True, name="x").get_config())
    assert layer.transpose_b
    assert DropPath is not None
