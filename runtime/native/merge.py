"""Panoptic merging in C++, called on NumPy arrays."""

import ctypes
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import UsageError
from deeplab2_edge.panoptic import Heads, MergeSettings, PanopticMaps
from deeplab2_edge.runtime.native.build import find_library

_ABI_VERSION = 1
_TYPES: Mapping[str, int] = {"float32": 0, "int8": 1, "uint8": 2}
_REASONS = {1: "sizes or settings make no sense", 2: "out of memory"}


class _Head(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("type", ctypes.c_int32),
        ("scale", ctypes.c_float),
        ("zero_point", ctypes.c_int32),
    )


class _Settings(ctypes.Structure):
    _fields_ = (
        ("head_height", ctypes.c_int32),
        ("head_width", ctypes.c_int32),
        ("num_classes", ctypes.c_int32),
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("label_divisor", ctypes.c_int32),
        ("ignore_label", ctypes.c_int32),
        ("nms_kernel", ctypes.c_int32),
        ("keep_k_centers", ctypes.c_int32),
        ("stuff_area_limit", ctypes.c_int32),
        ("merge_plateaus", ctypes.c_int32),
        ("center_score_threshold", ctypes.c_float),
        ("num_things", ctypes.c_int32),
        ("thing_ids", ctypes.POINTER(ctypes.c_int32)),
    )


class _Maps(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_void_p)
        for name in (
            "panoptic",
            "semantic",
            "instance",
            "instance_scores",
            "centers_yx",
            "center_scores",
        )
    )


@functools.lru_cache(maxsize=4)
def load_core(library: Path | None = None) -> ctypes.CDLL:
    """Loads the native library.

    Args:
        library: Its path; by default that of `find_library`.

    Raises:
        UsageError: If it is not ours, or of another version.
        MissingExtraError, OutputError: As `find_library`.
    """
    path = library or find_library()
    try:
        core = ctypes.CDLL(str(path))
        version = core.dle_abi_version()
    except (OSError, AttributeError) as error:
        raise UsageError(f"{path}: not the native library ({error})") from None
    if version != _ABI_VERSION:
        raise UsageError(
            f"{path}: of version {version}, expected {_ABI_VERSION}; build it again"
        )
    core.dle_panoptic_merge.restype = ctypes.c_int32
    return core


def merge_heads(
    semantic_logits: NDArray[np.float32] | NDArray[np.int8],
    center_heatmap: NDArray[np.float32],
    offset_map: NDArray[np.float32],
    *,
    canvas: tuple[int, int],
    settings: MergeSettings,
    quantization: Mapping[str, tuple[float, int]] | None = None,
) -> PanopticMaps:
    """Computes what `deeplab2_edge.panoptic.merge_heads` computes, bit for bit.

    Args:
        semantic_logits: `[h, w, C]` float32, int8 or uint8.
        center_heatmap: `[h, w]`, likewise.
        offset_map: `[h, w, 2]`, likewise.
        canvas: (H, W) of the network input.
        settings: How to merge, with `keep_k_centers` above 0.
        quantization: Scale and zero point of heads of integers, by the names of the
            arguments; 1 and 0 where missing.

    Raises:
        UsageError: If shapes, types or settings do not fit, or as `load_core`.
        MemoryError: If there is not enough.
    """
    Heads(semantic_logits, center_heatmap, offset_map)  # type: ignore[arg-type]
    if settings.keep_k_centers < 1:
        raise UsageError(
            f"keep_k_centers is {settings.keep_k_centers}; it must be at least 1 here"
        )
    arrays = {
        "semantic_logits": np.ascontiguousarray(semantic_logits),
        "center_heatmap": np.ascontiguousarray(center_heatmap),
        "offset_map": np.ascontiguousarray(offset_map),
    }
    heads = [
        _head(name, array, (quantization or {}).get(name, (1.0, 0)))
        for name, array in arrays.items()
    ]
    count = settings.keep_k_centers
    maps: dict[str, NDArray[Any]] = {
        "panoptic": np.empty(canvas, np.int32),
        "semantic": np.empty(canvas, np.int32),
        "instance": np.empty(canvas, np.int32),
        "instance_scores": np.empty(canvas, np.float32),
        "centers_yx": np.empty((count, 2), np.int32),
        "center_scores": np.empty(count, np.float32),
    }
    things = (ctypes.c_int32 * len(settings.thing_ids))(*settings.thing_ids)
    height, width, num_classes = semantic_logits.shape
    code = load_core().dle_panoptic_merge(
        *(ctypes.byref(head) for head in heads),
        ctypes.byref(
            _Settings(
                head_height=height,
                head_width=width,
                num_classes=num_classes,
                height=canvas[0],
                width=canvas[1],
                label_divisor=settings.label_divisor,
                ignore_label=settings.ignore_label,
                nms_kernel=settings.nms_kernel,
                keep_k_centers=count,
                stuff_area_limit=settings.stuff_area_limit,
                merge_plateaus=settings.merge_plateaus,
                center_score_threshold=settings.center_score_threshold,
                num_things=len(settings.thing_ids),
                thing_ids=things,
            )
        ),
        ctypes.byref(
            _Maps(**{name: array.ctypes.data for name, array in maps.items()})
        ),
    )
    if code:
        reason = _REASONS.get(code, f"error {code}")
        raise (MemoryError if code == 2 else UsageError)(f"native merge: {reason}")
    is_center = maps["centers_yx"][:, 0] >= 0
    for name in ("centers_yx", "center_scores"):
        maps[name] = maps[name][is_center]
    return PanopticMaps(**maps)


def _head(name: str, array: NDArray[Any], quantization: tuple[float, int]) -> _Head:
    if array.dtype.name not in _TYPES:
        raise UsageError(f"{name} is {array.dtype}; expected {', '.join(_TYPES)}")
    scale, zero_point = quantization
    return _Head(array.ctypes.data, _TYPES[array.dtype.name], scale, zero_point)
