"""What follows the networks as traceable TensorFlow.

Names and rules are those of `deeplab2_edge.panoptic`, which is the reference: integer
maps are equal. Functions take one image, shapes are static, and results are
dictionaries, so that they can be part of a `tf.function` or an exported model.
"""

from deeplab2_edge.postprocess.centers import find_centers
from deeplab2_edge.postprocess.grouping import group_pixels, nearest_center
from deeplab2_edge.postprocess.heads import merge_heads, resize_offsets
from deeplab2_edge.postprocess.mask_decoding import decode_masks
from deeplab2_edge.postprocess.merging import merge_semantic_and_instance
from deeplab2_edge.postprocess.resize import (
    map_rows,
    resize_bilinear,
    upsample_argmax,
)

__all__ = [
    "decode_masks",
    "find_centers",
    "group_pixels",
    "map_rows",
    "merge_heads",
    "merge_semantic_and_instance",
    "nearest_center",
    "resize_bilinear",
    "resize_offsets",
    "upsample_argmax",
]
