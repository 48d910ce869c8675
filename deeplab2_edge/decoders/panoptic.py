"""The decoder and head shape shared by the Panoptic-DeepLab family.

References:
    Cheng et al., Panoptic-DeepLab, CVPR 2020, arXiv:1911.10194.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from deeplab2_edge.config import DecoderOptions, HeadOptions, LowLevelOptions
from deeplab2_edge.decoders.context import context, feature_of
from deeplab2_edge.errors import ConfigError
from deeplab2_edge.layers.conv import biased_conv, conv, separable_conv
from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.layers.resize import resize_like
from deeplab2_edge.optional import require

tf_keras = require("tf_keras", extra="train")

# Fusions and heads use 5x5 kernels (Panoptic-DeepLab, section 3.2).
_KERNEL_SIZE = 5
_CONV_TYPES = {"depthwise_separable_conv": separable_conv, "standard_conv": conv}


def build_decoder(
    features: Mapping[str, Any],
    path: str,
    options: DecoderOptions,
    low_levels: Sequence[LowLevelOptions],
    *,
    pool_size: Sequence[int] | None,
    defaults: LayerDefaults,
) -> Any:
    """Fuses the encoder's features from coarse to fine.

    Args:
        features: Encoder endpoints.
        path: Checkpoint path, for example `"semantic_decoder"`.
        options: Widths, atrous rates and convolution type.
        low_levels: Skip connections, coarse to fine.
        pool_size: Window of the ASPP pooling branch, see `context`.
        defaults: What all layers share.

    Returns:
        `[B, h, w, decoder_channels]` at the stride of the last low level.

    Raises:
        ConfigError: If a feature does not exist, the low levels do not run from
            coarse to fine, or the ASPP cannot be built.
    """
    x = context(
        features, f"{path}/_aspp", options, pool_size=pool_size, defaults=defaults
    )
    for index, low_level in enumerate(low_levels, start=1):
        skip_path = f"{path}/_low_level_conv{index}"
        skip = feature_of(features, skip_path, low_level)
        if any(
            fine < coarse
            for fine, coarse in zip(skip.shape[1:3], x.shape[1:3], strict=True)
        ):
            raise ConfigError(
                f"{low_level.feature_key!r} of {skip_path} is coarser than what it "
                "refines; list the low levels from coarse to fine, after feature_key"
            )
        skip = conv(skip, skip_path, low_level.channels_project, defaults=defaults)
        x = resize_like(x, skip, f"{path}/_resize{index}", defaults.resize)
        x = tf_keras.layers.Concatenate(name=f"{path}/_concat{index}")([x, skip])
        x = _wide_conv(
            x,
            f"{path}/_fusion_conv{index}",
            options.decoder_channels,
            options.decoder_conv_type,
            defaults,
        )
    return x


def build_head(
    x: Any, path: str, options: HeadOptions, *, defaults: LayerDefaults, last_path: str
) -> Any:
    """Adds one 5x5 convolution and the closing 1x1 convolution with bias.

    Args:
        x: `[B, h, w, C]`, a decoder's output.
        path: Checkpoint path of everything but the last layer.
        options: Widths and convolution type.
        defaults: What all layers share.
        last_path: Checkpoint path of the last layer.

    Returns:
        `[B, h, w, output_channels]`, not activated.
    """
    x = _wide_conv(x, path, options.head_channels, options.head_conv_type, defaults)
    return biased_conv(x, last_path, options.output_channels)


def _wide_conv(
    x: Any, path: str, channels: int, conv_type: str, defaults: LayerDefaults
) -> Any:
    if conv_type not in _CONV_TYPES:
        raise ConfigError(
            f"the convolution type of {path} is {conv_type!r}; expected one of "
            f"{', '.join(_CONV_TYPES)}"
        )
    return _CONV_TYPES[conv_type](
        x,
        # Published checkpoints keep it as a stack of one layer.
        f"{path}/_conv1_bn_act",
        channels,
        kernel_size=_KERNEL_SIZE,
        defaults=defaults,
    )
