"""Encoders: from an image to a dictionary of features."""

from deeplab2_edge.backbones.registry import build_backbone, register_backbone
from deeplab2_edge.backbones.residual import Network, Stage, build_network
from deeplab2_edge.layers.axial_attention import AttentionOptions
from deeplab2_edge.layers.axial_block import (
    Block,
    Transformer,
    axial,
    basic,
    bottleneck,
    global_,
)
from deeplab2_edge.layers.dual_path import memory_feature
from deeplab2_edge.layers.dual_path_options import DualPathOptions

__all__ = [
    "AttentionOptions",
    "Block",
    "DualPathOptions",
    "Network",
    "Stage",
    "Transformer",
    "axial",
    "basic",
    "bottleneck",
    "build_backbone",
    "build_network",
    "global_",
    "memory_feature",
    "register_backbone",
]
