"""What published checkpoints hold behind an encoder: paths and shapes, by pattern."""

from collections.abc import Mapping
from typing import Any

from deeplab2_edge.checkpoints import variable_paths
from deeplab2_edge.config import ExperimentOptions, apply_overrides, parse_config
from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.optional import require

tf_keras: Any = require("tf_keras", extra="train")

Shapes = dict[str, tuple[int, ...]]
DEFAULTS = LayerDefaults()
# Side of the feature maps by level, for an image of 65x97 at output stride 32.
_SIZES = {1: (33, 49), 2: (17, 25), 3: (9, 13), 4: (5, 7), 5: (3, 4)}
_RESNET_CHANNELS = {1: 64, 2: 256, 3: 512, 4: 1024, 5: 2048}
_MODEL = """
model_options {
  backbone { name: "resnet50" }
  decoder { feature_key: "res5" atrous_rates: 3 atrous_rates: 6 atrous_rates: 9 }
  %s
}
"""


def experiment(architecture: str, **decoder: Any) -> ExperimentOptions:
    """Parses an architecture on top of the published decoder, changed as told."""
    changes = {f"model_options.decoder.{name}": v for name, v in decoder.items()}
    return apply_overrides(parse_config(_MODEL % architecture, source="test"), changes)


def resnet_endpoints() -> dict[str, Any]:
    """Makes inputs that look like the endpoints of a ResNet-50."""
    return {
        f"res{level}": tf_keras.Input((*size, _RESNET_CHANNELS[level]))
        for level, size in _SIZES.items()
    }


def shapes_of(inputs: Any, outputs: Mapping[str, Any]) -> Shapes:
    """Reads path and shape of every variable between inputs and outputs."""
    model = tf_keras.Model(inputs, dict(outputs))
    return {path: tuple(v.shape) for path, v in variable_paths(model).items()}


def batch_norm(path: str, channels: int) -> Shapes:
    vectors = ("gamma", "beta", "moving_mean", "moving_variance")
    return {f"{path}/_batch_norm/{vector}": (channels,) for vector in vectors}


def conv(path: str, *shape: int) -> Shapes:
    return {f"{path}/_conv/kernel": shape, **batch_norm(path, shape[-1])}


def separable(path: str, kernel_size: int, channels: int, filters: int) -> Shapes:
    depthwise = f"{path}/_depthwise"
    return {
        f"{depthwise}/_depthwise_conv/depthwise_kernel": (
            kernel_size,
            kernel_size,
            channels,
            1,
        ),
        **batch_norm(depthwise, channels),
        **conv(f"{path}/_pointwise", 1, 1, channels, filters),
    }


def last_layer(path: str, channels: int, filters: int) -> Shapes:
    return {f"{path}/kernel": (1, 1, channels, filters), f"{path}/bias": (filters,)}


def aspp(path: str, channels: int) -> Shapes:
    branches = [conv(f"{path}/_conv_bn_act", 1, 1, channels, 256)]
    for index in (1, 2, 3):
        branch = f"{path}/_aspp_conv{index}/_conv_bn_act"
        branches.append(conv(branch, 3, 3, channels, 256))
    branches.append(conv(f"{path}/_aspp_pool/_conv_bn_act", 1, 1, channels, 256))
    branches.append(conv(f"{path}/_proj_conv_bn_act", 1, 1, 1280, 256))
    return {name: shape for branch in branches for name, shape in branch.items()}


def decoder(
    path: str, width: int, projections: tuple[int, int], *, channels: int = 2048
) -> Shapes:
    """Lists a decoder with skips from `res3` and `res2`, separable, ASPP width 256."""
    third, second = projections
    fusion = f"{path}/_fusion_conv%d/_conv1_bn_act"
    return {
        **aspp(f"{path}/_aspp", channels),
        **conv(f"{path}/_low_level_conv1", 1, 1, 512, third),
        **conv(f"{path}/_low_level_conv2", 1, 1, 256, second),
        **separable(fusion % 1, 5, 256 + third, width),
        **separable(fusion % 2, 5, width + second, width),
    }


def head(name: str, channels: int, width: int, filters: int) -> Shapes:
    """Lists a head; the semantic one drops `_head` from its last layer."""
    last = name if name == "semantic" else f"{name}_head"
    return {
        **separable(
            f"{name}_head_without_last_layer/_conv1_bn_act", 5, channels, width
        ),
        **last_layer(f"{last}_last_layer", width, filters),
    }


def panoptic(num_classes: int) -> Shapes:
    """Lists what every member of the Panoptic-DeepLab family has."""
    return {
        **decoder("semantic_decoder", 256, (64, 32)),
        **head("semantic", 256, 256, num_classes),
        **decoder("instance_decoder", 128, (32, 16)),
        **head("instance_center", 128, 32, 1),
        **head("instance_regression", 128, 32, 2),
    }


# Options of the published experiments that have the variables of `panoptic`.
LOW_LEVEL = """
low_level { feature_key: "res3" channels_project: 64 }
low_level { feature_key: "res2" channels_project: 32 }
"""
INSTANCE = """
low_level_override { feature_key: "res3" channels_project: 32 }
low_level_override { feature_key: "res2" channels_project: 16 }
instance_decoder_override {
  feature_key: "res5" decoder_channels: 128
  atrous_rates: 3 atrous_rates: 6 atrous_rates: 9
}
center_head { output_channels: 1 head_channels: 32 }
regression_head { output_channels: 2 head_channels: 32 }
"""
SEMANTIC_HEAD = "semantic_head { output_channels: 19 head_channels: 256 }"
