"""Backbones of one's own: by name, in a configuration, with the right stride."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

from deeplab2_edge import backbones
from deeplab2_edge.backbones import Network, Stage, axial, basic, build_network
from deeplab2_edge.config import BackboneOptions
from deeplab2_edge.config import backbones as names
from deeplab2_edge.errors import ConfigError
from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.optional import require

tf_keras: Any = require("tf_keras", extra="train")

pytestmark = pytest.mark.tf
NAME = "test_registry_own"
TABLE = Network(
    stem_width_multiplier=0.125,
    stages=(
        Stage("_stage2", (basic(2, stride=2),)),
        Stage("_stage3", (axial(8, stride=2),)),
    ),
)


@pytest.fixture(autouse=True)
def own_backbone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(names, "_own_names", [])
    monkeypatch.setattr("deeplab2_edge.backbones.registry._own", {})

    def build(
        image: Any, options: BackboneOptions, *, defaults: LayerDefaults
    ) -> Mapping[str, Any]:
        return build_network(image, TABLE, defaults=defaults)[0]

    backbones.register_backbone(NAME, build)
    yield


def build(output_stride: int) -> dict[str, Any]:
    options = BackboneOptions(name=NAME, output_stride=output_stride)
    image = tf_keras.Input((33, 65, 3))
    return backbones.build_backbone(image, options, defaults=LayerDefaults())


def test_a_table_gives_endpoints_of_its_stages() -> None:
    shapes = {name: tuple(x.shape[1:]) for name, x in build(8).items()}
    assert shapes["res1"] == shapes["stage1"] == (17, 33, 8)
    assert shapes["res2"] == shapes["stage2"] == (9, 17, 8)
    assert shapes["res3"] == shapes["backbone_output"] == (5, 9, 32)


def test_an_output_stride_the_backbone_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        build(16)
    message = str(caught.value)
    assert message.startswith("model_options.backbone.output_stride is 16, but no")
    assert "is (3, 5) for an image of (33, 65) pixels" in message
    assert "res3 (5, 9)" in message


def test_public_names_exist() -> None:
    assert sorted(backbones.__all__) == backbones.__all__
    assert all(hasattr(backbones, name) for name in backbones.__all__)
