"""Motion-DeepLab: its variables, outputs, and the options it ignores."""

from typing import Any

import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

from deeplab2_edge import keys
from deeplab2_edge.config import ExperimentOptions
from deeplab2_edge.errors import ConfigError
from deeplab2_edge.models.motion_deeplab import build_heads
from tests.models import published

pytestmark = pytest.mark.tf

MOTION_HEAD = "motion_head { output_channels: 2 head_channels: 32 }"
OPTIONS = f"""
{published.LOW_LEVEL} {published.SEMANTIC_HEAD} {MOTION_HEAD}
instance {{ {published.INSTANCE} }}
"""


def motion(options: str = OPTIONS, **decoder: Any) -> ExperimentOptions:
    return published.experiment(f"motion_deeplab {{ {options} }}", **decoder)


def build(config: ExperimentOptions) -> tuple[published.Shapes, dict[str, object]]:
    features = published.resnet_endpoints()
    outputs = build_heads(
        features, config, pool_size=(3, 4), defaults=published.DEFAULTS
    )
    variables = published.shapes_of(list(features.values()), outputs)
    return variables, {name: tuple(x.shape) for name, x in outputs.items()}


EXPECTED = {**published.panoptic(19), **published.head("motion_regression", 128, 32, 2)}


def test_it_has_the_published_variables_and_outputs() -> None:
    variables, outputs = build(motion())
    assert variables == EXPECTED
    assert outputs == {
        keys.SEMANTIC_LOGITS: (None, 17, 25, 19),
        keys.CENTER_HEATMAP: (None, 17, 25, 1),
        keys.OFFSET_MAP: (None, 17, 25, 2),
        keys.FRAME_OFFSET_MAP: (None, 17, 25, 2),
    }


def test_convolution_types_and_enable_have_no_effect() -> None:
    standard = 'head_conv_type: "standard_conv" head_channels'
    options = OPTIONS.replace("head_channels", standard).replace(
        "instance_decoder_override {",
        "enable: false instance_decoder_override {"
        ' decoder_conv_type: "standard_conv" aspp_use_only_1x1_proj_conv: true',
    )
    decoder = {
        "decoder_conv_type": "standard_conv",
        "aspp_use_only_1x1_proj_conv": True,
    }
    variables, _ = build(motion(options, **decoder))
    assert variables == EXPECTED


def test_a_missing_head_is_named() -> None:
    with pytest.raises(ConfigError, match="motion_head is missing"):
        build(motion(OPTIONS.replace(MOTION_HEAD, "")))
