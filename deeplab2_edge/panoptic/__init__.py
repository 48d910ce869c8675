"""The NumPy reference of all that follows the networks."""

from deeplab2_edge.panoptic.assignment import assign
from deeplab2_edge.panoptic.centers import find_centers
from deeplab2_edge.panoptic.encoding import (
    change_divisor,
    decode_panoptic,
    encode_panoptic,
    relabel,
)
from deeplab2_edge.panoptic.flow import read_flow
from deeplab2_edge.panoptic.grouping import group_pixels, nearest_center
from deeplab2_edge.panoptic.heads import (
    Heads,
    MergeSettings,
    PanopticMaps,
    class_probabilities,
    merge_heads,
    offsets_at,
)
from deeplab2_edge.panoptic.mask_decoding import (
    MaskMaps,
    class_order,
    decode_masks,
)
from deeplab2_edge.panoptic.mask_settings import MaskSettings, MaskwiseSettings
from deeplab2_edge.panoptic.mask_tracking import (
    Instances,
    MaskTracker,
    MaskTrackingSettings,
)
from deeplab2_edge.panoptic.merging import (
    MergeSemantics,
    merge_semantic_and_instance,
)
from deeplab2_edge.panoptic.motion import (
    CenterMaps,
    MotionMaps,
    MotionSettings,
    MotionTracker,
    gaussian_window,
    is_scene_start,
    render_centers,
)
from deeplab2_edge.panoptic.resize import (
    resize_bilinear,
    resize_bilinear_in_bands,
    resize_nearest,
    upsample_argmax,
)
from deeplab2_edge.panoptic.stitching import (
    StitchedMaps,
    TwoFrameMaps,
    VideoStitcher,
    merge_two_frames,
    stitch,
)
from deeplab2_edge.panoptic.tracking import (
    IouTracker,
    IouTrackingSettings,
    TrackedMaps,
)

__all__ = [
    "CenterMaps",
    "Heads",
    "Instances",
    "IouTracker",
    "IouTrackingSettings",
    "MaskMaps",
    "MaskSettings",
    "MaskTracker",
    "MaskTrackingSettings",
    "MaskwiseSettings",
    "MergeSemantics",
    "MergeSettings",
    "MotionMaps",
    "MotionSettings",
    "MotionTracker",
    "PanopticMaps",
    "StitchedMaps",
    "TrackedMaps",
    "TwoFrameMaps",
    "VideoStitcher",
    "assign",
    "change_divisor",
    "class_order",
    "class_probabilities",
    "decode_masks",
    "decode_panoptic",
    "encode_panoptic",
    "find_centers",
    "gaussian_window",
    "group_pixels",
    "is_scene_start",
    "merge_heads",
    "merge_semantic_and_instance",
    "merge_two_frames",
    "nearest_center",
    "offsets_at",
    "read_flow",
    "relabel",
    "render_centers",
    "resize_bilinear",
    "resize_bilinear_in_bands",
    "resize_nearest",
    "stitch",
    "upsample_argmax",
]
