"""The general block: every kind of row, and what it promises."""

import dataclasses
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

import tf_keras

from deeplab2_edge.checkpoints import variable_paths
from deeplab2_edge.layers.axial_attention import AxisAttention
from deeplab2_edge.layers.axial_block import (
    Block,
    Transformer,
    axial,
    axial_block,
    basic,
    bottleneck,
    global_,
)
from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.layers.dual_path_options import DualPathOptions

pytestmark = pytest.mark.tf

ROWS = {
    "basic": basic(8),
    "basic with switchable atrous convolution": basic(8, use_sac=True, second_rate=2),
    "bottleneck": bottleneck(8),
    "wide bottleneck": Block("bottleneck", (8, 16, 32)),
    "bottleneck with switchable atrous convolution": bottleneck(8, use_sac=True),
    "squeezed": bottleneck(8, use_squeeze_excite=True),
    "axial": axial(8),
    "global": global_(8),
}


def build(
    block: Block, *, channels: int = 32, defaults: LayerDefaults | None = None
) -> Any:
    x = tf_keras.Input((9, 13, channels))
    memory = tf_keras.Input((5, 16))
    outputs = axial_block(
        x, memory, path="block", block=block, defaults=defaults or LayerDefaults()
    )
    return tf_keras.Model([x, memory], outputs)


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [16, 32])
def test_rows_give_their_width_at_their_stride(
    row: str, stride: int, channels: int
) -> None:
    block = Block(**{**vars(ROWS[row]), "stride": stride})
    model = build(block, channels=channels)
    size = (9, 13) if stride == 1 else (5, 7)
    assert model.output_shape[0] == (None, *size, 32)
    has_shortcut = any(
        path.startswith("block/_shortcut") for path in variable_paths(model)
    )
    assert has_shortcut == (channels != 32)


@pytest.mark.parametrize("row", ROWS)
def test_branch_starts_silent(row: str) -> None:
    """A new block gives its activated input: the last normalization scales by 0."""
    model = build(ROWS[row])
    x = np.random.default_rng(0).normal(size=(2, 9, 13, 32)).astype(np.float32)
    result, _ = model([x, np.zeros((2, 5, 16), np.float32)])
    np.testing.assert_allclose(result, np.maximum(x, 0.0), atol=1e-6)


def test_transformer_changes_the_memory() -> None:
    options = DualPathOptions(feed_forward_network_channels=16)
    model = build(bottleneck(8, transformer=Transformer(8, options)))
    for path, variable in variable_paths(model).items():
        if path.endswith("gamma"):
            variable.assign(np.ones(variable.shape))
    random = np.random.default_rng(0)
    x = random.normal(size=(2, 9, 13, 32)).astype(np.float32)
    memory = np.abs(random.normal(size=(2, 5, 16)).astype(np.float32))
    pixels, changed = model([x, memory])
    assert pixels.shape == (2, 9, 13, 32)
    assert changed.shape == memory.shape
    assert np.abs(changed - memory).max() > 0.1


def test_transformer_needs_a_memory() -> None:
    x = tf_keras.Input((9, 13, 32))
    with pytest.raises(ValueError, match="the network has no memory"):
        axial_block(
            x,
            path="block",
            block=bottleneck(8, transformer=Transformer(8)),
            defaults=LayerDefaults(),
        )


def test_positions_are_stretched_from_the_trained_size() -> None:
    model = build(axial(8), defaults=LayerDefaults(position_stretch=(2.0, 0.5)))
    lengths = {
        layer.axis: layer.trained_length
        for layer in model.layers
        if isinstance(layer, AxisAttention)
    }
    assert lengths == {"height": 17, "width": 7}


def test_striding_and_dilation_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="either strides or is dilated"):
        bottleneck(8, stride=2, rate=2)


@pytest.mark.parametrize(
    ("kind", "filters", "message"),
    [
        ("conv", (8, 8), "kind is 'conv'; must be one of"),
        ("basic", (8, 8, 8), "basic blocks have 2 widths"),
        ("axial", (8, 8), "axial blocks have 3 widths"),
        ("basic", (8, 0), "filters is 0; must be a whole number of at least 1"),
    ],
)
def test_impossible_rows_are_refused(
    kind: str, filters: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Block(kind, filters)


@pytest.mark.parametrize("row", [basic, bottleneck, axial, global_])
@pytest.mark.parametrize("filters", [0, -8, "8", 8.5, True, None])
def test_widths_are_whole_numbers(row: Any, filters: Any) -> None:
    with pytest.raises(ValueError) as caught:
        row(filters)
    assert str(caught.value) == (
        f"filters is {filters!r}; must be a whole number of at least 1"
    )


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("stride", 3, "stride is 3; must be 1 or 2"),
        ("stride", 1.0, "stride is 1.0; must be a whole number"),
        ("rate", 0, "rate is 0; must be a whole number"),
        ("keep_prob", 0, "keep_prob is 0; must be a probability above 0"),
        ("keep_prob", "1", "keep_prob is '1'; must be a probability above 0"),
        ("attention", 8, r"attention is 8; must be AttentionOptions\(...\)"),
        ("transformer", 64, r"transformer is 64; must be Transformer\(...\)"),
    ],
)
def test_fields_are_checked(field: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bottleneck(8, **{field: value})


@pytest.mark.parametrize("row", [axial, global_])
def test_attention_rows_divide_their_width_among_heads(row: Any) -> None:
    with pytest.raises(ValueError, match="filters is 12; the 8 .* a multiple of 8$"):
        row(12)
    halved = dataclasses.replace(row(8).attention, key_expansion=0.5)
    with pytest.raises(ValueError, match="filters is 8; .* a multiple of 16$"):
        row(8, attention=halved)
    assert row(16, attention=halved).filters == (32, 16, 64)


@pytest.mark.parametrize("row", [axial, global_])
def test_attention_rows_have_nothing_to_switch(row: Any) -> None:
    with pytest.raises(ValueError, match="use_sac is True, but .* no 3x3 convolution"):
        row(16, use_sac=True)
