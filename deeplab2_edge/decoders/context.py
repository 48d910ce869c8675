"""The coarse end of every decoder: an encoder feature and the ASPP on top of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from deeplab2_edge.config import DecoderOptions, LowLevelOptions
from deeplab2_edge.errors import ConfigError
from deeplab2_edge.layers.aspp import aspp
from deeplab2_edge.layers.defaults import LayerDefaults

# Dilated branches of the published ASPP; checkpoints number them 1 to 3.
_NUM_RATES = 3


def context(
    features: Mapping[str, Any],
    path: str,
    options: DecoderOptions,
    *,
    pool_size: Sequence[int] | None,
    defaults: LayerDefaults,
) -> Any:
    """Adds the ASPP that `options` describe.

    Args:
        features: Encoder endpoints.
        path: Checkpoint path of the ASPP.
        options: Feature, width and rates.
        pool_size: Window (height, width) of the pooling branch in feature pixels;
            `None` pools the whole map.
        defaults: What all layers share.

    Returns:
        `[B, h, w, aspp_channels]`.

    Raises:
        ConfigError: If the feature does not exist, the window exceeds it, or there
            are not three rates.
    """
    x = feature_of(features, path, options)
    if not options.aspp_use_only_1x1_proj_conv:
        if len(options.atrous_rates) != _NUM_RATES:
            raise ConfigError(
                f"{_place(options, 'atrous_rates')}atrous_rates of {path} are "
                f"{list(options.atrous_rates)}; expected {_NUM_RATES} rates"
            )
        size = tuple(x.shape[1:3])
        if pool_size is not None and any(
            window > side for window, side in zip(pool_size, size, strict=True)
        ):
            raise ConfigError(
                f"the pooling window of {path} is {tuple(pool_size)}, more than its "
                f"feature map {size}; expected at most the map"
            )
    return aspp(
        x,
        path,
        options.aspp_channels,
        atrous_rates=options.atrous_rates,
        pool_size=pool_size,
        only_1x1_projection=options.aspp_use_only_1x1_proj_conv,
        defaults=defaults,
    )


def feature_of(
    features: Mapping[str, Any], path: str, options: DecoderOptions | LowLevelOptions
) -> Any:
    """Finds the encoder feature that a part of a decoder reads.

    Args:
        features: Encoder endpoints.
        path: Checkpoint path of the part.
        options: Names the feature.

    Raises:
        ConfigError: If there is no such feature map.
    """
    maps = {name: x for name, x in features.items() if x.shape.rank == 4}
    if options.feature_key not in maps:
        raise ConfigError(
            f"{_place(options, 'feature_key')}feature_key of {path} is "
            f"{options.feature_key!r}; the encoder gives {', '.join(sorted(maps))}"
        )
    return maps[options.feature_key]


def _place(options: DecoderOptions | LowLevelOptions, field: str) -> str:
    location = options.location(field)
    return f"{location}: " if location else ""
