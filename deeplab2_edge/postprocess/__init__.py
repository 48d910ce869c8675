"""What follows the networks as traceable TensorFlow.

Names and rules are those of `deeplab2_edge.panoptic`, which is the reference: integer
maps are equal. Functions take one image, shapes are static, and results are
dictionaries, so that they can be part of a `tf.function` or an exported model.
"""

from deeplab2_edge.postprocess.centers import find_centers
from deeplab2_edge.postprocess.grouping import group_pixels, nearest_center
from deeplab2_edge.postprocess.heads import merge_heads, resize_offsets
from deeplab2_edge.postprocess.heatmap import draw_centers
from deeplab2_edge.postprocess.mask_decoding import decode_masks
from deeplab2_edge.postprocess.merging import merge_semantic_and_instance
from deeplab2_edge.postprocess.motion import (
    MotionState,
    initial_motion_state,
    render_centers,
    track_instances,
)
from deeplab2_edge.postprocess.resize import (
    map_bands,
    resize_bilinear,
    upsample_argmax,
)
from deeplab2_edge.postprocess.segments import Slots, find_instances, relabel
from deeplab2_edge.postprocess.stitching import merge_two_frames, stitch

__all__ = [
    "MotionState",
    "Slots",
    "decode_masks",
    "draw_centers",
    "find_centers",
    "find_instances",
    "group_pixels",
    "initial_motion_state",
    "map_bands",
    "merge_heads",
    "merge_semantic_and_instance",
    "merge_two_frames",
    "nearest_center",
    "relabel",
    "render_centers",
    "resize_bilinear",
    "resize_offsets",
    "stitch",
    "track_instances",
    "upsample_argmax",
]
