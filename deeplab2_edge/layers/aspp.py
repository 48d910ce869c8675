"""Atrous spatial pyramid pooling."""

from collections.abc import Sequence
from typing import Any

from deeplab2_edge.layers.conv import conv
from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.layers.dropout import ReplayableDropout
from deeplab2_edge.layers.pooling import global_mean, window_mean
from deeplab2_edge.layers.resize import resize_like
from deeplab2_edge.optional import require

tf_keras: Any = require("tf_keras", extra="train")

# Dropout after the projection, in training only (Chen et al., DeepLabv3).
_DROPOUT = 0.1


def aspp(
    x: Any,
    path: str,
    channels: int,
    *,
    atrous_rates: Sequence[int],
    pool_size: Sequence[int] | None,
    only_1x1_projection: bool,
    defaults: LayerDefaults,
) -> Any:
    """Looks at `x` at several scales and projects the result to `channels`.

    Args:
        x: `[B, h, w, C]`.
        path: Checkpoint path of the block.
        channels: Width of each branch and of the result.
        atrous_rates: Dilations of the three 3x3 branches; unused with
            `only_1x1_projection`.
        pool_size: Window (height, width) of the pooling branch in feature pixels,
            moved with stride 1; `None` pools the whole map. It comes from the
            training crop and must not exceed the map.
        only_1x1_projection: Build the projection alone (Axial-DeepLab).
        defaults: What all layers share.

    Returns:
        `[B, h, w, channels]`.

    Raises:
        ValueError: If `pool_size` exceeds the feature map.

    References:
        Chen et al., Rethinking Atrous Convolution, arXiv:1706.05587.
    """
    if only_1x1_projection:
        return conv(x, f"{path}/_proj_conv_bn_act", channels, defaults=defaults)
    branches = [conv(x, f"{path}/_conv_bn_act", channels, defaults=defaults)]
    for index, rate in enumerate(atrous_rates, start=1):
        branches.append(
            conv(
                x,
                f"{path}/_aspp_conv{index}/_conv_bn_act",
                channels,
                kernel_size=3,
                rate=rate,
                defaults=defaults,
            )
        )
    branches.append(
        _pooled_branch(x, f"{path}/_aspp_pool", channels, pool_size, defaults)
    )
    x = tf_keras.layers.Concatenate(name=f"{path}/_concat")(branches)
    x = conv(x, f"{path}/_proj_conv_bn_act", channels, defaults=defaults)
    return ReplayableDropout(_DROPOUT, name=f"{path}/_proj_drop")(x)


def _pooled_branch(
    x: Any,
    path: str,
    channels: int,
    pool_size: Sequence[int] | None,
    defaults: LayerDefaults,
) -> Any:
    height, width = x.shape[1:3]
    window = tuple(pool_size) if pool_size is not None else (height, width)
    if window[0] > height or window[1] > width:
        raise ValueError(
            f"the ASPP pooling window {window} exceeds the feature map "
            f"{(height, width)}; train_dataset_options.crop_size sets it"
        )
    if window == (height, width):
        # The same mean, but an op every delegate and quantizer knows.
        pooled = global_mean(x, f"{path}/_mean")
    else:
        pooled = window_mean(x, window, f"{path}/_window_mean", defaults.pool)
    pooled = conv(pooled, f"{path}/_conv_bn_act", channels, defaults=defaults)
    return resize_like(pooled, x, f"{path}/_resize", defaults.resize)
