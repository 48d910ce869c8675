"""Motion-DeepLab: Panoptic-DeepLab that also points back to the previous frame.

The network is a pure function of 7 channels: RGB of the current frame, RGB of the
previous one, and the centers found there as a heat map in 0..1. Whoever runs it over a
video renders that map from the previous result, appends it and keeps the tracks; for
the first frame it is all zeros. Inside, the map is normalized like an image, from 0..1
to -1..-0.992: published weights expect that.

References:
    Weber et al., STEP: Segmenting and Tracking Every Pixel, NeurIPS 2021,
    arXiv:2102.11859.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from deeplab2_edge import keys
from deeplab2_edge.config import (
    DecoderOptions,
    ExperimentOptions,
    HeadOptions,
    InstanceOptions,
)
from deeplab2_edge.decoders.panoptic import build_head
from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.models.panoptic_deeplab import (
    instance_branch,
    required,
    semantic_branch,
)

_CONV_TYPE = "depthwise_separable_conv"


def build_heads(
    features: Mapping[str, Any],
    config: ExperimentOptions,
    *,
    pool_size: Sequence[int] | None,
    defaults: LayerDefaults,
) -> dict[str, Any]:
    """Builds everything that follows the encoder.

    As in the original, some options have no effect: instances are always on, all
    convolutions are separable, and the ASPPs have all their branches.

    Args:
        features: Encoder endpoints.
        config: The experiment.
        pool_size: Window of the ASPP pooling branch, see `decoders.context`.
        defaults: What all layers share.

    Returns:
        Raw heads at decoder stride: those of Panoptic-DeepLab and `frame_offset_map`
        `[B, h, w, 2]`, (dy, dx) from a pixel to the center of its instance in the
        previous frame.

    Raises:
        ConfigError: If a head is missing or the decoders cannot be built.
    """
    options = config.model_options.motion_deeplab
    assert options is not None
    decoder = _plain_decoder(config.model_options.decoder)
    _, outputs = semantic_branch(
        features,
        decoder,
        options.low_level,
        _plain_head(options.semantic_head),
        pool_size=pool_size,
        defaults=defaults,
    )
    instance_features, instance_outputs = instance_branch(
        features,
        decoder,
        options.low_level,
        _plain_instance(options.instance),
        pool_size=pool_size,
        defaults=defaults,
    )
    frame_offsets = build_head(
        instance_features,
        "motion_regression_head_without_last_layer",
        required(_plain_head(options.motion_head), "motion_head"),
        last_path="motion_regression_head_last_layer",
        defaults=defaults,
    )
    return {**outputs, **instance_outputs, keys.FRAME_OFFSET_MAP: frame_offsets}


def _plain_instance(options: InstanceOptions) -> InstanceOptions:
    override = options.instance_decoder_override
    return options.replace(
        instance_decoder_override=None
        if override is None
        else _plain_decoder(override),
        center_head=_plain_head(options.center_head),
        regression_head=_plain_head(options.regression_head),
    )


def _plain_decoder(options: DecoderOptions) -> DecoderOptions:
    return options.replace(
        decoder_conv_type=_CONV_TYPE, aspp_use_only_1x1_proj_conv=False
    )


def _plain_head(options: HeadOptions | None) -> HeadOptions | None:
    return None if options is None else options.replace(head_conv_type=_CONV_TYPE)
