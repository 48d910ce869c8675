"""The native core: panoptic merging in C++, with the bits of the NumPy reference."""

from deeplab2_edge.runtime.native.build import build_native, find_library
from deeplab2_edge.runtime.native.merge import load_core, merge_heads

__all__ = ["build_native", "find_library", "load_core", "merge_heads"]
