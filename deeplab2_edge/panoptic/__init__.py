"""The NumPy reference of all that follows a Panoptic-DeepLab network."""

from deeplab2_edge.panoptic.centers import find_centers
from deeplab2_edge.panoptic.encoding import decode_panoptic, encode_panoptic
from deeplab2_edge.panoptic.grouping import group_pixels, nearest_center
from deeplab2_edge.panoptic.heads import (
    Heads,
    MergeSettings,
    PanopticMaps,
    merge_heads,
)
from deeplab2_edge.panoptic.merging import merge_semantic_and_instance
from deeplab2_edge.panoptic.resize import (
    resize_bilinear,
    resize_nearest,
    upsample_argmax,
)

__all__ = [
    "Heads",
    "MergeSettings",
    "PanopticMaps",
    "decode_panoptic",
    "encode_panoptic",
    "find_centers",
    "group_pixels",
    "merge_heads",
    "merge_semantic_and_instance",
    "nearest_center",
    "resize_bilinear",
    "resize_nearest",
    "upsample_argmax",
]
