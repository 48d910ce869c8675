"""DeepLabv3 and DeepLabv3+: semantic segmentation."""

from collections.abc import Mapping, Sequence
from typing import Any

from deeplab2_edge import keys
from deeplab2_edge.config import ExperimentOptions
from deeplab2_edge.decoders.deeplab_v3 import (
    build_deeplab_v3_decoder,
    build_deeplab_v3_plus_decoder,
)
from deeplab2_edge.layers.defaults import LayerDefaults


def build_heads(
    features: Mapping[str, Any],
    config: ExperimentOptions,
    *,
    pool_size: Sequence[int] | None,
    defaults: LayerDefaults,
) -> dict[str, Any]:
    """Builds what follows the encoder: the decoder of whichever of the two is set.

    Args:
        features: Encoder endpoints.
        config: The experiment.
        pool_size: Window of the ASPP pooling branch, see `decoders.context`.
        defaults: What all layers share.

    Returns:
        `semantic_logits` `[B, h, w, classes]`, for DeepLabv3 at the stride of the
        encoder, for DeepLabv3+ at that of the skip connection.

    Raises:
        ConfigError: If the decoder cannot be built.
    """
    options = config.model_options
    if options.deeplab_v3_plus is not None:
        logits = build_deeplab_v3_plus_decoder(
            features,
            options.decoder,
            options.deeplab_v3_plus.low_level,
            options.deeplab_v3_plus.num_classes,
            pool_size=pool_size,
            defaults=defaults,
        )
    else:
        assert options.deeplab_v3 is not None
        logits = build_deeplab_v3_decoder(
            features,
            options.decoder,
            options.deeplab_v3.num_classes,
            pool_size=pool_size,
            defaults=defaults,
        )
    return {keys.SEMANTIC_LOGITS: logits}
