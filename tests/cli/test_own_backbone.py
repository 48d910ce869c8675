"""Ordinary mistakes in a backbone of one's own, as its author meets them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

from deeplab2_edge.cli import main
from deeplab2_edge.config import backbones as names
from deeplab2_edge.experiments import find_recipe

pytestmark = pytest.mark.tf

SOURCE = """\
from deeplab2_edge.backbones import *

table = Network(
    stem_width_multiplier=0.125,
    stages=(
        Stage("_stage2", (basic(4, stride=2),)),
        Stage("_stage3", (bottleneck(8, stride=2), axial(16))),
        Stage("_stage5", (bottleneck(8, stride=2),)),
    ),
)


def mine(image, options, *, defaults):
    endpoints, _ = build_network(image, table, defaults=defaults)
    return endpoints


register_backbone("cli_mine", mine)
"""


@pytest.fixture(autouse=True)
def no_own_backbones(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(names, "_own_names", [])
    monkeypatch.setattr("deeplab2_edge.backbones.registry._own", {})
    yield


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("axial(16)", "axial(12)", 7, "filters must be a multiple of 8"),
        ("axial(16)", "axial(16, use_sac=True)", 7, "axial blocks have no 3x3 conv"),
        ("bottleneck(8,", "bottleneck(0,", 7, "filters is 0; must be a whole number"),
        ("bottleneck(8,", "bottleneck('8',", 7, "filters is '8'; must be a whole"),
        ("bottleneck(8,", "bottleneck(8.5,", 7, "filters is 8.5; must be a whole"),
        ("stride=2),)),", "stride=2))),", 6, "must be a tuple: is a comma missing?"),
        ("stride=2", "stride=3", 6, "stride is 3; must be 1 or 2"),
        (
            "stages=(",
            "stem='nope', stages=(",
            3,
            "stem is 'nope'; must be one of resnet, resnet_beta, wider_resnet",
        ),
        (", *, defaults):", "):", 13, "expected (image, options, *, defaults)"),
        ("return endpoints", "endpoints", 13, "returned None; expected a dictionary"),
        ("return endpoints", "return 8", 13, "returned a value of type int; expected"),
        (
            "return endpoints",
            "return endpoints['res9']",
            15,
            "KeyError: 'res9'",
        ),
        (
            'Stage("_stage5", (bottleneck(8, stride=2),))',
            'Stage("_stage4", (basic(8, stride=2),)), '
            'Stage("_stage5", (basic(8, stride=2),))',
            None,
            "output_stride is 16, but 'res5' of 'cli_mine', which "
            "model_options.decoder.feature_key names, has stride 32 (strides: ",
        ),
        ('"cli_mine"', '"yours"', None, "a backbone of your own? add --import FILE"),
    ],
)
def test_a_mistake_is_one_line_that_says_where(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    old: str,
    new: str,
    line: int | None,
    message: str,
) -> None:
    own, config = tmp_path / "own.py", tmp_path / "mine.textproto"
    assert old in SOURCE
    own.write_text(SOURCE.replace(old, new), encoding="utf-8")
    recipe = find_recipe("synthetic_street_mobilenet_v3_small").read_text()
    config.write_text(recipe.replace('mobilenet_v3_small"', 'cli_mine"'))
    arguments = [str(config), "--import", str(own), "--input-size", "33x65"]
    assert main(["models", *arguments, "--quiet"]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1
    assert line is None or f"{own}:{line}: " in captured.err
    assert captured.out == ""
