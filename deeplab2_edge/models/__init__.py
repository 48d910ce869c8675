"""Whole networks: `build_model(config)` is the only reader of the configuration."""

from deeplab2_edge.models.build import aspp_pool_size, build_model, input_channels
from deeplab2_edge.models.outputs import resize_outputs

__all__ = ["aspp_pool_size", "build_model", "input_channels", "resize_outputs"]
