"""DeepLabv3 and v3+: their variables, outputs, and what they ignore."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

from deeplab2_edge import keys
from deeplab2_edge.checkpoints import variable_paths
from deeplab2_edge.config import ExperimentOptions
from deeplab2_edge.errors import ConfigError
from deeplab2_edge.models.deeplab_v3 import build_heads
from deeplab2_edge.optional import require
from tests.models import published

tf_keras = require("tf_keras", extra="train")

pytestmark = pytest.mark.tf

V3 = "deeplab_v3 { num_classes: 19 }"
V3_PLUS = """
deeplab_v3_plus {
  low_level { feature_key: "%s" channels_project: 48 } num_classes: 19
}
"""
IGNORED = {
    "aspp_use_only_1x1_proj_conv": True,
    "decoder_conv_type": "standard_conv",
}
LAST_LAYER = published.last_layer("semantic_last_layer/_conv", 256, 19)


def build(config: ExperimentOptions) -> tuple[published.Shapes, tuple[int | None, ...]]:
    features = published.resnet_endpoints()
    outputs = build_heads(
        features, config, pool_size=(3, 4), defaults=published.DEFAULTS
    )
    assert list(outputs) == [keys.SEMANTIC_LOGITS]
    shape = tuple(outputs[keys.SEMANTIC_LOGITS].shape)
    return published.shapes_of(list(features.values()), outputs), shape


@pytest.mark.parametrize("ignored", [{}, IGNORED], ids=["", "ignored"])
def test_v3_has_the_published_variables(ignored: dict[str, Any]) -> None:
    variables, shape = build(published.experiment(V3, **ignored))
    assert shape == (None, 3, 4, 19)  # the stride of the encoder
    assert variables == {
        **published.aspp("deeplab_v3_aspp", 2048),
        **published.conv("classifier_conv_bn_act", 3, 3, 256, 256),
        **LAST_LAYER,
    }


@pytest.mark.parametrize("ignored", [{}, IGNORED], ids=["", "ignored"])
def test_v3_plus_has_the_published_variables(ignored: dict[str, Any]) -> None:
    variables, shape = build(published.experiment(V3_PLUS % "res2", **ignored))
    assert shape == (None, 17, 25, 19)  # the stride of the skip connection
    fuse = "deeplab_v3plus_fuse"
    assert variables == {
        **published.aspp("deeplab_v3plus_aspp", 2048),
        **published.conv("deeplab_v3plus_project_conv_bn_act", 1, 1, 256, 48),
        **published.separable(f"{fuse}/_conv1_bn_act", 3, 304, 256),
        **published.separable(f"{fuse}/_conv2_bn_act", 3, 256, 256),
        **LAST_LAYER,
    }


def test_widths_come_from_the_decoder_options() -> None:
    config = published.experiment(
        V3_PLUS % "res3", decoder_channels=40, aspp_channels=24
    )
    variables, shape = build(config)
    assert shape == (None, 9, 13, 19)
    path = "deeplab_v3plus_fuse/_conv1_bn_act/_pointwise/_conv/kernel"
    assert variables[path] == (1, 1, 24 + 48, 40)


def test_the_classifier_starts_with_a_he_normal_kernel() -> None:
    features = published.resnet_endpoints()
    tf_keras.utils.set_random_seed(0)
    outputs = build_heads(
        features,
        published.experiment(V3),
        pool_size=None,
        defaults=published.DEFAULTS,
    )
    model = tf_keras.Model(list(features.values()), outputs)
    kernel = variable_paths(model)["semantic_last_layer/_conv/kernel"].numpy()
    assert np.std(kernel) == pytest.approx(np.sqrt(2 / 256), rel=0.05)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            published.experiment(V3, feature_key="res6"),
            "feature_key of deeplab_v3_aspp is 'res6'; the encoder gives res1, res2,",
        ),
        (
            published.experiment(V3_PLUS % "stage2"),
            "feature_key of deeplab_v3plus_project_conv_bn_act is 'stage2'",
        ),
        (
            published.experiment(V3, atrous_rates=[6, 12]),
            "atrous_rates of deeplab_v3_aspp are .*expected 3 rates",
        ),
    ],
)
def test_what_cannot_be_built_is_named(config: ExperimentOptions, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(config)


def test_a_window_larger_than_the_map_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"is \(4, 4\), more than .* \(3, 4\)"):
        build_heads(
            published.resnet_endpoints(),
            published.experiment(V3),
            pool_size=(4, 4),
            defaults=published.DEFAULTS,
        )
