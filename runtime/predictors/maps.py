"""Maps of the canvas: made of heads here, or taken from a graph that made them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.model_file import ModelMetadata
from deeplab2_edge.panoptic import (
    MaskMaps,
    PanopticMaps,
    decode_masks,
    merge_heads,
    upsample_argmax,
)
from deeplab2_edge.runtime import native


def panoptic_maps(
    outputs: Mapping[str, NDArray[Any]], metadata: ModelMetadata
) -> PanopticMaps:
    """Gives the panoptic maps of one frame of a model with centers."""
    if keys.PANOPTIC_PRED in outputs:
        centers_yx = outputs[keys.INSTANCE_CENTERS]
        is_center = centers_yx[:, 0] >= 0
        return PanopticMaps(
            panoptic=outputs[keys.PANOPTIC_PRED],
            semantic=outputs[keys.SEMANTIC_PRED],
            instance=outputs[keys.INSTANCE_PRED],
            instance_scores=outputs[keys.INSTANCE_SCORES],
            centers_yx=centers_yx[is_center],
            center_scores=outputs[keys.INSTANCE_CENTER_SCORES][is_center],
        )
    assert metadata.merge is not None
    # The native merge wants to know how many centers there can be.
    is_native = metadata.merge.keep_k_centers > 0 and native.is_available()
    merge = native.merge_heads if is_native else merge_heads
    return merge(
        outputs[keys.SEMANTIC_LOGITS],
        outputs[keys.CENTER_HEATMAP][..., 0],
        outputs[keys.OFFSET_MAP],
        canvas=metadata.canvas,
        settings=metadata.merge,
    )


def mask_maps(outputs: Mapping[str, NDArray[Any]], metadata: ModelMetadata) -> MaskMaps:
    """Gives the panoptic maps of one image of a mask transformer."""
    if keys.PANOPTIC_PRED in outputs:
        return MaskMaps(
            panoptic=outputs[keys.PANOPTIC_PRED],
            semantic=outputs[keys.SEMANTIC_PRED],
            mask_id=outputs[keys.INSTANCE_PRED],
            mask_semantic=outputs[keys.MASK_SEMANTIC_PRED],
            instance_scores=outputs[keys.INSTANCE_SCORES],
            semantic_scores=outputs[keys.SEMANTIC_SCORES],
        )
    assert metadata.masks is not None
    return decode_masks(
        outputs[keys.PIXEL_SPACE_MASK_LOGITS],
        outputs[keys.TRANSFORMER_CLASS_LOGITS],
        canvas=metadata.canvas,
        settings=metadata.masks,
    )


def semantic_map(
    outputs: Mapping[str, NDArray[Any]], metadata: ModelMetadata
) -> NDArray[np.int32]:
    """Gives the class of each pixel of a canvas."""
    if keys.SEMANTIC_PRED in outputs:
        classes: NDArray[np.int32] = outputs[keys.SEMANTIC_PRED]
        return classes
    return upsample_argmax(outputs[keys.SEMANTIC_LOGITS], metadata.canvas)
