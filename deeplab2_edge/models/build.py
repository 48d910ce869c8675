"""Builds a network from an experiment configuration."""

from collections.abc import Sequence
from typing import Any

from deeplab2_edge import keys
from deeplab2_edge.backbones import build_backbone
from deeplab2_edge.config import ExperimentOptions
from deeplab2_edge.errors import ConfigError
from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.models import panoptic_deeplab
from deeplab2_edge.optional import require

tf_keras = require("tf_keras", extra="train")

# Pixels 0..255 become -1..1 inside every network.
_PIXEL_SCALE = 1 / 127.5


def build_model(
    config: ExperimentOptions,
    *,
    input_size: Sequence[int],
    batch_size: int | None = None,
    pool_size: Sequence[int] | None = None,
    synchronize_batch_norm: bool = False,
    hard_swish: str = "fused",
) -> Any:
    """Builds a functional Keras model made of plain layers.

    Layer names are checkpoint paths; `checkpoints` relies on that.

    Args:
        config: The experiment.
        input_size: (height, width) of the image in pixels.
        batch_size: Fixed batch, or `None` to leave it open.
        pool_size: Window of the ASPP pooling branch in feature pixels; by default
            that of the training crop, limited to the feature map (see
            `aspp_pool_size`).
        synchronize_batch_norm: See `LayerDefaults`.
        hard_swish: See `LayerDefaults`.

    Returns:
        Model from `image`, float32 `[B, H, W, 3]`, RGB in 0..255, to a dictionary of
        raw heads at decoder stride: `semantic_logits` `[B, h, w, classes]` and, if
        instances are enabled, `center_heatmap` `[B, h, w, 1]` and `offset_map`
        `[B, h, w, 2]` (dy, dx) in pixels of the head.

    Raises:
        ConfigError: If the configuration asks for a network that is not known.
    """
    solver = config.trainer_options.solver_options
    defaults = LayerDefaults(
        batch_norm_momentum=solver.batchnorm_momentum,
        batch_norm_epsilon=solver.batchnorm_epsilon,
        synchronize_batch_norm=synchronize_batch_norm,
        hard_swish=hard_swish,
    )
    options = config.model_options
    if options.panoptic_deeplab is None:
        raise ConfigError(
            f"model_options: the meta architecture is "
            f"{options.meta_architecture or 'missing'}; "
            "this version builds panoptic_deeplab"
        )
    image = tf_keras.Input((*input_size, 3), batch_size=batch_size, name=keys.IMAGE)
    normalized = tf_keras.layers.Rescaling(_PIXEL_SCALE, offset=-1.0, name="normalize")(
        image
    )
    features = build_backbone(normalized, options.backbone, defaults=defaults)
    if pool_size is None:
        pool_size = aspp_pool_size(config, input_size)
    outputs = panoptic_deeplab.build_heads(
        features, config, pool_size=pool_size, defaults=defaults
    )
    return tf_keras.Model(image, outputs, name=options.backbone.name)


def aspp_pool_size(
    config: ExperimentOptions, input_size: Sequence[int]
) -> tuple[int, int]:
    """Returns the window (height, width) of the ASPP pooling branch.

    It is the feature size of the training crop, whatever size is evaluated. An input
    smaller than the crop pools its whole feature map, per axis.
    """
    stride = config.model_options.backbone.output_stride
    crop = config.train_dataset_options.crop_size or tuple(input_size)
    height, width = (
        min(scaled_size(side, stride), scaled_size(limit, stride))
        for side, limit in zip(crop, input_size, strict=True)
    )
    return height, width


def scaled_size(side: int, stride: int) -> int:
    """Returns the pixels left of `side` at a stride."""
    return (side - 1) // stride + 1
