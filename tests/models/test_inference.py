"""Networks as their users see them: named inputs, pruned heads, a state for pairs."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

from deeplab2_edge import families, keys
from deeplab2_edge.config import parse_config
from deeplab2_edge.models.inference import InferenceNetwork
from deeplab2_edge.optional import require
from tests.convert.tiny import SIZE, fill
from tests.models.test_build import ARCHITECTURES, build, experiment

tf = require("tensorflow", extra="train")

pytestmark = pytest.mark.tf

FAMILIES = {
    "deeplab_v3": families.SEMANTIC,
    "deeplab_v3_plus": families.SEMANTIC,
    "panoptic_deeplab": families.PANOPTIC,
    "motion_deeplab": families.MOTION,
    "vip_deeplab": families.TWO_FRAMES,
}


def make(architecture: str) -> tuple[Any, InferenceNetwork]:
    config = experiment(architecture)
    model = build(config, SIZE, batch_size=1)
    fill(model)
    return model, InferenceNetwork(model, config)


def frame(seed: int, channels: int = 3) -> Any:
    generator = np.random.default_rng(seed)
    return tf.constant(generator.integers(0, 256, (1, *SIZE, channels), np.uint8))


def assert_equal_heads(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_has_its_family_and_heads(architecture: str) -> None:
    _, network = make(architecture)
    assert network.family == FAMILIES[architecture]
    assert keys.IMAGE in network.inputs
    outputs = network(
        {n: tf.zeros(s.shape, s.dtype) for n, s in network.inputs.items()}
    )
    assert set(families.HEADS[network.family]) <= set(outputs)


@pytest.mark.parametrize("architecture", ["deeplab_v3", "panoptic_deeplab"])
def test_networks_of_one_image_give_what_the_model_gives(architecture: str) -> None:
    model, network = make(architecture)
    image = frame(0)
    assert list(network.inputs) == [keys.IMAGE]
    assert network.inputs[keys.IMAGE].dtype == tf.uint8
    expected = model(tf.cast(image, tf.float32))
    assert_equal_heads(network({keys.IMAGE: image}), expected)


def test_motion_takes_what_it_saw_as_inputs_of_their_own() -> None:
    model, network = make("motion_deeplab")
    heatmap = tf.random.uniform((1, *SIZE, 1), seed=0)
    expected = model(
        tf.concat([tf.cast(x, tf.float32) for x in (frame(0), frame(1), heatmap)], -1)
    )
    found = network(
        {
            keys.IMAGE: frame(0),
            keys.PREVIOUS_IMAGE: frame(1),
            keys.PREVIOUS_HEATMAP: heatmap,
        }
    )
    assert set(found) == set(expected)
    assert_equal_heads(found, expected)


def test_two_frames_need_one_encoder_run_each() -> None:
    model, network = make("vip_deeplab")
    (carried,) = set(network.inputs) - {keys.IMAGE}
    assert carried.startswith(keys.PREVIOUS_FEATURES)
    given = carried.removeprefix("previous_")
    zeros = tf.zeros(network.inputs[carried].shape)
    first = network({keys.IMAGE: frame(0), carried: zeros})
    second = network({keys.IMAGE: frame(1), carried: first[given]})
    pair = model(tf.cast(tf.concat([frame(0), frame(1)], -1), tf.float32))
    swapped = model(tf.cast(tf.concat([frame(1), frame(0)], -1), tf.float32))
    # Heads of a frame are its own; offsets of a pair come with its second frame.
    offsets = second.pop(keys.NEXT_OFFSET_MAP)
    np.testing.assert_allclose(
        offsets, pair[keys.NEXT_OFFSET_MAP], rtol=1e-5, atol=1e-5
    )
    del first[keys.NEXT_OFFSET_MAP]
    del first[given], second[given]
    assert_equal_heads(first, pair)
    assert_equal_heads(second, swapped)


def test_a_mask_transformer_is_a_family_of_its_own() -> None:
    config = parse_config(
        """
        model_options {
          backbone { name: "max_deeplab_s" output_stride: 16 }
          max_deeplab {
            pixel_space_head { output_channels: 8 head_channels: 8 }
            auxiliary_low_level { feature_key: "res3" channels_project: 4 }
            auxiliary_low_level { feature_key: "res2" channels_project: 4 }
            auxiliary_semantic_head { output_channels: 11 head_channels: 8 }
          }
        }
        """,
        source="test",
    )
    assert families.family_of(config) == families.MASKS
