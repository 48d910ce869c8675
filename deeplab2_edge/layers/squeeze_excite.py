"""Squeeze-and-excite in the two forms of the published models.

References:
    Hu et al., Squeeze-and-Excitation Networks, CVPR 2018, arXiv:1709.01507.
"""

from typing import Any

from deeplab2_edge.layers.activations import activate
from deeplab2_edge.layers.pooling import global_mean
from deeplab2_edge.optional import require

tf_keras: Any = require("tf_keras", extra="train")


def squeeze_excite(x: Any, path: str, reduced_channels: int) -> Any:
    """Scales the channels of `x` by a gate computed from their global means.

    The gate is a true sigmoid, not the hard one of the MobileNetV3 paper: the
    published weights were trained that way.

    Args:
        x: `[B, H, W, C]`.
        path: Checkpoint path of the block's `_squeeze_excitation`.
        reduced_channels: Width between the two 1x1 convolutions.
    """
    gate = global_mean(x, f"{path}/_mean")
    gate = tf_keras.layers.Conv2D(
        reduced_channels,
        1,
        activation="relu",
        kernel_initializer="he_normal",
        name=f"{path}/_se_reduce",
    )(gate)
    gate = tf_keras.layers.Conv2D(
        int(x.shape[-1]),
        1,
        activation="sigmoid",
        kernel_initializer="he_normal",
        name=f"{path}/_se_expand",
    )(gate)
    return tf_keras.layers.Multiply(name=f"{path}/_scale")([x, gate])


def simplified_squeeze_excite(x: Any, path: str) -> Any:
    """Scales the channels of `x` by a hard sigmoid of one linear map of their means.

    Args:
        x: `[B, H, W, C]`.
        path: Checkpoint path of the block's `_squeeze_and_excite`.
    """
    gate = global_mean(x, f"{path}/_mean")
    gate = tf_keras.layers.Conv2D(
        int(x.shape[-1]),
        1,
        kernel_initializer=tf_keras.initializers.VarianceScaling(),
        name=f"{path}/_se_conv",
    )(gate)
    gate = activate(gate, f"{path}/_gate", "hard_sigmoid", "fused")
    return tf_keras.layers.Multiply(name=f"{path}/_scale")([x, gate])
