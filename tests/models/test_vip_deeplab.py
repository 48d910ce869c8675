"""ViP-DeepLab: its variables, outputs, and inference that does nothing twice."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

from deeplab2_edge import keys
from deeplab2_edge.checkpoints import variable_paths
from deeplab2_edge.config import ExperimentOptions, apply_overrides, parse_config
from deeplab2_edge.layers.dropout import DropPath
from deeplab2_edge.models import build_model
from deeplab2_edge.models.vip_deeplab import TwoFrameInference, build_heads
from deeplab2_edge.optional import require
from tests.convert.tiny import SIZE, fill, tiny_backbone
from tests.models import published

tf = require("tensorflow", extra="train")
tf_keras = require("tf_keras", extra="train")

pytestmark = pytest.mark.tf

DEPTH_HEAD = """
depth_head { output_channels: 1 head_channels: 64 max_value_after_activation: 88 }
"""
NEXT_HEAD = "next_regression_head { output_channels: 2 head_channels: 32 }"
OPTIONS = f"""
{published.LOW_LEVEL} {published.SEMANTIC_HEAD} {DEPTH_HEAD}
instance {{ {published.INSTANCE} {NEXT_HEAD} }}
"""
NEXT_VARIABLES = {
    **published.decoder("next_instance_decoder", 128, (32, 16), channels=4096),
    **published.head("next_instance_regression", 128, 32, 2),
}


def vip(options: str = OPTIONS) -> ExperimentOptions:
    return published.experiment(f"vip_deeplab {{ {options} }}")


def build(config: ExperimentOptions) -> tuple[published.Shapes, dict[str, object]]:
    features, next_features = published.resnet_endpoints(), published.resnet_endpoints()
    outputs = build_heads(
        features,
        next_features,
        config,
        pool_size=(3, 4),
        defaults=published.DEFAULTS,
    )
    inputs = [*features.values(), *next_features.values()]
    variables = published.shapes_of(inputs, outputs)
    return variables, {name: tuple(x.shape) for name, x in outputs.items()}


def test_it_has_the_published_variables_and_outputs() -> None:
    variables, outputs = build(vip())
    assert variables == {
        **published.panoptic(19),
        **published.head("depth", 256, 64, 1),
        **NEXT_VARIABLES,
    }
    assert outputs == {
        keys.SEMANTIC_LOGITS: (None, 17, 25, 19),
        keys.DEPTH_PRED: (None, 33, 49, 1),
        keys.CENTER_HEATMAP: (None, 17, 25, 1),
        keys.OFFSET_MAP: (None, 17, 25, 2),
        keys.NEXT_OFFSET_MAP: (None, 17, 25, 2),
    }


def test_branches_that_are_not_configured_are_left_out() -> None:
    variables, outputs = build(
        vip(OPTIONS.replace(DEPTH_HEAD, "").replace(NEXT_HEAD, ""))
    )
    assert variables == published.panoptic(19)
    assert list(outputs) == [
        keys.SEMANTIC_LOGITS,
        keys.CENTER_HEATMAP,
        keys.OFFSET_MAP,
    ]
    _, outputs = build(vip(OPTIONS.replace("instance {", "instance { enable: false")))
    assert list(outputs) == [keys.SEMANTIC_LOGITS, keys.DEPTH_PRED]


SMALL = """
model_options {
  backbone { name: "mobilenet_v3_small" output_stride: 16 use_squeeze_and_excite: true }
  decoder {
    feature_key: "res5" decoder_channels: 8 aspp_channels: 8
    atrous_rates: 1 atrous_rates: 2 atrous_rates: 3
  }
  vip_deeplab {
    low_level { feature_key: "res4" channels_project: 4 }
    low_level { feature_key: "res2" channels_project: 4 }
    instance {
      low_level_override { feature_key: "res3" channels_project: 4 }
      center_head { output_channels: 1 head_channels: 4 }
      regression_head { output_channels: 2 head_channels: 4 }
      next_regression_head { output_channels: 2 head_channels: 4 }
    }
    semantic_head { output_channels: 5 head_channels: 4 }
    depth_head {
      output_channels: 1 head_channels: 4
      min_value_after_activation: 2 max_value_after_activation: 80
    }
  }
}
"""


def small(changes: dict[str, Any] | None = None) -> tuple[Any, ExperimentOptions]:
    config = apply_overrides(parse_config(SMALL, source="small"), changes or {})
    with tiny_backbone():
        model = build_model(config, input_size=SIZE)
    fill(model)
    return model, config


def frames(count: int) -> list[np.ndarray[Any, Any]]:
    draw = np.random.default_rng(0)
    return [
        draw.uniform(0, 255, (1, *SIZE, 3)).astype(np.float32) for _ in range(count)
    ]


def test_frames_share_one_encoder() -> None:
    model, _ = small()
    assert model.input_shape == (None, *SIZE, 6)
    paths = variable_paths(model)
    assert len(paths) == len(model.weights)
    encoder = {path for path in paths if path.startswith("encoder/")}
    assert encoder == set(variable_paths(model.get_layer("encoder")))


def test_current_heads_see_the_current_frame_only() -> None:
    model, _ = small()
    one, two, three = frames(3)
    pair = model(np.concatenate([one, two], axis=-1))
    other = model(np.concatenate([one, three], axis=-1))
    for name, value in pair.items():
        changed = np.abs(value - other[name]).max()
        assert (changed > 1e-3) == (name == keys.NEXT_OFFSET_MAP), name


def test_depth_stays_in_its_range() -> None:
    model, _ = small()
    (frame,) = frames(1)
    depth = np.asarray(model(np.concatenate([frame, frame], axis=-1))[keys.DEPTH_PRED])
    assert depth.dtype == np.float32
    assert depth.shape == (1, 17, 33, 1)
    assert depth.min() > 2
    assert depth.max() < 80
    raw = tf_keras.Model(model.input, model.get_layer("depth_head_last_layer").output)
    logits = np.asarray(raw(np.concatenate([frame, frame], axis=-1)))
    np.testing.assert_allclose(depth, 2 + 78 / (1 + np.exp(-logits)), rtol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model_options.vip_deeplab.depth_head": None},
        {"model_options.vip_deeplab.instance.next_regression_head": None},
        {"model_options.vip_deeplab.instance.enable": False},
    ],
)
def test_inference_on_a_pair_equals_the_network_in_both_orders(
    changes: dict[str, Any],
) -> None:
    model, config = small(changes)
    one, two = frames(2)
    found = TwoFrameInference(model, config)(one, two)
    for pair, heads in zip([(one, two), (two, one)], found, strict=True):
        expected = model(np.concatenate(pair, axis=-1))
        assert heads.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(heads[name], value, atol=1e-4, err_msg=name)


def test_a_video_encodes_every_frame_once() -> None:
    model, config = small()
    inference = TwoFrameInference(model, config)
    one, two, three = frames(3)
    features = inference.encode(one)
    for previous, frame in ((one, two), (two, three)):
        next_features = inference.encode(frame)
        expected = model(np.concatenate([previous, frame], axis=-1))
        found = {
            **inference.own_heads(features),
            **inference.next_heads(features, next_features),
        }
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, atol=1e-4, err_msg=name)
        features = next_features


DROPPING = {
    "model_options.backbone.name": "wide_resnet41",
    "model_options.backbone.output_stride": 32,
    "model_options.backbone.use_squeeze_and_excite": False,
    "model_options.backbone.drop_path_keep_prob": 0.5,
    "model_options.backbone.stem_width_multiplier": 0.1,
    "model_options.backbone.backbone_width_multiplier": 0.05,
    "model_options.backbone.backbone_layer_multiplier": 0.25,
}


@pytest.mark.parametrize("recompute", [False, True])
def test_each_frame_draws_random_masks_of_its_own(
    recompute: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = SMALL.replace('"res4"', '"res3"')
    config = apply_overrides(parse_config(text, source="dropping"), DROPPING)
    model = build_model(config, input_size=SIZE, batch_size=8, recompute=recompute)
    (layer,) = (part for part in model.submodules if isinstance(part, DropPath))
    layer.seed_source = lambda: tf.constant(5, tf.int64)
    drawn: list[list[float]] = []
    draw = DropPath.uniform

    def watched(self: Any, shape: Any) -> Any:
        drawn.append(np.ravel(values := draw(self, shape)).tolist())
        return values

    monkeypatch.setattr(DropPath, "uniform", watched)
    frame = np.random.default_rng(0).uniform(0, 255, (8, *SIZE, 3))
    pair = np.concatenate([frame, frame], axis=-1).astype(np.float32)
    for _ in range(2):  # and the same ones when the step is repeated
        with tf.GradientTape() as tape:
            outputs = model(pair, training=True)
            loss = tf.add_n([tf.reduce_sum(output) for output in outputs.values()])
        tape.gradient(loss, model.trainable_variables)
    first, second = drawn[:2]
    assert first != second
    passes = 2 if recompute else 1
    assert sorted(drawn) == sorted([first, second] * passes * 2)
