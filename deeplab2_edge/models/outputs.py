"""From raw heads at decoder resolution to maps at the input's resolution."""

from collections.abc import Mapping, Sequence
from typing import Any

from deeplab2_edge import keys
from deeplab2_edge.layers.resize import resize_bilinear
from deeplab2_edge.optional import require

tf = require("tensorflow", extra="train")


def resize_outputs(outputs: Mapping[str, Any], size: Sequence[int]) -> dict[str, Any]:
    """Resizes every head to the network's input size, corners on corners.

    Offsets are displacements in pixels of the map they live on, so they are scaled
    with it; they are recognized by `offset` in their name, as in the published
    system. MaX-DeepLab stays as it is: its masks are decided at their own resolution.

    Args:
        outputs: Raw heads, each `[B, h, w, C]` except for MaX-DeepLab.
        size: (height, width) of the network's input.

    Returns:
        Heads `[B, H, W, C]`, offsets in input pixels.
    """
    if keys.PIXEL_SPACE_MASK_LOGITS in outputs:
        return dict(outputs)
    resized = {}
    for name, value in outputs.items():
        if "offset" in name:
            scale = [
                (target - 1) / (source - 1)
                for target, source in zip(size, value.shape[1:3], strict=True)
            ]
            value = value * tf.constant(scale, value.dtype)
        resized[name] = resize_bilinear(value, size)
    return resized
