"""Encoders: from an image to a dictionary of features."""

from deeplab2_edge.backbones.registry import build_backbone, register_backbone

__all__ = ["build_backbone", "register_backbone"]
