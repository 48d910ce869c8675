"""MaX-DeepLab: masks and their classes straight from the network.

A semantic branch is trained beside them. No panoptic result reads it.

References:
    Wang et al., MaX-DeepLab, CVPR 2021, arXiv:2012.00759.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from deeplab2_edge import keys
from deeplab2_edge.config import ExperimentOptions, require_resolved
from deeplab2_edge.datasets.registry import DatasetInfo, get_dataset
from deeplab2_edge.decoders.max_deeplab import (
    build_class_logits,
    build_mask_logits,
    build_pixel_feature,
    num_mask_classes,
)
from deeplab2_edge.decoders.panoptic import build_decoder, build_head
from deeplab2_edge.errors import ConfigError
from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.models.panoptic_deeplab import required
from deeplab2_edge.optional import require

tf_keras: Any = require("tf_keras", extra="train")

# What the encoders of MaX-DeepLab give on top of a ResNet's endpoints.
_PANOPTIC = "feature_panoptic"
_SEMANTIC = "feature_semantic"
_CLASS = "transformer_class_feature"
_MASK = "transformer_mask_feature"


def build_heads(
    features: Mapping[str, Any],
    config: ExperimentOptions,
    *,
    pool_size: Sequence[int] | None,
    defaults: LayerDefaults,
    dataset: DatasetInfo | None = None,
) -> dict[str, Any]:
    """Builds everything that follows the encoder.

    Args:
        features: Encoder endpoints, those of a memory path among them.
        config: The experiment.
        pool_size: Window of the ASPP pooling branch, see `decoders.context`.
        defaults: What all layers share.
        dataset: Says whether void is one of the semantic channels; by default the
            data set of the experiment.

    Returns:
        Raw heads, float32, at the stride of `feature_panoptic`, which is not resized
        later: `semantic_logits` `[B, h, w, classes]`,
        `pixel_space_normalized_feature` `[B, h, w, D]`, `pixel_space_mask_logits`
        `[B, h, w, N]`, and `transformer_class_logits` `[B, N, K]`, void last.

    Raises:
        ConfigError: If the encoder has no memory path, a head is missing, no data set
            is named, or the decoder cannot be built.
    """
    missing = [n for n in (_PANOPTIC, _SEMANTIC, _CLASS, _MASK) if n not in features]
    if missing:
        name = config.model_options.backbone.name
        raise ConfigError(
            f"model_options.backbone.name is {name!r}, which gives no "
            f"{', '.join(missing)}; expected max_deeplab_s or max_deeplab_l with "
            "max_deeplab"
        )
    options = config.model_options.max_deeplab
    assert options is not None
    semantic_head = required(options.auxiliary_semantic_head, "auxiliary_semantic_head")
    num_classes = num_mask_classes(
        semantic_head.output_channels, (dataset or _dataset_of(config)).ignore_label
    )
    if num_classes < 2:
        raise ConfigError(
            "model_options.max_deeplab.auxiliary_semantic_head.output_channels is "
            f"{semantic_head.output_channels}; expected a class beside void"
        )
    x = features[_SEMANTIC]
    if x.shape[1:3] != features[_PANOPTIC].shape[1:3]:
        x = build_decoder(
            features,
            "semantic_decoder",
            config.model_options.decoder,
            options.auxiliary_low_level,
            pool_size=pool_size,
            defaults=defaults,
        )
    semantic_logits = build_head(
        x,
        "semantic_head_without_last_layer",
        semantic_head,
        last_path="semantic_last_layer",
        defaults=defaults,
    )
    pixel_feature = build_pixel_feature(
        features[_PANOPTIC],
        required(options.pixel_space_head, "pixel_space_head"),
        defaults=defaults,
    )
    return {
        keys.SEMANTIC_LOGITS: tf_keras.layers.Activation(
            "linear", dtype="float32", name=keys.SEMANTIC_LOGITS
        )(semantic_logits),
        keys.PIXEL_SPACE_NORMALIZED_FEATURE: pixel_feature,
        keys.TRANSFORMER_CLASS_LOGITS: build_class_logits(
            features[_CLASS], num_classes
        ),
        keys.PIXEL_SPACE_MASK_LOGITS: build_mask_logits(
            pixel_feature, features[_MASK], defaults=defaults
        ),
    }


def _dataset_of(config: ExperimentOptions) -> DatasetInfo:
    """Returns the data set the masks are trained for, else the evaluated one."""
    for options in (config.train_dataset_options, config.eval_dataset_options):
        if options.dataset:
            return get_dataset(require_resolved(options, "dataset"))
    raise ConfigError(
        "train_dataset_options.dataset is missing; max_deeplab needs its ignore label "
        "to count the classes of a mask: name one, for example coco_panoptic"
    )
