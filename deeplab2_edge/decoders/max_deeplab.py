"""The heads of MaX-DeepLab: masks, and a class for each.

A mask is the product of a pixel's unit vector and a slot's kernel; there are as many
masks as memory slots.

References:
    Wang et al., MaX-DeepLab, CVPR 2021, arXiv:2012.00759.
"""

import math
from typing import Any

from deeplab2_edge import keys
from deeplab2_edge.config import HeadOptions
from deeplab2_edge.decoders.panoptic import build_head
from deeplab2_edge.layers.conv import conv1d
from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.layers.dual_path import MatMul
from deeplab2_edge.layers.folding import affine
from deeplab2_edge.layers.normalization import batch_norm
from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="train")
tf_keras: Any = require("tf_keras", extra="train")

# Share of the slots that are void at the start of training (MaX-DeepLab, section 3.4).
_VOID_PRIOR = 0.9
# Masks start almost flat.
_MASK_GAMMA = 0.1


def num_mask_classes(semantic_channels: int, ignore_label: int) -> int:
    """Returns the classes of a mask, void being the last one.

    Void is one of the semantic channels in data sets whose ignore label is a class
    (COCO), and comes on top elsewhere (Cityscapes).
    """
    return semantic_channels + (ignore_label >= semantic_channels)


def build_pixel_feature(
    x: Any, options: HeadOptions, *, defaults: LayerDefaults
) -> Any:
    """Adds the pixel space head.

    Args:
        x: `[B, h, w, C]`.
        options: Widths and convolution type.
        defaults: What all layers share.

    Returns:
        `[B, h, w, output_channels]`, float32 vectors of length 1.
    """
    x = build_head(
        x,
        "pixel_space_head/conv_block",
        options,
        defaults=defaults,
        last_path="pixel_space_head/final_conv",
    )
    x = batch_norm("pixel_space_feature_batch_norm", defaults)(x)
    return tf_keras.layers.UnitNormalization(
        dtype="float32", name=keys.PIXEL_SPACE_NORMALIZED_FEATURE
    )(x)


def build_mask_logits(
    pixel_feature: Any, mask_feature: Any, *, defaults: LayerDefaults
) -> Any:
    """Adds the product of pixels and mask kernels.

    Args:
        pixel_feature: `[B, h, w, D]`, of `build_pixel_feature`.
        mask_feature: `[B, N, C]`.
        defaults: What all layers share.

    Returns:
        `[B, h, w, N]`, float32.
    """
    height, width, depth = pixel_feature.shape[1:]
    num_slots = mask_feature.shape[1]
    kernels = conv1d(
        mask_feature,
        "transformer_mask_head",
        depth,
        defaults=defaults,
        activation="none",
    )
    pixels = _reshape(pixel_feature, (height * width, depth), "pixel_space_sequence")
    if defaults.axial == "builtin":
        x = NormalizedProduct(defaults, name="pixel_space_mask_product")(
            [pixels, kernels]
        )
        return _reshape(x, (height, width, num_slots), keys.PIXEL_SPACE_MASK_LOGITS)
    x = MatMul(transpose_b=True, dtype="float32", name="pixel_space_mask_product")(
        [pixels, kernels]
    )
    # All slots share one scale and shift: a batch norm of a single channel.
    x = _reshape(x, (height * width, num_slots, 1), "pixel_space_mask_channel")
    x = batch_norm(
        "pixel_space_mask_batch_norm", defaults, gamma=_MASK_GAMMA, dtype="float32"
    )(x)
    return _reshape(x, (height, width, num_slots), keys.PIXEL_SPACE_MASK_LOGITS)


def build_class_logits(class_feature: Any, num_classes: int) -> Any:
    """Adds the class head.

    Args:
        class_feature: `[B, N, C]`.
        num_classes: Classes of a mask, at least 2; the last one is void.

    Returns:
        `[B, N, num_classes]`, float32.
    """
    x = tf_keras.layers.Conv1D(
        num_classes,
        1,
        kernel_initializer=tf_keras.initializers.TruncatedNormal(stddev=0.01),
        name="transformer_class_head/_conv",
    )(class_feature)
    return VoidPrior(dtype="float32", name=keys.TRANSFORMER_CLASS_LOGITS)(x)


class NormalizedProduct(tf_keras.layers.Layer):  # type: ignore[misc]
    """Is the product of pixels and kernels and its normalization, for inference.

    The one scale of the normalization goes into the kernels, which are small.
    """

    def __init__(self, defaults: LayerDefaults, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.norm = batch_norm("pixel_space_mask_batch_norm", defaults)

    def build(self, input_shape: Any) -> None:
        self.norm.build((None, None, None, 1))
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        pixels, kernels = inputs
        scale, shift = affine(self.norm)
        return tf.matmul(pixels, kernels * scale, transpose_b=True) + shift


@tf_keras.utils.register_keras_serializable(package="deeplab2_edge")
class VoidPrior(tf_keras.layers.Layer):  # type: ignore[misc]
    """Raises the logit of the last class, so that most slots start as void.

    With all other logits equal, the last class has probability 0.9. The constant is
    part of every forward pass, not a variable.
    """

    def call(self, inputs: Any) -> Any:
        num_classes = inputs.shape[-1]
        prior = math.log(_VOID_PRIOR * (num_classes - 1) / (1.0 - _VOID_PRIOR))
        return inputs + tf.constant([0.0] * (num_classes - 1) + [prior], inputs.dtype)


def _reshape(x: Any, shape: tuple[int, ...], name: str) -> Any:
    return tf_keras.layers.Reshape(shape, dtype="float32", name=name)(x)
