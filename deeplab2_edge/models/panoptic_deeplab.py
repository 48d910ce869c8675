"""Panoptic-DeepLab: a semantic branch and, if enabled, an instance branch.

With an axial encoder and ASPPs reduced to their projection it is Axial-DeepLab.

References:
    Cheng et al., Panoptic-DeepLab, CVPR 2020, arXiv:1911.10194.
    Wang et al., Axial-DeepLab, ECCV 2020, arXiv:2003.07853.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from deeplab2_edge import keys
from deeplab2_edge.config import (
    DecoderOptions,
    ExperimentOptions,
    HeadOptions,
    InstanceOptions,
    LowLevelOptions,
)
from deeplab2_edge.decoders.panoptic import build_decoder, build_head
from deeplab2_edge.errors import ConfigError
from deeplab2_edge.layers.defaults import LayerDefaults


def build_heads(
    features: Mapping[str, Any],
    config: ExperimentOptions,
    *,
    pool_size: Sequence[int] | None,
    defaults: LayerDefaults,
) -> dict[str, Any]:
    """Builds everything that follows the encoder.

    Args:
        features: Encoder endpoints.
        config: The experiment.
        pool_size: Window of the ASPP pooling branch, see `decoders.context`.
        defaults: What all layers share.

    Returns:
        Raw heads at decoder stride: `semantic_logits` `[B, h, w, classes]` and, if
        instances are enabled, `center_heatmap` `[B, h, w, 1]` and `offset_map`
        `[B, h, w, 2]`.

    Raises:
        ConfigError: If a head is missing or the decoders cannot be built.
    """
    options = config.model_options.panoptic_deeplab
    assert options is not None
    decoder = config.model_options.decoder
    _, outputs = semantic_branch(
        features,
        decoder,
        options.low_level,
        options.semantic_head,
        pool_size=pool_size,
        defaults=defaults,
    )
    if options.instance.enable:
        _, instance_outputs = instance_branch(
            features,
            decoder,
            options.low_level,
            options.instance,
            pool_size=pool_size,
            defaults=defaults,
        )
        outputs |= instance_outputs
    return outputs


def semantic_branch(
    features: Mapping[str, Any],
    decoder: DecoderOptions,
    low_levels: Sequence[LowLevelOptions],
    head: HeadOptions | None,
    *,
    pool_size: Sequence[int] | None,
    defaults: LayerDefaults,
) -> tuple[Any, dict[str, Any]]:
    """Builds semantic decoder and head.

    Returns:
        The decoder's output `[B, h, w, decoder_channels]` and the raw heads.
    """
    x = build_decoder(
        features,
        "semantic_decoder",
        decoder,
        low_levels,
        pool_size=pool_size,
        defaults=defaults,
    )
    logits = build_head(
        x,
        "semantic_head_without_last_layer",
        required(head, "semantic_head"),
        last_path="semantic_last_layer",
        defaults=defaults,
    )
    return x, {keys.SEMANTIC_LOGITS: logits}


def instance_branch(
    features: Mapping[str, Any],
    decoder: DecoderOptions,
    low_levels: Sequence[LowLevelOptions],
    options: InstanceOptions,
    *,
    pool_size: Sequence[int] | None,
    defaults: LayerDefaults,
) -> tuple[Any, dict[str, Any]]:
    """Builds instance decoder, center head and regression head.

    Args:
        features: Encoder endpoints.
        decoder: Shared options, used unless the instance branch has its own.
        low_levels: Shared skip connections, likewise.
        options: The instance branch.
        pool_size: Window of the ASPP pooling branch, see `decoders.context`.
        defaults: What all layers share.

    Returns:
        The decoder's output `[B, h, w, decoder_channels]` and the raw heads.
    """
    x = instance_decoder(
        features,
        "instance_decoder",
        decoder,
        low_levels,
        options,
        pool_size=pool_size,
        defaults=defaults,
    )
    heads = (
        (keys.CENTER_HEATMAP, "instance_center_head", "center_head"),
        (keys.OFFSET_MAP, "instance_regression_head", "regression_head"),
    )
    outputs = {
        key: build_head(
            x,
            f"{path}_without_last_layer",
            required(getattr(options, field), f"instance.{field}"),
            last_path=f"{path}_last_layer",
            defaults=defaults,
        )
        for key, path, field in heads
    }
    return x, outputs


def instance_decoder(
    features: Mapping[str, Any],
    path: str,
    decoder: DecoderOptions,
    low_levels: Sequence[LowLevelOptions],
    options: InstanceOptions,
    *,
    pool_size: Sequence[int] | None,
    defaults: LayerDefaults,
) -> Any:
    """Builds a decoder with the options of the instance branch, see there."""
    return build_decoder(
        features,
        path,
        # An override replaces the shared options as a whole; nothing is inherited.
        options.instance_decoder_override or decoder,
        options.low_level_override or low_levels,
        pool_size=pool_size,
        defaults=defaults,
    )


def required(head: HeadOptions | None, field: str) -> HeadOptions:
    """Returns the options of a head that the network cannot do without.

    Raises:
        ConfigError: If they are missing.
    """
    if head is None:
        raise ConfigError(
            f"model_options: {field} is missing; this network has that head"
        )
    return head
