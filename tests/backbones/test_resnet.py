"""Published names compile to the tables of their papers."""

from typing import Any

import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

from deeplab2_edge.backbones import max_deeplab, resnet
from deeplab2_edge.backbones.residual import Stage
from deeplab2_edge.config import BackboneOptions
from deeplab2_edge.errors import ConfigError
from deeplab2_edge.layers.axial_block import Block

pytestmark = pytest.mark.tf


def stages(name: str, **options: Any) -> dict[str, Stage]:
    preset = resnet.PRESETS[name]
    compiled = resnet.compile_stages(preset, BackboneOptions(name=name, **options))
    return {stage.name: stage for stage in compiled}


def widths(blocks: tuple[Block, ...]) -> list[tuple[Any, ...]]:
    return [(block.kind, *block.filters, block.stride) for block in blocks]


def test_resnet50_at_stride_16() -> None:
    table = stages("resnet50", output_stride=16)
    assert [len(stage.blocks) for stage in table.values()] == [3, 4, 6, 3]
    assert widths(table["_stage2"].blocks)[:2] == [
        ("bottleneck", 64, 64, 256, 2),
        ("bottleneck", 64, 64, 256, 1),
    ]
    last = table["_stage5"].blocks
    assert widths(last) == [("bottleneck", 512, 512, 2048, 1)] * 3
    # The first block of a stage that lost its stride keeps the old dilation.
    assert [block.rate for block in last] == [1, 2, 2]


@pytest.mark.parametrize(
    ("output_stride", "fourth", "fifth"),
    [(32, [1, 1, 1], [1, 1, 1]), (16, [1, 1, 1], [1, 2, 2]), (8, [1, 2, 2], [2, 4, 4])],
)
def test_dilation_replaces_strides_beyond_the_output_stride(
    output_stride: int, fourth: list[int], fifth: list[int]
) -> None:
    table = stages("resnet50", output_stride=output_stride)
    assert [block.rate for block in table["_stage4"].blocks[:3]] == fourth
    assert [block.rate for block in table["_stage5"].blocks] == fifth


def test_wide_resnet_has_a_stage_1_and_wide_bottlenecks_at_the_end() -> None:
    table = stages("wide_resnet41", output_stride=8)
    assert list(table) == [f"_stage{number}" for number in range(1, 6)]
    assert widths(table["_stage1"].blocks) == [("basic", 128, 128, 1)] * 3
    fourth = table["_stage4"].blocks
    assert widths(fourth) == [("basic", 1024, 1024, 1)] * 3
    # Both convolutions of a basic block have a dilation of their own.
    assert [(b.rate, b.second_rate) for b in fourth] == [(1, 2), (2, 2), (2, 2)]
    assert widths(table["_stage5"].blocks) == [("bottleneck", 512, 1024, 2048, 1)] * 3


def test_axial_swidernet_attends_from_stride_16_on() -> None:
    table = stages("axial_swidernet", output_stride=16)
    assert [block.kind for block in table["_stage4"].blocks] == [
        "basic",
        "axial",
        "axial",
    ]
    assert widths(table["_stage5"].blocks) == [("axial", 2048, 512, 2048, 1)] * 3
    options = table["_stage5"].blocks[0].attention
    assert (options.key_expansion, options.value_expansion) == (2, 4)
    strided = stages("axial_swidernet", output_stride=32)["_stage5"].blocks
    assert [block.stride for block in strided] == [2, 1, 1]


@pytest.mark.parametrize("name", ["axial_resnet_l", "axial_deeplab_s"])
def test_axial_resnets_attend_in_all_stages(name: str) -> None:
    for stage in stages(name, output_stride=16).values():
        assert {block.kind for block in stage.blocks} == {"axial"}


@pytest.mark.parametrize(
    ("multiplier", "blocks"), [(3, [9, 18, 9, 9]), (4.5, [13, 27, 13, 13])]
)
def test_layer_multiplier_deepens_all_but_stage_1(
    multiplier: float, blocks: list[int]
) -> None:
    table = stages("swidernet", output_stride=16, backbone_layer_multiplier=multiplier)
    assert [len(stage.blocks) for stage in table.values()] == [3, *blocks]


def test_switchable_atrous_convolution_takes_whole_stages() -> None:
    table = stages("swidernet", output_stride=16, use_sac_beyond_stride=32)
    assert all(block.use_sac for block in table["_stage5"].blocks)
    assert not any(block.use_sac for block in table["_stage4"].blocks)


def test_attention_blocks_leave_the_switch_to_convolutions() -> None:
    table = stages("axial_swidernet", output_stride=16, use_sac_beyond_stride=8)
    blocks = [block for stage in table.values() for block in stage.blocks]
    assert {(block.kind, block.use_sac) for block in blocks} == {
        *(("basic", False), ("basic", True), ("axial", False))
    }


def test_a_width_that_the_heads_do_not_divide_names_the_multiplier() -> None:
    with pytest.raises(ConfigError) as caught:
        stages("axial_resnet_s", backbone_width_multiplier=0.75 / 4)
    assert str(caught.value) == (
        "model_options.backbone: with backbone_width_multiplier 0.1875 and "
        "stem_width_multiplier 1, filters is 12; the 8 heads of axial blocks share the "
        "channels: filters must be a multiple of 8"
    )


def test_linear_stochastic_depth_follows_the_stride_in_front_of_a_block() -> None:
    options = {"drop_path_keep_prob": 0.8, "drop_path_schedule": "linear"}

    def kept(name: str) -> list[tuple[float, float]]:
        return [
            (
                round(stage.blocks[0].keep_prob, 6),
                round(stage.blocks[-1].keep_prob, 6),
            )
            for stage in stages(name, output_stride=16, **options).values()
        ]

    assert kept("resnet50") == [(1, 1), (1, 1), (1, 0.85), (0.85, 0.8)]
    assert kept("wide_resnet41") == [
        (1, 1),
        (1, 0.95),
        (0.95, 0.9),
        (0.9, 0.85),
        (0.85, 0.8),
    ]


def steps(name: str, output_stride: int = 16) -> list[tuple[str, int]]:
    preset = max_deeplab.PRESETS[name]
    return [
        (step.name, step.stride)
        for step in max_deeplab.decoder_steps(preset, output_stride)
    ]


def test_small_max_deeplab_walks_up_once() -> None:
    assert steps("max_deeplab_s") == [
        ("_stage5_extra", 16),
        ("_decoder_stage1_extra", 8),
        ("_decoder_stage2_extra", 4),
    ]
    assert [stride for _, stride in steps("max_deeplab_s", 32)] == [32, 16, 8, 4]
    assert steps("max_deeplab_s_backbone") == []


def test_large_max_deeplab_stacks_decoders_in_and_behind_its_backbone() -> None:
    backbone = [
        ("_decoder_stage1", 8),
        ("_decoder_stage2", 4),
        ("_decoder_stage3", 8),
        ("_decoder_stage4", 16),
    ]
    assert steps("max_deeplab_l_backbone") == backbone
    assert steps("max_deeplab_l") == [
        *backbone,
        ("_decoder_stage4_extra", 16),
        ("_decoder_stage5_extra", 8),
        ("_decoder_stage6_extra", 4),
        ("_decoder_stage7_extra", 8),
        ("_decoder_stage8_extra", 16),
        ("_decoder_stage9_extra", 8),
        ("_decoder_stage10_extra", 4),
    ]
