"""The ResNet family: ResNet, Wide-ResNet, SWideRNet, and their axial relatives.

A published name is a `Preset`; `compile_stages` turns it, with the options of a
configuration, into a table of blocks. Sources: He et al., CVPR 2016 (ResNet); Wu et
al., arXiv:1611.10080 (Wide-ResNet-41 after Chen et al., arXiv:2005.10266); Chen et al.,
arXiv:2011.11675 (SWideRNet); Wang et al., ECCV 2020, arXiv:2003.07853 (Axial-ResNet).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deeplab2_edge.backbones.residual import Network, Stage, build_network
from deeplab2_edge.config import BackboneOptions
from deeplab2_edge.errors import ConfigError
from deeplab2_edge.layers.axial_attention import AttentionOptions
from deeplab2_edge.layers.axial_block import ATTENTION_KINDS, Block, Transformer
from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.layers.dual_path_options import DualPathOptions

# Depth of queries and keys of a transformer of expansion 1.
_TRANSFORMER_CHANNELS = 128


@dataclass(frozen=True)
class BlockGroupOptions:
    """Holds what all groups of blocks of a preset share.

    Strides in `use_*_beyond_stride` are compared with the running stride in front of a
    block (behind it for transformers); 0 means never.

    Attributes:
        attention_bottleneck_expansion: Width of the first 1x1 convolution of an
            attention block, over its base width.
        drop_path_beyond_stride: Blocks of smaller stride keep every sample.
        use_global_beyond_stride: From this stride on blocks attend among all pixels.
        attention: Of the attention blocks.
        transformer: Of the dual-path transformers.
    """

    attention_bottleneck_expansion: int = 2
    drop_path_beyond_stride: int = 16
    use_global_beyond_stride: int = 0
    attention: AttentionOptions = field(
        default_factory=lambda: AttentionOptions(key_expansion=1, value_expansion=2)
    )
    transformer: DualPathOptions = field(default_factory=DualPathOptions)


@dataclass(frozen=True)
class Preset:
    """Describes a published network before its options.

    Attributes:
        stem: Kind of stem; `"wider_resnet"` also has a stage 1 and wide blocks.
        num_blocks: Of stages 2 to 5.
        use_axial_beyond_stride: From this running stride on blocks use axial
            attention; 0 means never.
        group: What all blocks share.
        use_transformer_beyond_stride: From this stride on blocks are followed by a
            transformer; 0 means never.
        base_transformer_expansion: Width of the transformers at stride 16.
    """

    stem: str
    num_blocks: tuple[int, ...]
    use_axial_beyond_stride: int = 0
    group: BlockGroupOptions = BlockGroupOptions()
    use_transformer_beyond_stride: int = 0
    base_transformer_expansion: float = 1.0

    @property
    def is_wide(self) -> bool:
        """True for the Wide-ResNet kind: a stage 1, and basic blocks up to stage 4."""
        return self.stem == "wider_resnet"


_DEEP = (3, 4, 6, 3)
_WIDE = (3, 6, 3, 3)
_WIDE_GROUP = BlockGroupOptions(drop_path_beyond_stride=4)
WIDE_AXIAL_GROUP = BlockGroupOptions(
    attention_bottleneck_expansion=4,
    drop_path_beyond_stride=4,
    attention=AttentionOptions(key_expansion=2, value_expansion=4),
)

PRESETS: Mapping[str, Preset] = {
    "resnet50": Preset("resnet", _DEEP),
    "resnet50_beta": Preset("resnet_beta", _DEEP),
    "wide_resnet41": Preset("wider_resnet", _WIDE, group=_WIDE_GROUP),
    "swidernet": Preset("wider_resnet", _WIDE, group=_WIDE_GROUP),
    "axial_swidernet": Preset("wider_resnet", _WIDE, 16, group=WIDE_AXIAL_GROUP),
    # The small ones differ by a width of 0.5, which a configuration states itself.
    "axial_resnet_s": Preset("resnet", _DEEP, 2),
    "axial_resnet_l": Preset("resnet", _DEEP, 2),
    "axial_deeplab_s": Preset("resnet_beta", _DEEP, 2),
    "axial_deeplab_l": Preset("resnet_beta", _DEEP, 2),
}


def build_resnet(
    image: Any,
    preset: Preset,
    options: BackboneOptions,
    *,
    defaults: LayerDefaults,
    path: str = "encoder",
) -> dict[str, Any]:
    """Builds a network of the family without a memory.

    Args:
        image: `[B, H, W, C]`, normalized.
        preset: A value of `PRESETS`.
        options: Strides, multipliers and stochastic depth.
        defaults: What all layers share.
        path: Checkpoint path of the encoder.

    Returns:
        Endpoints `stage1` ... `stage5` (sums of residual blocks), `res1` ... `res5`
        (activated) and `backbone_output`; the stride of `resK` is
        `min(2 ** K, output_stride)`.
    """
    network = Network(
        compile_stages(preset, options),
        stem=preset.stem,
        stem_width_multiplier=options.stem_width_multiplier,
    )
    return build_network(image, network, defaults=defaults, path=path)[0]


def compile_stages(preset: Preset, options: BackboneOptions) -> tuple[Stage, ...]:
    """Turns a preset and the options of a configuration into a table."""
    stages = []
    if preset.is_wide:
        # Stage 1 of the wide kind keeps the stem's resolution.
        filters = round(32 * options.stem_width_multiplier)
        blocks = compile_blocks(preset, options, filters, 3, in_stride=2, stride=1)
        stages.append(Stage("_stage1", blocks))
    for number, num_blocks in enumerate(preset.num_blocks, start=2):
        in_stride = 2 ** (number - 1)
        blocks = compile_blocks(
            preset,
            options,
            round(in_stride * 32 * options.backbone_width_multiplier),
            int(num_blocks * options.backbone_layer_multiplier),
            in_stride=in_stride,
            stride=2,
            transformer_channels=transformer_channels(preset, in_stride),
        )
        stages.append(Stage(f"_stage{number}", blocks))
    return tuple(stages)


def transformer_channels(preset: Preset, stride: int) -> int:
    """Returns the query depth of transformers at a stride."""
    expansion = preset.base_transformer_expansion * stride / 16
    return int(_TRANSFORMER_CHANNELS * expansion)


def compile_blocks(
    preset: Preset,
    options: BackboneOptions,
    filters: int,
    num_blocks: int,
    *,
    in_stride: int,
    stride: int,
    transformer_channels: int = 0,
    use_transformer_beyond_stride: int | None = None,
) -> tuple[Block, ...]:
    """Turns one group of a preset into rows.

    Strides here are nominal: those of a network whose output stride limits nothing.
    The first block's kind, dilation and stochastic depth follow the stride in front of
    the group, those of the others the stride behind it; published weights expect that.

    Args:
        preset: The network.
        options: The configuration's.
        filters: Base width.
        num_blocks: Rows to make.
        in_stride: Nominal stride in front of the group.
        stride: Of the first block.
        transformer_channels: See `Transformer`.
        use_transformer_beyond_stride: By default the preset's.
    """
    limit = options.output_stride
    out_stride = in_stride * stride
    if use_transformer_beyond_stride is None:
        use_transformer_beyond_stride = preset.use_transformer_beyond_stride
    transformer = None
    if _is_beyond(out_stride, use_transformer_beyond_stride):
        transformer = Transformer(transformer_channels, preset.group.transformer)
    blocks = []
    for index in range(num_blocks):
        current = in_stride if index == 0 else out_stride
        rate = max(1, current // limit)
        kind, widths = _kind(preset, filters, current, out_stride)
        try:
            block = Block(
                kind,
                widths,
                stride=stride if index == 0 and in_stride < limit else 1,
                rate=rate,
                second_rate=max(rate, out_stride // limit) if index == 0 else rate,
                use_sac=kind not in ATTENTION_KINDS
                and _is_beyond(out_stride, options.use_sac_beyond_stride),
                use_squeeze_excite=options.use_squeeze_and_excite,
                keep_prob=_keep_prob(preset, options, current),
                attention=preset.group.attention,
                transformer=transformer,
            )
        except ValueError as error:  # of a width
            raise ConfigError(
                "model_options.backbone: with backbone_width_multiplier "
                f"{options.backbone_width_multiplier:g} and stem_width_multiplier "
                f"{options.stem_width_multiplier:g}, {error}"
            ) from error
        blocks.append(block)
    return tuple(blocks)


def _kind(
    preset: Preset, filters: int, current_stride: int, out_stride: int
) -> tuple[str, tuple[int, ...]]:
    attention = (
        filters * preset.group.attention_bottleneck_expansion,
        filters,
        4 * filters,
    )
    if _is_beyond(current_stride, preset.group.use_global_beyond_stride):
        return "global", attention
    if _is_beyond(current_stride, preset.use_axial_beyond_stride):
        return "axial", attention
    if not preset.is_wide:
        return "bottleneck", (filters, filters, 4 * filters)
    if out_stride < 32:
        return "basic", (4 * filters, 4 * filters)
    return "bottleneck", (filters, 2 * filters, 4 * filters)


def _keep_prob(preset: Preset, options: BackboneOptions, current_stride: int) -> float:
    if current_stride < preset.group.drop_path_beyond_stride:
        return 1.0
    if options.drop_path_schedule == "constant":
        return options.drop_path_keep_prob
    # A quarter of the drop at stride 4, all of it at stride 32.
    depth = (round(math.log2(current_stride)) - 1) / 4
    return 1.0 - (1.0 - options.drop_path_keep_prob) * depth


def _is_beyond(stride: int, threshold: int) -> bool:
    return stride >= threshold > 0
