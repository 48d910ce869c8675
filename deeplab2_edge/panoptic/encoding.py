"""Panoptic ids: one integer per pixel that holds class and instance."""

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import UsageError


def encode_panoptic(
    semantic: NDArray[np.integer], instance: NDArray[np.integer], *, label_divisor: int
) -> NDArray[np.int32]:
    """Packs classes and instance ids into `class * label_divisor + instance`.

    Args:
        semantic: `[H, W]` class ids.
        instance: `[H, W]` instance ids, 0 for stuff, below `label_divisor`.
        label_divisor: Larger than every instance id.

    Raises:
        UsageError: If an instance id does not fit below `label_divisor`.
    """
    if instance.size and int(instance.max()) >= label_divisor:
        raise UsageError(
            f"instance: id {int(instance.max())} does not fit below label_divisor "
            f"{label_divisor}; use a larger label_divisor"
        )
    return semantic.astype(np.int32) * np.int32(label_divisor) + instance.astype(
        np.int32
    )


def decode_panoptic(
    panoptic: NDArray[np.integer], *, label_divisor: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Splits panoptic ids into classes and instance ids.

    Args:
        panoptic: `[H, W]` ids `class * label_divisor + instance`.
        label_divisor: The divisor the ids were made with.

    Returns:
        `[H, W]` class ids and `[H, W]` instance ids.

    Example:
        >>> classes, instances = decode_panoptic(np.array([[7002]]), label_divisor=1000)
        >>> int(classes[0, 0]), int(instances[0, 0])
        (7, 2)
    """
    semantic, instance = np.divmod(panoptic.astype(np.int32), np.int32(label_divisor))
    return semantic, instance
