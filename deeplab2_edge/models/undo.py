"""From maps of the network's canvas back to the image as it was given."""

from collections.abc import Mapping
from typing import Any

from deeplab2_edge import keys
from deeplab2_edge.optional import require

tf = require("tensorflow", extra="train")

_NEAREST = frozenset(
    {
        keys.PANOPTIC_PRED,
        keys.SEMANTIC_PRED,
        keys.INSTANCE_PRED,
        keys.INSTANCE_CENTER_PRED,
        keys.INSTANCE_SCORES,
        keys.SEMANTIC_SCORES,
        keys.CENTER_HEATMAP,
        keys.NEXT_PANOPTIC_PRED,
        keys.CONCAT_NEXT_PANOPTIC_PRED,
        keys.INSTANCE_CENTER_GT,
    }
)
_BILINEAR = frozenset(
    {
        keys.SEMANTIC_PROBS,
        keys.DEPTH_PRED,
        keys.OFFSET_MAP,
        keys.IMAGE,
        keys.INSTANCE_REGRESSION_GT,
    }
)


def undo_preprocessing(
    maps: Mapping[str, Any], *, region: Any, size: Any
) -> dict[str, Any]:
    """Cuts the padding off and resizes to the size of the image; may be traced.

    Ids, scores and the heat map are taken from the nearest pixel; probabilities,
    depth, images and offsets are interpolated. Offsets keep their values, which are
    pixels of the canvas.

    Args:
        maps: `[B, h, w]` or `[B, h, w, C]` by name (see `keys`), of the canvas.
            Other names pass through.
        region: (height, width) of the image on the canvas, at its top left.
        size: (height, width) of the image.

    Returns:
        The maps by the same names and with the same ranks, ids as int32.
    """
    undone = {}
    for name, value in maps.items():
        if name in _NEAREST:
            value = _resized(value, region, size, tf.raw_ops.ResizeNearestNeighbor)
        elif name in _BILINEAR:
            value = _resized(value, region, size, tf.raw_ops.ResizeBilinear)
        undone[name] = value
    return undone


def _resized(value: Any, region: Any, size: Any, resize: Any) -> Any:
    value = value[:, : region[0], : region[1]]
    is_flat = value.shape.rank == 3
    if is_flat:
        value = value[..., tf.newaxis]
    value = resize(images=value, size=size, align_corners=True)
    return value[..., 0] if is_flat else value
