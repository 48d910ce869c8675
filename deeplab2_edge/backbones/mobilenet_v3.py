"""MobileNetV3 as the published DeepLab2 models use it.

References:
    Howard et al., Searching for MobileNetV3, ICCV 2019, arXiv:1905.02244.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from deeplab2_edge.layers.conv import conv, depthwise_conv
from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.layers.squeeze_excite import squeeze_excite
from deeplab2_edge.optional import require

tf_keras = require("tf_keras", extra="train")

# Squeeze-and-excite works on a quarter of the expanded channels.
_SE_RATIO = 0.25


@dataclass(frozen=True)
class Block:
    """One row of the architecture table.

    Attributes:
        kernel_size: Side of the (depthwise) kernel.
        stride: Stride before the output stride limits it.
        filters: Output channels at width multiplier 1.
        expand_ratio: Expansion of an inverted bottleneck; 0 marks a plain
            convolution.
        activation: Activation name.
        has_se: Squeeze-and-excite between depthwise and projection.
        endpoint: Name under which decoders find the feature of this row.
    """

    kernel_size: int
    stride: int
    filters: int
    expand_ratio: float = 0.0
    activation: str = "hard_swish"
    has_se: bool = False
    endpoint: str | None = None


# fmt: off
_PUBLISHED: Mapping[str, tuple[Block, ...]] = {
    "mobilenet_v3_small": (
        Block(3, 2, 16, endpoint="res1"),
        Block(3, 2, 16, 1, "relu", True, "res2"),
        Block(3, 2, 24, 72 / 16, "relu"),
        Block(3, 1, 24, 88 / 24, "relu", False, "res3"),
        Block(5, 2, 40, 4, "hard_swish", True),
        Block(5, 1, 40, 6, "hard_swish", True),
        Block(5, 1, 40, 6, "hard_swish", True),
        Block(5, 1, 48, 3, "hard_swish", True),
        Block(5, 1, 48, 3, "hard_swish", True, "res4"),
        Block(5, 2, 96, 6, "hard_swish", True),
        Block(5, 1, 96, 6, "hard_swish", True),
        Block(5, 1, 96, 6, "hard_swish", True),
        Block(1, 1, 576, endpoint="res5"),
    ),
    "mobilenet_v3_large": (
        Block(3, 2, 16),
        Block(3, 1, 16, 1, "relu", False, "res1"),
        Block(3, 2, 24, 4, "relu"),
        Block(3, 1, 24, 3, "relu", False, "res2"),
        Block(5, 2, 40, 3, "relu", True),
        Block(5, 1, 40, 3, "relu", True),
        Block(5, 1, 40, 3, "relu", True, "res3"),
        Block(3, 2, 80, 6),
        Block(3, 1, 80, 2.5),
        Block(3, 1, 80, 2.3),
        Block(3, 1, 80, 2.3),
        Block(3, 1, 112, 6, "hard_swish", True),
        Block(3, 1, 112, 6, "hard_swish", True, "res4"),
        Block(5, 2, 160, 6, "hard_swish", True),
        Block(5, 1, 160, 6, "hard_swish", True),
        Block(5, 1, 160, 6, "hard_swish", True),
        Block(1, 1, 960, endpoint="res5"),
    ),
}
# fmt: on


def _minimalistic(block: Block) -> Block:
    """Leaves out what fixed-function accelerators lack or do slowly.

    As the authors' own minimalistic models: no squeeze-and-excite, no hard-swish, no
    5x5 kernels. ReLU6 instead of their ReLU, since its range is known to a quantizer.
    """
    return replace(
        block,
        kernel_size=min(block.kernel_size, 3),
        activation="relu6",
        has_se=False,
    )


VARIANTS: Mapping[str, tuple[Block, ...]] = {
    **_PUBLISHED,
    **{
        f"{name}_minimalistic": tuple(map(_minimalistic, rows))
        for name, rows in _PUBLISHED.items()
    },
}


def build_mobilenet_v3(
    image: Any,
    variant: str,
    *,
    output_stride: int,
    width_multiplier: float,
    defaults: LayerDefaults,
    path: str = "encoder",
) -> dict[str, Any]:
    """Builds the encoder on a normalized image.

    When the running stride has reached `output_stride`, further strides become
    dilations of the blocks that follow. The block that loses its stride itself still
    uses the old dilation and never gets a shortcut, as in the published weights.

    Args:
        image: `[B, H, W, 3]` in -1..1.
        variant: A key of `VARIANTS`.
        output_stride: 8, 16 or 32.
        width_multiplier: Scales the output channels of every row.
        defaults: What all layers share.
        path: Checkpoint path of the encoder.

    Returns:
        Endpoints `res1` ... `res5`; the stride of `resK` is
        `min(2 ** K, output_stride)`. Endpoints inside bottlenecks are the activated
        depthwise feature, before squeeze-and-excite and projection.
    """
    endpoints = {}
    x = image
    current_stride = rate = 1
    for index, block in enumerate(VARIANTS[variant]):
        if current_stride == output_stride:
            stride, block_rate = 1, rate
            rate *= block.stride
        else:
            stride, block_rate = block.stride, 1
            current_stride *= block.stride
        block_path = f"{path}/_blocks/{index}"
        filters = make_divisible(block.filters * width_multiplier)
        if block.expand_ratio == 0:
            x = conv(
                x,
                block_path,
                filters,
                kernel_size=block.kernel_size,
                stride=stride,
                rate=block_rate,
                activation=block.activation,
                defaults=defaults,
            )
            feature = x
        else:
            x, feature = _inverted_bottleneck(
                x, block_path, block, filters, stride, block_rate, defaults
            )
        if block.endpoint is not None:
            endpoints[block.endpoint] = feature
    return endpoints


def make_divisible(value: float, divisor: int = 8) -> int:
    """Rounds channels to a multiple of `divisor`, losing at most a tenth of them."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def _inverted_bottleneck(
    x: Any,
    path: str,
    block: Block,
    filters: int,
    stride: int,
    rate: int,
    defaults: LayerDefaults,
) -> tuple[Any, Any]:
    """Returns the block's output and its activated depthwise feature."""
    shortcut = x
    in_filters = int(x.shape[-1])
    if block.expand_ratio > 1:
        x = conv(
            x,
            f"{path}/_conv1_bn_act",
            make_divisible(in_filters * block.expand_ratio),
            activation=block.activation,
            defaults=defaults,
        )
    feature = depthwise_conv(
        x,
        f"{path}/_conv2_bn_act",
        kernel_size=block.kernel_size,
        stride=stride,
        rate=rate,
        activation=block.activation,
        defaults=defaults,
    )
    x = feature
    if block.has_se:
        reduced = make_divisible(max(1, int(int(x.shape[-1]) * _SE_RATIO)))
        x = squeeze_excite(x, f"{path}/_squeeze_excitation", reduced)
    x = conv(x, f"{path}/_conv3_bn", filters, activation="none", defaults=defaults)
    if block.stride == 1 and in_filters == filters:
        x = tf_keras.layers.Add(name=f"{path}/_add")([x, shortcut])
    return x, feature
