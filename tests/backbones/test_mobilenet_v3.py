"""Minimalistic MobileNetV3: the same widths and strides from simpler ops."""

from typing import Any

import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

from deeplab2_edge.backbones import build_backbone
from deeplab2_edge.config import BackboneOptions
from deeplab2_edge.errors import ConfigError
from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.optional import require

tf_keras: Any = require("tf_keras", extra="train")

pytestmark = pytest.mark.tf


def build(name: str, *, has_gates: bool) -> tuple[Any, dict[str, Any]]:
    options = BackboneOptions(
        name=name, output_stride=16, use_squeeze_and_excite=has_gates
    )
    image = tf_keras.Input((33, 65, 3))
    endpoints = build_backbone(image, options, defaults=LayerDefaults())
    return tf_keras.Model(image, endpoints), endpoints


@pytest.mark.parametrize("size", ["small", "large"])
def test_decoders_find_the_same_features(size: str) -> None:
    usual, endpoints = build(f"mobilenet_v3_{size}", has_gates=True)
    simple, found = build(f"mobilenet_v3_{size}_minimalistic", has_gates=False)
    assert {name: x.shape for name, x in found.items()} == {
        name: x.shape for name, x in endpoints.items()
    }
    assert simple.count_params() < usual.count_params()
    kernels = {
        layer.kernel_size
        for layer in simple.layers
        if isinstance(layer, tf_keras.layers.DepthwiseConv2D)
    }
    assert kernels == {(3, 3)}
    names = " ".join(type(layer).__name__ for layer in simple.layers)
    assert "HardSwish" not in names and "Multiply" not in names
    limits = {
        float(layer.get_config()["max_value"])
        for layer in simple.layers
        if isinstance(layer, tf_keras.layers.ReLU)
    }
    assert limits == {6.0}


@pytest.mark.parametrize(
    ("name", "has_gates", "needed"),
    [
        ("mobilenet_v3_small", False, "defined with it: set it to true"),
        ("mobilenet_v3_small_minimalistic", True, "without it: set it to false"),
    ],
)
def test_gates_must_fit_the_name(name: str, has_gates: bool, needed: str) -> None:
    with pytest.raises(ConfigError, match=needed):
        build(name, has_gates=has_gates)
