"""From the raw heads of a Panoptic-DeepLab network to panoptic maps."""

from typing import Any

import numpy as np

from deeplab2_edge.optional import require
from deeplab2_edge.panoptic.heads import MergeSettings
from deeplab2_edge.panoptic.merging import MergeSemantics
from deeplab2_edge.postprocess.centers import find_centers
from deeplab2_edge.postprocess.grouping import group_pixels
from deeplab2_edge.postprocess.merging import merge_semantic_and_instance
from deeplab2_edge.postprocess.resize import resize_bilinear, upsample_argmax

tf: Any = require("tensorflow", extra="train")


def merge_heads(
    semantic_logits: Any,
    center_heatmap: Any,
    offset_map: Any,
    *,
    canvas: tuple[int, int],
    settings: MergeSettings,
    merge_semantics: MergeSemantics = "tf",
) -> dict[str, Any]:
    """Computes the panoptic segmentation of a canvas from the heads of the network.

    Args:
        semantic_logits: `[h, w, C]`, static sizes.
        center_heatmap: `[h, w]`.
        offset_map: `[h, w, 2]`, (dy, dx) in pixels of the heads.
        canvas: (H, W) of the network input.
        settings: How to merge, with `keep_k_centers` above 0, and with a kernel of 3 or
            more if plateaus are merged.
        merge_semantics: Whose rules are followed where the published ones disagree.

    Returns:
        The attributes of `deeplab2_edge.panoptic.PanopticMaps` by name, with equal
        integers and scores. `centers_yx` has `keep_k_centers` rows, -1 beyond the last.

    Raises:
        UsageError: If the settings need shapes that are not static.
    """
    semantic = upsample_argmax(semantic_logits, canvas)
    centers_yx, center_scores, num_centers = find_centers(
        resize_bilinear(center_heatmap[..., tf.newaxis], canvas)[..., 0],
        threshold=settings.center_score_threshold,
        nms_kernel=settings.nms_kernel,
        keep_k=settings.keep_k_centers,
        merge_plateaus=settings.merge_plateaus,
    )
    num_classes = semantic_logits.shape[-1]
    is_thing = np.isin(np.arange(num_classes), settings.thing_ids)
    instance = group_pixels(
        centers_yx,
        resize_offsets(offset_map, canvas),
        tf.gather(is_thing, semantic),
        num_centers=num_centers,
    )
    panoptic = merge_semantic_and_instance(
        semantic,
        instance,
        thing_ids=settings.thing_ids,
        label_divisor=settings.label_divisor,
        stuff_area_limit=settings.stuff_area_limit,
        void_label=settings.ignore_label,
        merge_semantics=merge_semantics,
        num_classes=num_classes,
        max_instances=centers_yx.shape[0],
    )
    return {
        "panoptic": panoptic,
        "semantic": semantic,
        "instance": instance,
        "instance_scores": tf.gather(tf.concat([[0.0], center_scores], 0), instance),
        "centers_yx": centers_yx,
        "center_scores": center_scores,
    }


def resize_offsets(offset_map: Any, canvas: tuple[int, int]) -> Any:
    """Resizes offsets `[h, w, 2]` to `[H, W, 2]`; they grow with the map."""
    growth = [
        (side - 1) / max(source - 1, 1)
        for side, source in zip(canvas, offset_map.shape[:2], strict=True)
    ]
    return resize_bilinear(offset_map * np.array(growth, np.float32), canvas)
