"""Instance centers: the local maxima of the center heatmap."""

import cv2
import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import UsageError


def find_centers(
    center_heatmap: NDArray[np.float32],
    *,
    threshold: float,
    nms_kernel: int,
    keep_k: int,
    merge_plateaus: bool = False,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Finds the pixels that are the largest in their window of the heatmap.

    A pixel is a center if its value is above `threshold` (strictly) and above 0, and
    equals the maximum of its window. The window of an even kernel reaches one pixel
    further down and to the right.

    Equal neighbors all survive, as in the published models. The heatmap of a
    quantized head has few levels, hence plateaus, and would split one instance into
    many; `merge_plateaus` then keeps, of each group of adjacent centers (8
    neighbors) of equal value, the first in raster order.

    Args:
        center_heatmap: `[H, W]`, linear scores, usually in 0..1.
        threshold: Scores up to this are no centers.
        nms_kernel: Side of the window, in pixels.
        keep_k: Keep exactly the best this many (ties: the first in raster order);
            0 or less keeps all. The published code keeps an arbitrary number
            between 0 and `keep_k - 1` when there are more candidates.
        merge_plateaus: Whether a plateau gives one center. For quantized heatmaps.

    Returns:
        `[N, 2]` centers (y, x) in raster order, and `[N]` their scores.

    Raises:
        UsageError: If the heatmap is not of rank 2 or the kernel is below 1.

    References:
        Cheng et al., Panoptic-DeepLab, CVPR 2020, arXiv:1911.10194.
    """
    if center_heatmap.ndim != 2:
        raise UsageError(
            f"center_heatmap has shape {center_heatmap.shape}; expected [H, W]"
        )
    if nms_kernel < 1:
        raise UsageError(f"nms_kernel is {nms_kernel}; it must be at least 1")
    heat = np.asarray(center_heatmap, dtype=np.float32)
    # Comparing in float32, and with "not above" so that NaN is no center.
    floor = max(np.float32(threshold), np.float32(0))
    heat = np.where(heat > floor, heat, np.float32(0))
    anchor = (nms_kernel - 1) // 2
    pooled = cv2.dilate(
        heat, np.ones((nms_kernel, nms_kernel), np.uint8), anchor=(anchor, anchor)
    )
    is_center = (heat == pooled) & (heat > 0)
    if merge_plateaus:
        is_center = _first_of_each_plateau(is_center, heat)
    pixels = np.flatnonzero(is_center)
    scores = heat.reshape(-1)[pixels]
    if 0 < keep_k < pixels.size:
        best = np.sort(np.argsort(-scores, kind="stable")[:keep_k])
        pixels, scores = pixels[best], scores[best]
    centers_yx = np.stack(np.divmod(pixels, heat.shape[1]), axis=-1).astype(np.int32)
    return centers_yx, scores


def _first_of_each_plateau(
    is_center: NDArray[np.bool_], heat: NDArray[np.float32]
) -> NDArray[np.bool_]:
    _, groups = cv2.connectedComponents(is_center.astype(np.uint8), connectivity=8)
    pixels = np.flatnonzero(is_center)
    # Below a kernel of 3, adjacent centers can differ; each value is a plateau then.
    plateaus = np.stack(
        [groups.reshape(-1)[pixels], heat.reshape(-1)[pixels].view(np.int32)]
    )
    _, first = np.unique(plateaus, axis=1, return_index=True)
    result = np.zeros(is_center.size, np.bool_)
    result[pixels[first]] = True
    return result.reshape(is_center.shape)
