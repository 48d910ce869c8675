"""The native core: panoptic merging in C++, with the bits of the NumPy reference."""

from deeplab2_edge.runtime.native.build import build_native, find_library
from deeplab2_edge.runtime.native.core import (
    NativeResult,
    SegmentTable,
    is_available,
    segment_panoptic,
)
from deeplab2_edge.runtime.native.library import load_core
from deeplab2_edge.runtime.native.merge import merge_heads
from deeplab2_edge.runtime.native.transforms import place_image

__all__ = [
    "NativeResult",
    "SegmentTable",
    "build_native",
    "find_library",
    "is_available",
    "load_core",
    "merge_heads",
    "place_image",
    "segment_panoptic",
]
