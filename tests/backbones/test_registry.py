"""Backbones of one's own: by name, in a configuration, with the right stride."""

import functools
from collections.abc import Callable, Iterator, Mapping
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


def build(output_stride: int, feature_key: str | None = None) -> dict[str, Any]:
    options = BackboneOptions(name=NAME, output_stride=output_stride)
    image = tf_keras.Input((33, 65, 3))
    return backbones.build_backbone(
        image, options, defaults=LayerDefaults(), feature_key=feature_key
    )


def test_a_table_gives_endpoints_of_its_stages() -> None:
    shapes = {name: tuple(x.shape[1:]) for name, x in build(8).items()}
    assert shapes["res1"] == shapes["stage1"] == (17, 33, 8)
    assert shapes["res2"] == shapes["stage2"] == (9, 17, 8)
    assert shapes["res3"] == shapes["backbone_output"] == (5, 9, 32)


def test_an_output_stride_the_backbone_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        build(16)
    message = str(caught.value)
    assert message.startswith(
        "model_options.backbone.output_stride is 16, but no feature of "
        "'test_registry_own' has this stride (it gives stage1 2, stage2 4, stage3 8, "
    )
    assert "set it to the stride of the one that feature_key names" in message


def test_the_feature_that_is_decoded_has_the_output_stride() -> None:
    assert "res3" in build(8, "res3")
    assert "res3" in build(8, "unknown")  # the decoder tells what there is
    with pytest.raises(ConfigError) as caught:
        build(4, "res3")
    message = str(caught.value)
    assert message.startswith(
        "model_options.backbone.output_stride is 4, but 'res3' of 'test_registry_own', "
        "which model_options.decoder.feature_key names, has stride 8 (strides: "
    )
    assert message.endswith(
        "; set output_stride to 8, or decoder.feature_key to stage2 or res2, or change "
        "the strides of the blocks"
    )


def fail(image: Any, options: Any, *, defaults: Any) -> Any:
    stretched = 1
    return stretched / 0


def test_an_error_of_a_builder_names_it_and_its_line() -> None:
    backbones.register_backbone(NAME, fail)
    line = fail.__code__.co_firstlineno + 2
    with pytest.raises(ConfigError) as caught:
        build(8)
    assert str(caught.value) == (
        f"backbone '{NAME}', {__file__}:{line}: ZeroDivisionError: division by zero"
    )
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_long_error_becomes_one_line() -> None:
    def raise_keras(image: Any, options: Any, *, defaults: Any) -> Any:
        return tf_keras.layers.Conv2D(4, 99, name="encoder/x")(image)

    backbones.register_backbone(NAME, raise_keras)
    with pytest.raises(ConfigError) as caught:
        build(8)
    line = raise_keras.__code__.co_firstlineno + 1
    assert f"{__file__}:{line}: ValueError: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_a_user_can_mend_passes() -> None:
    def refuse(image: Any, options: Any, *, defaults: Any) -> Any:
        raise ConfigError("model_options.backbone.output_stride: mine is 8")

    backbones.register_backbone(NAME, refuse)
    with pytest.raises(ConfigError, match="^model_options.backbone.output_.* is 8$"):
        build(8)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "returned None; expected a dictionary of endpoints; is `return` miss"),
        (({}, None), "a value of type tuple; .*; build_network returns them and the"),
        ([1], "a value of type list; expected a dictionary"),
        ({"res5": None}, "None as endpoint 'res5'; expected a feature by name"),
        ({}, r"no feature of .* has this stride \(it gives none\)"),
    ],
)
def test_endpoints_are_a_dictionary(result: Any, message: str) -> None:
    backbones.register_backbone(NAME, lambda image, options, *, defaults: result)
    with pytest.raises(ConfigError, match=message):
        build(8)


def test_a_builder_that_cannot_be_called_is_refused_at_once() -> None:
    def build_without(image: Any, options: Any) -> Any:
        return {}

    place = f"{__file__}:{build_without.__code__.co_firstlineno}"
    for builder in (build_without, functools.partial(build_without)):
        with pytest.raises(ConfigError) as caught:
            backbones.register_backbone("test_registry_no", builder)  # type: ignore[arg-type]
        message = str(caught.value)
        assert message.startswith(f"backbone 'test_registry_no', {place}: the builder ")
        assert message.endswith("'defaults'; expected (image, options, *, defaults)")
    with pytest.raises(ConfigError, match="the builder is None; expected a function"):
        backbones.register_backbone("test_registry_no", None)  # type: ignore[arg-type]
    assert "test_registry_no" not in names.backbone_names()


def test_any_callable_can_build() -> None:
    class Builder:
        def __call__(self, image: Any, options: Any, *, defaults: Any) -> Any:
            return build_network(image, TABLE, defaults=defaults)[0] | {"x": 1 / 0}

    backbones.register_backbone(NAME, Builder())
    line = Builder.__call__.__code__.co_firstlineno + 1
    with pytest.raises(ConfigError, match=f":{line}: ZeroDivisionError"):
        build(8)


BLOCK = basic(2, stride=2)
STAGE = Stage("_stage2", (BLOCK,))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Stage("_stage2", BLOCK),  # type: ignore[arg-type]
            r"blocks must be a tuple: is a comma missing\? \(block,\)",
        ),
        (lambda: Stage("_stage2", None), "blocks is None; must be a tuple of Block"),  # type: ignore[arg-type]
        (lambda: Stage("_stage2", (BLOCK, 8)), "blocks holds 8; must hold Block"),  # type: ignore[arg-type]
        (lambda: Stage("", (BLOCK,)), "name is ''; must be text such as '_stage3'"),
        (lambda: Network(STAGE), r"stages must be a tuple: .* \(stage,\)"),  # type: ignore[arg-type]
        (lambda: Network(()), "stages is empty"),
        (lambda: Network((STAGE, STAGE)), "two stages are named '_stage2'"),
        (
            lambda: Network((STAGE,), stem="nope"),
            "stem is 'nope'; must be one of resnet, resnet_beta, wider_resnet",
        ),
        (lambda: Network((STAGE,), stem_width_multiplier=0), "is 0; must be a number"),
    ],
)
def test_impossible_tables_are_refused(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_public_names_exist() -> None:
    assert sorted(backbones.__all__) == backbones.__all__
    assert all(hasattr(backbones, name) for name in backbones.__all__)
