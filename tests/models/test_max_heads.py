"""The heads of MaX-DeepLab against their equations, written out in NumPy."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

from deeplab2_edge import keys
from deeplab2_edge.checkpoints import variable_paths
from deeplab2_edge.config import ExperimentOptions, apply_overrides, parse_config
from deeplab2_edge.datasets.registry import get_dataset
from deeplab2_edge.decoders.max_deeplab import num_mask_classes
from deeplab2_edge.errors import ConfigError
from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.models.max_deeplab import build_heads
from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="train")
tf_keras: Any = require("tf_keras", extra="train")

pytestmark = pytest.mark.tf

Array = NDArray[Any]
Shapes = dict[str, tuple[int, ...]]
EPSILON = 0.01
DEFAULTS = LayerDefaults(batch_norm_momentum=0.75, batch_norm_epsilon=EPSILON)
SLOTS, CHANNELS = 5, 12
CONFIG = parse_config(
    """
    model_options {
      backbone { name: "max_deeplab_s" output_stride: 16 }
      decoder {
        feature_key: "feature_semantic"
        decoder_channels: 10
        aspp_channels: 6
        atrous_rates: 6
        atrous_rates: 12
        atrous_rates: 18
      }
      max_deeplab {
        pixel_space_head { output_channels: 8 head_channels: 10 }
        auxiliary_low_level { feature_key: "res3" channels_project: 4 }
        auxiliary_low_level { feature_key: "res2" channels_project: 3 }
        auxiliary_semantic_head { output_channels: 19 head_channels: 7 }
      }
    }
    train_dataset_options { dataset: "cityscapes_panoptic" }
    """,
    source="test",
)
# (height, width, channels) of what an encoder gives; MaX-DeepLab-S leaves
# `feature_semantic` coarse, MaX-DeepLab-L does not.
COARSE: Shapes = {"feature_semantic": (2, 3, 16), "res3": (3, 5, 9), "res2": (5, 9, 7)}
FINE: Shapes = {"feature_semantic": (5, 9, 11)}
COMMON: Shapes = {
    "feature_panoptic": (5, 9, 11),
    "transformer_class_feature": (SLOTS, CHANNELS),
    "transformer_mask_feature": (SLOTS, CHANNELS),
}


def build(
    own: Shapes = FINE,
    config: ExperimentOptions = CONFIG,
    **kwargs: Any,
) -> Any:
    features = {
        name: tf_keras.Input(shape, name=name) for name, shape in (COMMON | own).items()
    }
    heads = build_heads(features, config, pool_size=None, defaults=DEFAULTS, **kwargs)
    return tf_keras.Model(features, heads)


def randomize(model: Any) -> dict[str, Array]:
    generator = np.random.default_rng(0)
    values = {}
    for path, variable in sorted(variable_paths(model).items()):
        value = generator.normal(size=variable.shape)
        if path.endswith("moving_variance"):
            value = 0.5 + np.abs(value)
        elif path.endswith("gamma"):
            value = 1.0 + 0.3 * value
        variable.assign(value)
        values[path] = value.astype(np.float32).astype(np.float64)
    return values


def inputs(model: Any, batch: int) -> dict[str, Array]:
    generator = np.random.default_rng(1)
    return {
        name: generator.normal(size=(batch, *tensor.shape[1:])).astype(np.float32)
        for name, tensor in model.input.items()
    }


class Equations:
    """Is the definition in float64."""

    def __init__(self, weights: Mapping[str, Array]) -> None:
        self.weights = weights

    def normalize(self, x: Array, path: str) -> Array:
        gamma, beta, mean, variance = (
            self.weights[f"{path}/{leaf}"]
            for leaf in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return np.asarray((x - mean) * gamma / np.sqrt(variance + EPSILON) + beta)

    def head(self, x: Array, path: str, last_path: str) -> Array:
        path = f"{path}/_conv1_bn_act"
        kernel = self.weights[f"{path}/_depthwise/_depthwise_conv/depthwise_kernel"]
        height, width = x.shape[1:3]
        padded = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
        x = np.zeros_like(x, np.float64)
        for dy in range(5):
            for dx in range(5):
                window = padded[:, dy : dy + height, dx : dx + width]
                x += window * kernel[dy, dx, :, 0]
        x = np.maximum(self.normalize(x, f"{path}/_depthwise/_batch_norm"), 0)
        x = x @ self.weights[f"{path}/_pointwise/_conv/kernel"][0, 0]
        x = np.maximum(self.normalize(x, f"{path}/_pointwise/_batch_norm"), 0)
        last = x @ self.weights[f"{last_path}/kernel"][0, 0]
        return np.asarray(last + self.weights[f"{last_path}/bias"])

    def __call__(self, features: Mapping[str, Array]) -> dict[str, Array]:
        semantic = self.head(
            features["feature_semantic"],
            "semantic_head_without_last_layer",
            "semantic_last_layer",
        )
        x = self.head(
            features["feature_panoptic"],
            "pixel_space_head/conv_block",
            "pixel_space_head/final_conv",
        )
        x = self.normalize(x, "pixel_space_feature_batch_norm")
        pixels = x / np.sqrt(np.maximum((x**2).sum(-1, keepdims=True), 1e-12))
        kernels = self.normalize(
            features["transformer_mask_feature"]
            @ self.weights["transformer_mask_head/_conv/kernel"][0],
            "transformer_mask_head/_batch_norm",
        )
        masks = np.einsum("byxc,bic->byxi", pixels, kernels)
        classes = (
            features["transformer_class_feature"]
            @ self.weights["transformer_class_head/_conv/kernel"][0]
            + self.weights["transformer_class_head/_conv/bias"]
        )
        classes[..., -1] += np.log(0.9 * (classes.shape[-1] - 1) / 0.1)
        return {
            keys.SEMANTIC_LOGITS: semantic,
            keys.PIXEL_SPACE_NORMALIZED_FEATURE: pixels,
            keys.PIXEL_SPACE_MASK_LOGITS: self.normalize(
                masks, "pixel_space_mask_batch_norm"
            ),
            keys.TRANSFORMER_CLASS_LOGITS: classes,
        }


@pytest.mark.parametrize("batch", [1, 2])
def test_heads_are_those_of_the_equations(batch: int) -> None:
    model = build()
    equations = Equations(randomize(model))
    features = inputs(model, batch)
    wanted = equations(features)
    found = model(features, training=False)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].shape == value.shape
        scale = np.std(value)
        np.testing.assert_allclose(found[name] / scale, value / scale, atol=1e-5)


def norm_leaves(path: str, shape: list[int]) -> dict[str, list[int]]:
    leaves = ("gamma", "beta", "moving_mean", "moving_variance")
    return {f"{path}/{leaf}": shape for leaf in leaves}


def test_variables_are_those_of_published_checkpoints() -> None:
    expected = {
        "semantic_last_layer/kernel": [1, 1, 7, 19],
        "semantic_last_layer/bias": [19],
        "pixel_space_head/final_conv/kernel": [1, 1, 10, 8],
        "pixel_space_head/final_conv/bias": [8],
        "transformer_mask_head/_conv/kernel": [1, CHANNELS, 8],
        "transformer_class_head/_conv/kernel": [1, CHANNELS, 20],
        "transformer_class_head/_conv/bias": [20],
        **norm_leaves("transformer_mask_head/_batch_norm", [8]),
        **norm_leaves("pixel_space_feature_batch_norm", [8]),
        **norm_leaves("pixel_space_mask_batch_norm", [1]),
    }
    for path, width in (
        ("semantic_head_without_last_layer", 7),
        ("pixel_space_head/conv_block", 10),
    ):
        path = f"{path}/_conv1_bn_act"
        depthwise, pointwise = f"{path}/_depthwise", f"{path}/_pointwise"
        expected[f"{depthwise}/_depthwise_conv/depthwise_kernel"] = [5, 5, 11, 1]
        expected[f"{pointwise}/_conv/kernel"] = [1, 1, 11, width]
        expected |= norm_leaves(f"{depthwise}/_batch_norm", [11])
        expected |= norm_leaves(f"{pointwise}/_batch_norm", [width])
    found = {p: v.shape.as_list() for p, v in variable_paths(build()).items()}
    assert found == expected


def test_coarse_semantic_feature_gets_a_decoder() -> None:
    fine, coarse = variable_paths(build()), variable_paths(build(COARSE))
    extra = {path for path in coarse if path not in fine}
    assert {path.split("/")[0] for path in extra} == {"semantic_decoder"}
    shapes = {path: coarse[path].shape.as_list() for path in extra}
    prefix = "semantic_decoder/"
    assert shapes[f"{prefix}_aspp/_conv_bn_act/_conv/kernel"] == [1, 1, 16, 6]
    assert shapes[f"{prefix}_low_level_conv1/_conv/kernel"] == [1, 1, 9, 4]
    assert shapes[f"{prefix}_low_level_conv2/_conv/kernel"] == [1, 1, 7, 3]
    model = build(COARSE)
    found = model(inputs(model, 2))
    assert found[keys.SEMANTIC_LOGITS].shape == (2, 5, 9, 19)


def test_new_masks_start_flat_and_slots_start_void() -> None:
    model = build()
    gamma = variable_paths(model)["pixel_space_mask_batch_norm/gamma"]
    np.testing.assert_allclose(gamma, [0.1])
    features = inputs(model, 1)
    features["transformer_class_feature"][:] = 0
    probabilities = tf.nn.softmax(model(features)[keys.TRANSFORMER_CLASS_LOGITS])
    np.testing.assert_allclose(probabilities[..., -1], 0.9, rtol=1e-5)


@pytest.mark.parametrize(
    ("dataset", "channels", "classes"),
    [
        ("cityscapes_panoptic", 19, 20),
        ("coco_panoptic", 134, 134),
        ("ade20k_panoptic", 151, 151),
        ("motchallenge_step", 7, 8),
    ],
)
def test_void_is_counted_once(dataset: str, channels: int, classes: int) -> None:
    info = get_dataset(dataset)
    assert info.num_classes == channels
    assert num_mask_classes(channels, info.ignore_label) == classes
    head = "model_options.max_deeplab.auxiliary_semantic_head.output_channels"
    config = apply_overrides(CONFIG, {head: channels})
    for model in (
        build(config=config, dataset=info),
        build(
            config=apply_overrides(config, {"train_dataset_options.dataset": dataset})
        ),
    ):
        logits = model.output[keys.TRANSFORMER_CLASS_LOGITS]
        assert logits.shape == (None, SLOTS, classes)


def test_missing_data_set_is_named_and_the_evaluated_one_will_do() -> None:
    config = apply_overrides(CONFIG, {"train_dataset_options.dataset": ""})
    with pytest.raises(
        ConfigError, match=r"^train_dataset_options\.dataset is missing"
    ):
        build(config=config)
    config = apply_overrides(config, {"eval_dataset_options.dataset": "coco_panoptic"})
    assert build(config=config).output[keys.TRANSFORMER_CLASS_LOGITS].shape[-1] == 19


def test_encoder_without_memory_is_refused() -> None:
    features = {"res5": tf_keras.Input((2, 3, 16))}
    with pytest.raises(
        ConfigError, match=r"gives no feature_panoptic, .*max_deeplab_l"
    ):
        build_heads(features, CONFIG, pool_size=None, defaults=DEFAULTS)


def test_missing_head_is_named() -> None:
    config = parse_config(
        'model_options { max_deeplab { } backbone { name: "max_deeplab_s" } }',
        source="test",
    )
    with pytest.raises(ConfigError, match="auxiliary_semantic_head is missing"):
        build(config=config)


def test_training_uses_the_statistics_of_the_batch() -> None:
    model = build()
    randomize(model)
    masks = model(inputs(model, 2), training=True)[keys.PIXEL_SPACE_MASK_LOGITS]
    paths = variable_paths(model)
    # The scalar norm sees all slots of all samples at once.
    gamma = paths["pixel_space_mask_batch_norm/gamma"].numpy().item()
    beta = paths["pixel_space_mask_batch_norm/beta"].numpy().item()
    np.testing.assert_allclose(np.mean(masks), beta, atol=1e-4)
    np.testing.assert_allclose(np.std(masks), abs(gamma), rtol=0.05)


def test_every_variable_has_a_gradient() -> None:
    model = build(COARSE)
    randomize(model)
    with tf.GradientTape() as tape:
        outputs = model(inputs(model, 2), training=True)
        loss = tf.add_n([tf.reduce_sum(x**3) for x in outputs.values()])
    variables = model.trainable_variables
    for variable, gradient in zip(
        variables, tape.gradient(loss, variables), strict=True
    ):
        assert gradient is not None, variable.name
        assert np.isfinite(gradient).all(), variable.name


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_gives_float32_outputs(policy: str) -> None:
    exact = build()
    randomize(exact)
    tf_keras.mixed_precision.set_global_policy(policy)
    try:
        mixed = build()
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    randomize(mixed)
    features = inputs(exact, 2)
    wanted = exact(features, training=False)
    for name, value in mixed(features, training=False).items():
        assert value.dtype == tf.float32
        error = np.abs(value - wanted[name]).mean()
        assert error < 0.05 * np.std(wanted[name]), name


def test_tensors_have_four_axes_at_most() -> None:
    for layer in build(COARSE).layers:
        for tensor in tf.nest.flatten(layer.output):
            assert tensor.shape.rank <= 4, layer.name
