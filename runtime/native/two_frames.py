"""Two frames merged as one in C++, called on NumPy arrays."""

import ctypes

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import panoptic
from deeplab2_edge.panoptic import Heads, MergeSettings, PanopticMaps, TwoFrameMaps
from deeplab2_edge.panoptic.stitching import stitch
from deeplab2_edge.runtime.native.core import is_available
from deeplab2_edge.runtime.native.instances import NATIVE_PASSES
from deeplab2_edge.runtime.native.library import check, load_core, settings_of
from deeplab2_edge.runtime.native.merge import merge_heads


class _Half(ctypes.Structure):
    _fields_ = (
        ("semantic", ctypes.c_void_p),
        ("instance", ctypes.c_void_p),
        ("panoptic", ctypes.c_void_p),
    )


def merge_two_frames(
    current: Heads,
    next_offset_map: NDArray[np.float32],
    next_frame: Heads,
    *,
    canvas: tuple[int, int],
    settings: MergeSettings,
    num_threads: int = 1,
) -> TwoFrameMaps:
    """Computes what `panoptic.merge_two_frames` computes, bit for bit.

    Where there is no native core, where all centers are kept, and where the frames'
    heads are of different sizes, NumPy does it.

    Args:
        current: Heads of the frame.
        next_offset_map: As in `panoptic.merge_two_frames`.
        next_frame: Heads of the next frame.
        canvas: (H, W) of the network input.
        settings: How to merge.
        num_threads: How many threads work; the result does not depend on it.

    Raises:
        UsageError: As `panoptic.merge_two_frames`.
        MemoryError: If there is not enough.
    """
    shapes = [head.semantic_logits.shape for head in (current, next_frame)]
    fits = shapes[0] == shapes[1] and next_offset_map.shape == current.offset_map.shape
    if not (fits and settings.keep_k_centers > 0 and is_available()):
        return panoptic.merge_two_frames(
            current, next_offset_map, next_frame, canvas=canvas, settings=settings
        )

    def merge(
        heads: Heads, heatmap: NDArray[np.float32], offsets: NDArray[np.float32], x: int
    ) -> PanopticMaps:
        return merge_heads(
            heads.semantic_logits,
            heatmap,
            offsets,
            canvas=canvas,
            settings=settings,
            num_threads=num_threads,
            votes_from=x,
        )

    frame = merge(current, current.center_heatmap, current.offset_map, 0)
    # The pixels of the next frame vote for the centers of this one.
    following = merge(next_frame, current.center_heatmap, next_offset_map, canvas[1])
    alone = merge(next_frame, next_frame.center_heatmap, next_frame.offset_map, 0)
    # The numbers are those of both frames together.
    check(
        load_core().dle_merge_halves(
            ctypes.byref(settings_of(settings, shapes[0], canvas)),
            len(frame.centers_yx),
            *(
                ctypes.byref(
                    _Half(
                        *(a.ctypes.data for a in (m.semantic, m.instance, m.panoptic))
                    )
                )
                for m in (frame, following)
            ),
        )
    )
    return TwoFrameMaps(
        current=frame,
        concat_next=following.panoptic,
        next_frame=alone,
        next_panoptic=stitch(
            following.panoptic,
            alone.panoptic,
            label_divisor=settings.label_divisor,
            passes=NATIVE_PASSES,
        ).panoptic,
    )
