"""The first layers of the residual networks.

All halve the resolution, and leave their output unactivated: the first block does
that. There is no max pooling; the second halving is in the first stage after it.
"""

from typing import Any

from deeplab2_edge.layers.conv import conv
from deeplab2_edge.layers.defaults import LayerDefaults

KINDS = ("resnet", "resnet_beta", "wider_resnet")


def stem(
    image: Any,
    path: str,
    kind: str,
    width_multiplier: float,
    *,
    defaults: LayerDefaults,
) -> Any:
    """Adds a stem.

    Args:
        image: `[B, H, W, C]`, normalized.
        path: Checkpoint path, for example `"encoder/_stem"`.
        kind: `"resnet"` (one 7x7 convolution to 64 channels), `"resnet_beta"` (three
            3x3 convolutions to 64, 64, 128: the Inception stem) or `"wider_resnet"`
            (one 3x3 convolution to 64).
        width_multiplier: Of all channels.
        defaults: What all layers share.

    Returns:
        `[B, ceil(H / 2), ceil(W / 2), C']`, not activated.

    References:
        He et al., CVPR 2016 (resnet). Szegedy et al., arXiv:1602.07261 (beta). Wu et
        al., Wider or Deeper, arXiv:1611.10080 (wider).
    """
    if kind == "resnet_beta":
        narrow = int(64 * width_multiplier)
        image = conv(
            image,
            f"{path}/_conv1_bn_act",
            narrow,
            kernel_size=3,
            stride=2,
            defaults=defaults,
        )
        image = conv(
            image, f"{path}/_conv2_bn_act", narrow, kernel_size=3, defaults=defaults
        )
        return conv(
            image,
            f"{path}/_conv3_bn",
            int(128 * width_multiplier),
            kernel_size=3,
            activation="none",
            defaults=defaults,
        )
    return conv(
        image,
        path,
        round(64 * width_multiplier),
        kernel_size={"resnet": 7, "wider_resnet": 3}[kind],
        stride=2,
        activation="none",
        defaults=defaults,
    )
