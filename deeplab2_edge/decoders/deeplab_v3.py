"""The decoders of DeepLabv3 and DeepLabv3+.

Both build all five branches of the ASPP and their own convolution types: the options
`aspp_use_only_1x1_proj_conv` and `decoder_conv_type` do not concern them.

References:
    Chen et al., Rethinking Atrous Convolution, arXiv:1706.05587.
    Chen et al., Encoder-Decoder with Atrous Separable Convolution, ECCV 2018,
    arXiv:1802.02611.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from deeplab2_edge.config import DecoderOptions, LowLevelOptions
from deeplab2_edge.decoders.context import context, feature_of
from deeplab2_edge.layers.conv import biased_conv, conv, separable_conv
from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.layers.resize import resize_like
from deeplab2_edge.optional import require

tf_keras = require("tf_keras", extra="train")

_KERNEL_SIZE = 3
# Unlike the heads of the Panoptic-DeepLab family, the last layer is wrapped.
_LAST_PATH = "semantic_last_layer/_conv"


def build_deeplab_v3_decoder(
    features: Mapping[str, Any],
    options: DecoderOptions,
    num_classes: int,
    *,
    pool_size: Sequence[int] | None,
    defaults: LayerDefaults,
) -> Any:
    """Builds ASPP, a 3x3 convolution and the classifier.

    Args:
        features: Encoder endpoints.
        options: Feature, widths and rates.
        num_classes: Channels of the result.
        pool_size: Window of the ASPP pooling branch, see `context`.
        defaults: What all layers share.

    Returns:
        Logits `[B, h, w, num_classes]` at the stride of the feature.
    """
    x = context(
        features,
        "deeplab_v3_aspp",
        options.replace(aspp_use_only_1x1_proj_conv=False),
        pool_size=pool_size,
        defaults=defaults,
    )
    x = conv(
        x,
        "classifier_conv_bn_act",
        options.decoder_channels,
        kernel_size=_KERNEL_SIZE,
        defaults=defaults,
    )
    return biased_conv(x, _LAST_PATH, num_classes, kernel_initializer="he_normal")


def build_deeplab_v3_plus_decoder(
    features: Mapping[str, Any],
    options: DecoderOptions,
    low_level: LowLevelOptions,
    num_classes: int,
    *,
    pool_size: Sequence[int] | None,
    defaults: LayerDefaults,
) -> Any:
    """Builds ASPP, one skip connection, two separable convolutions, the classifier.

    Args:
        features: Encoder endpoints.
        options: Feature, widths and rates.
        low_level: The skip connection.
        num_classes: Channels of the result.
        pool_size: Window of the ASPP pooling branch, see `context`.
        defaults: What all layers share.

    Returns:
        Logits `[B, h, w, num_classes]` at the stride of the skip connection.
    """
    high = context(
        features,
        "deeplab_v3plus_aspp",
        options.replace(aspp_use_only_1x1_proj_conv=False),
        pool_size=pool_size,
        defaults=defaults,
    )
    skip_path = "deeplab_v3plus_project_conv_bn_act"
    low = conv(
        feature_of(features, skip_path, low_level),
        skip_path,
        low_level.channels_project,
        defaults=defaults,
    )
    path = "deeplab_v3plus_fuse"
    high = resize_like(high, low, f"{path}/_resize", defaults.resize)
    x = tf_keras.layers.Concatenate(name=f"{path}/_concat")([high, low])
    for index in (1, 2):
        x = separable_conv(
            x,
            f"{path}/_conv{index}_bn_act",
            options.decoder_channels,
            kernel_size=_KERNEL_SIZE,
            defaults=defaults,
        )
    return biased_conv(x, _LAST_PATH, num_classes, kernel_initializer="he_normal")
