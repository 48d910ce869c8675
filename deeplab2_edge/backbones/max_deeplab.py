"""The encoders of MaX-DeepLab: a ResNet with a memory and stacked decoders.

References:
    Wang et al., MaX-DeepLab, CVPR 2021, arXiv:2012.00759.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deeplab2_edge.backbones.residual import Network, Stage, build_network, build_stage
from deeplab2_edge.backbones.resnet import (
    WIDE_AXIAL_GROUP,
    BlockGroupOptions,
    Preset,
    compile_blocks,
    compile_stages,
    transformer_channels,
)
from deeplab2_edge.config import BackboneOptions
from deeplab2_edge.layers.activations import activate
from deeplab2_edge.layers.axial_block import Block
from deeplab2_edge.layers.conv import conv, conv1d
from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.layers.dual_path import memory_feature
from deeplab2_edge.layers.resize import resize_to, strided_side
from deeplab2_edge.optional import require

tf_keras: Any = require("tf_keras", extra="train")

# The stacked decoders turn round at this stride.
_HIGH_RESOLUTION_STRIDE = 4
# Nominal stride in front of stage 5.
_STAGE5_INPUT_STRIDE = 16


@dataclass(frozen=True)
class MaXPreset:
    """Describes an encoder of MaX-DeepLab.

    Attributes:
        backbone: Stem and stages 2 to 5.
        has_transformer_path: False leaves the memory, and all behind the backbone's
            own decoder stacks, away: the network becomes an encoder for Axial-DeepLab.
        decoder_stacks: Walks up to stride 4 and back, in the backbone.
        decoder_blocks: Blocks of each of their groups.
        extra_stacks: The same, between the backbone and the heads.
        extra_blocks: Blocks of each of their groups.
        extra_transformer_beyond_stride: As the preset's threshold, for the groups
            behind the backbone.
        memory_slots: Number of masks a network can give.
        memory_channels: Width of the memory.
        feature_channels: Width of the class and mask features.
    """

    backbone: Preset
    has_transformer_path: bool = True
    decoder_stacks: int = 0
    decoder_blocks: int = 1
    extra_stacks: int = 0
    extra_blocks: int = 1
    extra_transformer_beyond_stride: int = 32
    memory_slots: int = 128
    memory_channels: int = 256
    feature_channels: int = 256


def _small(use_transformer_beyond_stride: int) -> Preset:
    return Preset(
        "resnet_beta",
        (3, 4, 6, 3),
        16,
        group=BlockGroupOptions(),
        use_transformer_beyond_stride=use_transformer_beyond_stride,
    )


def _large(use_transformer_beyond_stride: int) -> Preset:
    return Preset(
        "wider_resnet",
        (3, 6, 3, 3),
        16,
        group=WIDE_AXIAL_GROUP,
        use_transformer_beyond_stride=use_transformer_beyond_stride,
        base_transformer_expansion=2.0,
    )


_LARGE = MaXPreset(
    _large(16),
    decoder_stacks=1,
    extra_stacks=1,
    extra_blocks=3,
    extra_transformer_beyond_stride=16,
    memory_channels=512,
    feature_channels=512,
)

PRESETS: Mapping[str, MaXPreset] = {
    "max_deeplab_s": MaXPreset(_small(32)),
    "max_deeplab_l": _LARGE,
    "max_deeplab_s_backbone": MaXPreset(_small(0), has_transformer_path=False),
    "max_deeplab_l_backbone": dataclasses.replace(
        _LARGE, backbone=_large(0), has_transformer_path=False
    ),
}


@dataclass(frozen=True)
class DecoderStep:
    """Is one group of blocks behind stage 5.

    Attributes:
        name: Checkpoint edge below the encoder.
        stride: Of the group.
        is_extra: True behind the backbone, where the transformer path lies.
        is_fused: True if the group reads a sum of features; the first group behind
            the backbone reads its output alone.
        transformer_stride: Stride that sets the width of its transformers.
    """

    name: str
    stride: int
    is_extra: bool
    is_fused: bool
    transformer_stride: int


def decoder_steps(preset: MaXPreset, output_stride: int) -> tuple[DecoderStep, ...]:
    """Lists the groups behind stage 5.

    They walk from the output stride up to stride 4 and back once per stack, and up
    once more at the end. The backbone ends where its own stacks are done.
    """
    steps = []
    stride, number, stacks_done = output_stride, 0, 0
    is_rising = is_extra = False
    last_stack = preset.decoder_stacks + preset.extra_stacks
    while not (
        is_extra and stacks_done == last_stack and stride == _HIGH_RESOLUTION_STRIDE
    ):
        if stride == output_stride and stacks_done == preset.decoder_stacks:
            is_extra = True
            # Behind a backbone without decoders, stage 5 goes on as it is.
            name, width_stride = "_stage5_extra", _STAGE5_INPUT_STRIDE
            if number:
                name, width_stride = f"_decoder_stage{number}_extra", stride
            steps.append(DecoderStep(name, stride, True, False, width_stride))
        if stride in (output_stride, _HIGH_RESOLUTION_STRIDE):
            is_rising = stride == _HIGH_RESOLUTION_STRIDE
        stride = stride * 2 if is_rising else stride // 2
        number += 1
        suffix = "_extra" if is_extra else ""
        name = f"_decoder_stage{number}{suffix}"
        steps.append(DecoderStep(name, stride, is_extra, True, stride))
        stacks_done += stride == output_stride
    if not preset.has_transformer_path:
        steps = [step for step in steps if not step.is_extra]
    return tuple(steps)


def build_max_deeplab(
    image: Any,
    preset: MaXPreset,
    options: BackboneOptions,
    *,
    defaults: LayerDefaults,
    path: str = "encoder",
) -> dict[str, Any]:
    """Builds an encoder of MaX-DeepLab.

    Args:
        image: `[B, H, W, C]`, normalized.
        preset: A value of `PRESETS`.
        options: Strides, multipliers and stochastic depth.
        defaults: What all layers share.
        path: Checkpoint path of the encoder.

    Returns:
        The endpoints of `resnet.build_resnet`; `backbone_output` is that of the last
        decoder stack in the backbone, if there is one. With the transformer path also
        `feature_panoptic` (stride 4), `feature_semantic` (stride 4 if decoders are
        stacked, else the output stride), `transformer_class_feature` and
        `transformer_mask_feature` `[B, slots, feature_channels]`.
    """
    memory = None
    if preset.has_transformer_path:
        memory = memory_feature(
            image, path, preset.memory_slots, preset.memory_channels
        )
    network = Network(
        compile_stages(preset.backbone, options),
        stem=preset.backbone.stem,
        stem_width_multiplier=options.stem_width_multiplier,
    )
    endpoints, memory = build_network(
        image, network, defaults=defaults, memory=memory, path=path
    )
    output_stride = options.output_stride
    # Stride -> features seen there, oldest first.
    seen = {2**level: [endpoints[f"stage{level}"]] for level in range(1, 5)}
    x = endpoints["stage5"]
    seen[output_stride] = [x]
    high_resolution = []
    for step in decoder_steps(preset, output_stride):
        blocks = _compile_group(preset, options, step)
        if step.is_fused:
            x = _fuse(
                [x, *seen[step.stride][-2:]],
                f"{path}/{step.name}_resized_fuse",
                [strided_side(side, step.stride) for side in image.shape[1:3]],
                blocks[-1].filters[-1],
                defaults,
            )
        else:
            # What follows fuses the output of this group instead of its input.
            seen[step.stride].pop()
        stage = Stage(step.name, blocks)
        x, memory = build_stage(x, stage, defaults=defaults, memory=memory, path=path)
        seen[step.stride].append(x)
        if step.stride == _HIGH_RESOLUTION_STRIDE:
            high_resolution.append(x)
        if not step.is_extra and step.stride == output_stride:
            endpoints["backbone_output"] = _activated(
                x, f"{path}/backbone_output", defaults
            )
    if preset.has_transformer_path:
        endpoints |= _features(
            memory,
            high_resolution,
            endpoints["backbone_output"],
            preset,
            path,
            defaults,
        )
    return endpoints


def _compile_group(
    preset: MaXPreset, options: BackboneOptions, step: DecoderStep
) -> tuple[Block, ...]:
    is_at_output_stride = step.stride == options.output_stride
    backbone = preset.backbone
    # Groups at the output stride are those of stage 5, whatever the stride is.
    nominal_stride = 32 if is_at_output_stride else step.stride
    return compile_blocks(
        backbone,
        options,
        512 if is_at_output_stride else 16 * step.stride,
        preset.extra_blocks if step.is_extra else preset.decoder_blocks,
        in_stride=nominal_stride,
        stride=1,
        transformer_channels=transformer_channels(backbone, step.transformer_stride),
        use_transformer_beyond_stride=(
            preset.extra_transformer_beyond_stride
            if step.is_extra
            else backbone.use_transformer_beyond_stride
        ),
    )


def _fuse(
    features: Sequence[Any],
    path: str,
    size: Sequence[int],
    channels: int,
    defaults: LayerDefaults,
) -> Any:
    """Sums features of other strides and widths.

    Args:
        features: Not activated.
        path: Checkpoint path.
        size: (height, width) of the sum.
        channels: Width of the sum.
        defaults: What all layers share.

    Returns:
        `[B, *size, channels]`, not activated. A feature of the right width is resized
        alone; one of just twice the size is taken at every second pixel.
    """
    summands = []
    for number, x in enumerate(features, start=1):
        if int(x.shape[-1]) != channels:
            activated = _activated(x, f"{path}/_activation{number}", defaults)
            is_double = all(
                (side + 1) // 2 == wanted
                for side, wanted in zip(x.shape[1:3], size, strict=True)
            )
            kind, stride = ("strided", 2) if is_double else ("resized", 1)
            x = conv(
                activated,
                f"{path}/_{kind}_conv_bn{number}",
                channels,
                stride=stride,
                activation="none",
                defaults=defaults,
            )
        summands.append(resize_to(x, size, f"{path}/_resize{number}", defaults.resize))
    return tf_keras.layers.Add(name=f"{path}/_add")(summands)


def _features(
    memory: Any,
    high_resolution: Sequence[Any],
    backbone_output: Any,
    preset: MaXPreset,
    path: str,
    defaults: LayerDefaults,
) -> dict[str, Any]:
    """Returns what the heads of MaX-DeepLab read."""
    features = {
        "feature_panoptic": _activated(
            high_resolution[-1], f"{path}/feature_panoptic", defaults
        ),
        "feature_semantic": backbone_output,
    }
    if len(high_resolution) > 1:
        features["feature_semantic"] = _activated(
            high_resolution[-2], f"{path}/feature_semantic", defaults
        )
    for kind in ("class", "mask"):
        features[f"transformer_{kind}_feature"] = conv1d(
            memory,
            f"{path}/_{kind}_feature_extra",
            preset.feature_channels,
            defaults=defaults,
        )
    return features


def _activated(x: Any, name: str, defaults: LayerDefaults) -> Any:
    return activate(x, name, "relu", defaults.hard_swish)
