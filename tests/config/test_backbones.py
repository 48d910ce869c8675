from collections.abc import Iterator

import pytest

from deeplab2_edge.config import backbones, parse_config, validate_config
from deeplab2_edge.config.backbones import (
    BACKBONES,
    add_backbone_name,
    backbone_info,
    backbone_names,
    require_backbone,
    unknown_backbone,
)
from deeplab2_edge.errors import ConfigError


@pytest.fixture
def own_name(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(backbones, "_own_names", [])
    add_backbone_name("my_encoder")
    yield "my_encoder"


def model(name: str) -> str:
    return f"""model_options {{
      backbone {{ name: "{name}" output_stride: 16 }}
      decoder {{ feature_key: "my_features" atrous_rates: [6, 12, 18] }}
      deeplab_v3 {{ num_classes: 19 }} }}"""


def test_names_of_any_case_are_known() -> None:
    assert require_backbone("ResNet50") == "resnet50"
    assert unknown_backbone("AXIAL_DEEPLAB_S") == ""
    assert backbone_names()[: len(BACKBONES)] == BACKBONES


def test_an_unknown_name_answers_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="'resnet5O'; expected one of mobile.*; did "):
        require_backbone("resnet5O")
    assert "did you mean axial_swidernet" in unknown_backbone("axial_swidenet")
    own = "; a backbone of your own? add --import FILE"
    assert unknown_backbone("hybrid_of_mine").endswith(own)
    assert own not in unknown_backbone("moat_0")


@pytest.mark.parametrize(
    ("name", "system"),
    [
        ("kmax_resnet50", "kMaX-DeepLab"),
        ("kmax_convnext_tiny", "kMaX-DeepLab"),
        ("convnext_base", "ConvNeXt"),
        ("tiny_moat_0", "MOAT"),
    ],
)
def test_later_encoders_are_told_to_be_out_of_scope(name: str, system: str) -> None:
    message = f"name is '{name}'; not supported: {system} is outside this version's"
    with pytest.raises(ConfigError, match=message):
        require_backbone(name)
    with pytest.raises(ConfigError, match=message):
        validate_config(parse_config(model(name)))


def test_an_own_backbone_passes(own_name: str) -> None:
    add_backbone_name(own_name)  # a notebook cell that runs again
    assert backbone_names() == (*BACKBONES, own_name)
    assert require_backbone("My_Encoder") == own_name
    assert backbone_info(own_name) is None
    validate_config(parse_config(model(own_name)))


@pytest.mark.parametrize("name", ["", "My_Encoder", " x", "resnet50"])
def test_a_name_that_would_not_be_found_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="expected"):
        add_backbone_name(name)
