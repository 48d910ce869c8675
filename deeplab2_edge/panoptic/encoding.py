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


def change_divisor(
    panoptic: NDArray[np.integer], *, label_divisor: int, new_divisor: int
) -> NDArray[np.int32]:
    """Encodes panoptic ids with another divisor.

    Args:
        panoptic: Ids `class * label_divisor + instance`, of any shape.
        label_divisor: The divisor the ids were made with.
        new_divisor: Larger than every instance id.

    Returns:
        Ids `class * new_divisor + instance`; a copy if both divisors are equal.

    Raises:
        UsageError: If an instance id does not fit below `new_divisor`.
    """
    if new_divisor == label_divisor:
        return panoptic.astype(np.int32)
    semantic, instance = decode_panoptic(panoptic, label_divisor=label_divisor)
    return encode_panoptic(semantic, instance, label_divisor=new_divisor)


def relabel(
    panoptic: NDArray[np.integer],
    old_ids: NDArray[np.integer],
    new_ids: NDArray[np.integer],
) -> NDArray[np.int32]:
    """Replaces ids, all at once: two segments can swap their ids.

    Args:
        panoptic: `[H, W]` ids; those not in `old_ids` stay.
        old_ids: `[N]`, each once.
        new_ids: `[N]` what they become.

    Example:
        >>> relabel(np.array([[7, 8, 9]]), np.array([8, 7]), np.array([7, 8]))
        array([[8, 7, 9]], dtype=int32)
    """
    result = panoptic.astype(np.int32)
    if not len(old_ids):
        return result
    order = np.argsort(old_ids)
    ascending = old_ids[order].astype(np.int32)
    place = np.searchsorted(ascending, result)
    place[place == len(ascending)] = 0
    return np.where(ascending[place] == result, new_ids[order][place], result).astype(
        np.int32
    )
