"""`build_model`: every architecture from its configuration, at any size that fits."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

from deeplab2_edge import backbones, keys
from deeplab2_edge.checkpoints import variable_paths
from deeplab2_edge.config import ExperimentOptions, apply_overrides, parse_config
from deeplab2_edge.errors import ConfigError
from deeplab2_edge.models import (
    aspp_pool_size,
    build_model,
    input_channels,
    resize_outputs,
)
from deeplab2_edge.optional import require
from tests.convert.tiny import tiny_backbone

tf = require("tensorflow", extra="train")
tf_keras = require("tf_keras", extra="train")

pytestmark = pytest.mark.tf

_MODEL = """
model_options {
  backbone { name: "mobilenet_v3_small" output_stride: 16 use_squeeze_and_excite: true }
  decoder {
    feature_key: "res5" decoder_channels: 8 aspp_channels: 8
    atrous_rates: 1 atrous_rates: 2 atrous_rates: 3
  }
  %s
}
"""
_HEADS = """
low_level { feature_key: "res3" channels_project: 4 }
low_level { feature_key: "res2" channels_project: 4 }
semantic_head { output_channels: 5 head_channels: 4 }
instance {
  center_head { output_channels: 1 head_channels: 4 }
  regression_head { output_channels: 2 head_channels: 4 }
  %s
}
"""
_MOTION_HEAD = "motion_head { output_channels: 2 head_channels: 4 }"
_NEXT_HEAD = "next_regression_head { output_channels: 2 head_channels: 4 }"
_SEMANTIC = {keys.SEMANTIC_LOGITS: 5}
_PANOPTIC = {**_SEMANTIC, keys.CENTER_HEATMAP: 1, keys.OFFSET_MAP: 2}
# Options, channels of the input, channels of each output, stride of the outputs.
ARCHITECTURES: dict[str, tuple[str, int, dict[str, int], int]] = {
    "deeplab_v3": ("num_classes: 5", 3, _SEMANTIC, 16),
    "deeplab_v3_plus": (
        'low_level { feature_key: "res2" channels_project: 4 } num_classes: 5',
        3,
        _SEMANTIC,
        4,
    ),
    "panoptic_deeplab": (_HEADS % "", 3, _PANOPTIC, 4),
    "motion_deeplab": (
        _MOTION_HEAD + _HEADS % "",
        7,
        {**_PANOPTIC, keys.FRAME_OFFSET_MAP: 2},
        4,
    ),
    "vip_deeplab": (
        _HEADS % _NEXT_HEAD,
        6,
        {**_PANOPTIC, keys.NEXT_OFFSET_MAP: 2},
        4,
    ),
}


def experiment(
    architecture: str, changes: dict[str, Any] | None = None
) -> ExperimentOptions:
    options = ARCHITECTURES[architecture][0]
    text = _MODEL % f"{architecture} {{ {options} }}"
    return apply_overrides(parse_config(text, source="test"), changes or {})


def build(config: ExperimentOptions, size: tuple[int, int], **options: Any) -> Any:
    with tiny_backbone():
        return build_model(config, input_size=size, **options)


@pytest.mark.parametrize("size", [(33, 65), (50, 72)])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_outputs_have_the_promised_names_and_shapes(
    architecture: str, size: tuple[int, int]
) -> None:
    _, channels, outputs, stride = ARCHITECTURES[architecture]
    config = experiment(architecture)
    model = build(config, size)
    assert input_channels(config) == channels
    assert model.input_shape == (None, *size, channels)
    height, width = ((side - 1) // stride + 1 for side in size)
    found = {name: tuple(x.shape) for name, x in model.output.items()}
    assert found == {n: (None, height, width, c) for n, c in outputs.items()}
    image = tf.random.uniform((2, *size, channels), maxval=255, seed=0)
    for name, value in resize_outputs(model(image), size).items():
        assert value.shape == (2, *size, outputs[name])
        assert np.isfinite(value).all(), name


def test_semantic_panoptic_deeplab_has_one_head() -> None:
    off = {"model_options.panoptic_deeplab.instance.enable": False}
    model = build(experiment("panoptic_deeplab", off), (33, 65))
    assert list(model.output) == [keys.SEMANTIC_LOGITS]
    assert not any("instance" in path for path in variable_paths(model))


def test_all_channels_are_normalized_like_an_image() -> None:
    model = build(experiment("motion_deeplab"), (33, 65))
    probe = tf_keras.Model(model.input, model.get_layer("normalize").output)
    heat = np.zeros((1, 33, 65, 7), np.float32)
    heat[..., 6] = 1.0
    found = np.asarray(probe(heat))
    np.testing.assert_allclose(found[..., 6], 1 / 127.5 - 1, rtol=1e-6)
    np.testing.assert_array_equal(found[..., :6], -1.0)


@pytest.mark.parametrize(
    ("crop", "size", "expected"),
    [
        ((1025, 2049), (1025, 2049), (65, 129)),
        ((513, 1025), (1025, 2049), (33, 65)),  # a window that slides
        ((1025, 2049), (513, 2049), (33, 129)),  # the whole map, per axis
        ((1025, 2049), (512, 1000), (32, 63)),
        ((), (65, 129), (5, 9)),
    ],
)
def test_pooling_window_is_that_of_the_training_crop(
    crop: tuple[int, ...], size: tuple[int, int], expected: tuple[int, int]
) -> None:
    config = experiment("panoptic_deeplab", {"train_dataset_options.crop_size": crop})
    assert aspp_pool_size(config, size) == expected


def test_a_training_crop_of_one_number_is_refused() -> None:
    config = experiment("deeplab_v3", {"train_dataset_options.crop_size": [513]})
    with pytest.raises(ConfigError, match=r"crop_size is \[513\]; expected height"):
        aspp_pool_size(config, (33, 65))


def test_variables_of_unread_encoder_layers_are_kept() -> None:
    config = experiment("deeplab_v3", {"model_options.decoder.feature_key": "res4"})
    with tiny_backbone():
        whole = build_model(experiment("deeplab_v3"), input_size=(33, 65))
        model = build_model(config, input_size=(33, 65))
    encoders = [
        {path for path in variable_paths(m) if path.startswith("encoder/")}
        for m in (whole, model)
    ]
    assert encoders[0] == encoders[1]
    assert len(model.weights) == len(variable_paths(model))


def test_a_backbone_of_ones_own_serves_every_architecture() -> None:
    def build_own(image: Any, options: Any, *, defaults: Any) -> dict[str, Any]:
        endpoints = {}
        for level in range(1, 6):
            image = tf_keras.layers.Conv2D(
                4, 3, min(2, 2 ** (5 - level)), "same", name=f"encoder/level{level}"
            )(image)
            endpoints[f"res{level}"] = image
        return endpoints

    backbones.register_backbone("test_build_own", build_own)
    changes = {"model_options.backbone.name": "test_build_own"}
    for architecture in ARCHITECTURES:
        model = build_model(experiment(architecture, changes), input_size=(33, 65))
        assert "encoder/level1/kernel" in variable_paths(model)


@pytest.mark.parametrize("size", [129, (129,), (33, 65, 3), (0, 65), (33.0, 65), "129"])
def test_a_size_is_two_whole_numbers(size: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        build_model(experiment("deeplab_v3"), input_size=size)
    assert str(caught.value) == (
        f"input_size is {size!r}; expected (height, width) in pixels"
    )


@pytest.mark.parametrize("architecture", ["panoptic_deeplab", "vip_deeplab"])
def test_a_single_pixel_of_offsets_is_refused(architecture: str) -> None:
    with pytest.raises(
        ConfigError, match=r"input of \(4, 65\) .* offset_map only \(1,"
    ):
        build(experiment(architecture), (4, 65))


def test_a_semantic_model_may_be_one_pixel_small() -> None:
    model = build(experiment("deeplab_v3"), (3, 16))
    assert model.output[keys.SEMANTIC_LOGITS].shape == (None, 1, 1, 5)


@pytest.mark.parametrize(
    ("architecture", "changes", "message"),
    [
        (
            "panoptic_deeplab",
            {"model_options.decoder.feature_key": "feature_semantic"},
            "feature_key of semantic_decoder/_aspp is 'feature_semantic'; "
            "the encoder gives res1, res2, res3, res4, res5",
        ),
        (
            "panoptic_deeplab",
            {"model_options.panoptic_deeplab.low_level.0.feature_key": "res9"},
            "feature_key of semantic_decoder/_low_level_conv1 is 'res9'",
        ),
        (
            "panoptic_deeplab",
            {"model_options.panoptic_deeplab.low_level.1.feature_key": "res4"},
            "'res4' of semantic_decoder/_low_level_conv2 is coarser",
        ),
        (
            "panoptic_deeplab",
            {"model_options.panoptic_deeplab.semantic_head": None},
            "semantic_head is missing",
        ),
        (
            "panoptic_deeplab",
            {"model_options.decoder.decoder_conv_type": "sparse"},
            "type of semantic_decoder/_fusion_conv1 is 'sparse'; expected one of",
        ),
        (
            "vip_deeplab",
            {"model_options.vip_deeplab.instance.center_head": None},
            "instance.center_head is missing",
        ),
        ("deeplab_v3", {"model_options.deeplab_v3": None}, "architecture is missing"),
    ],
)
def test_what_cannot_be_built_is_named(
    architecture: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build(experiment(architecture, changes), (33, 65))


def test_masks_are_not_resized() -> None:
    raw = {
        keys.SEMANTIC_LOGITS: tf.zeros((1, 5, 9, 3)),
        keys.PIXEL_SPACE_MASK_LOGITS: tf.zeros((1, 5, 9, 7)),
        keys.TRANSFORMER_CLASS_LOGITS: tf.zeros((1, 7, 4)),
    }
    found = resize_outputs(raw, (17, 33))
    assert {n: x.shape for n, x in found.items()} == {
        n: x.shape for n, x in raw.items()
    }


@pytest.mark.parametrize(
    "name", [keys.OFFSET_MAP, keys.FRAME_OFFSET_MAP, keys.NEXT_OFFSET_MAP]
)
def test_offsets_grow_with_their_map(name: str) -> None:
    found = resize_outputs({name: tf.ones((1, 3, 5, 2))}, (9, 33))[name]
    np.testing.assert_allclose(found[..., 0], 4.0)  # (9 - 1) / (3 - 1)
    np.testing.assert_allclose(found[..., 1], 8.0)  # (33 - 1) / (5 - 1)


def test_depth_keeps_its_meters() -> None:
    found = resize_outputs({keys.DEPTH_PRED: tf.fill((1, 3, 5, 1), 7.0)}, (9, 33))
    np.testing.assert_allclose(found[keys.DEPTH_PRED], 7.0)
