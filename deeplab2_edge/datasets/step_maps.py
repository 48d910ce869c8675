"""Panoptic maps of the STEP data sets, made of class maps and MOTS instance maps.

KITTI-STEP and MOTChallenge-STEP are published as class maps; their instances come from
the MOTS annotations. Both are merged into PNGs with R class, 256 G + B instance.

Source: Weber et al., STEP: Segmenting and Tracking Every Pixel, NeurIPS 2021.
"""

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import DataError, UsageError

KERNEL_SIZE = 15  # of the published maps: labels of instances end a little early
_MOTS_DIVISOR = 1000
_VOID = 255
_CAR, _PERSON = 13, 11  # Cityscapes classes
_INSTANCE_CLASSES = ((1, _CAR), (2, _PERSON))  # MOTS class, class

# MOTChallenge keeps seven of the Cityscapes classes.
_MOT_MERGED = {0: 1, 9: 8} | {c: _VOID for c in (3, 4, 5, 6, 7, 13, 14, 15, 16, 17)}
_MOT_NUMBERS = {1: 0, 2: 1, 8: 2, 10: 3, 11: 4, 12: 5, 18: 6}
_NAMES = ("kitti_step", "motchallenge_step")


def merge_step_maps(
    semantic: NDArray[np.integer],
    instance: NDArray[np.integer],
    *,
    dataset: str,
    kernel_size: int = KERNEL_SIZE,
) -> NDArray[np.int32]:
    """Merges a class map and a MOTS instance map into a panoptic map.

    Around the instances of a class, pixels within the kernel that have this class
    but no instance become void; further away they stay as a crowd (instance 0).

    Args:
        semantic: `[H, W]` Cityscapes train ids, 255 void.
        instance: `[H, W]` class * 1000 + id with MOTS classes 1 (car) and 2 (person);
            others are passed over.
        dataset: `"kitti_step"` or `"motchallenge_step"`, which has fewer classes.
        kernel_size: Side of the square that widens the instances; 1 for none.

    Returns:
        `[H, W]` class * 1000 + instance, instances from 1.

    Raises:
        UsageError: If the data set is another, or the kernel has no middle.
        DataError: If the sizes differ, or an instance number does not fit.

    Example:
        >>> semantic = np.array([[11, 11, 11, 0]], np.uint8)
        >>> instance = np.array([[2004, 0, 0, 0]], np.uint16)
        >>> merge_step_maps(semantic, instance, dataset="kitti_step", kernel_size=3)
        array([[ 11005, 255000,  11000,      0]], dtype=int32)
    """
    if dataset not in _NAMES:
        raise UsageError(f"data set {dataset!r}: expected {' or '.join(_NAMES)}")
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise UsageError(f"kernel_size is {kernel_size}; expected 1, 3, 5, ...")
    if semantic.shape != instance.shape or semantic.ndim != 2:
        raise DataError(
            f"the class map is {'x'.join(map(str, semantic.shape))}, the instance map "
            f"{'x'.join(map(str, instance.shape))}; both must be of one size"
        )
    is_mot = dataset == "motchallenge_step"
    classes = semantic.astype(np.int32)
    if is_mot:
        classes = _replace(classes, _MOT_MERGED)
    mots_class, mots_id = np.divmod(instance.astype(np.int32), _MOTS_DIVISOR)
    instances = np.zeros_like(classes)
    kernel = np.ones((kernel_size, kernel_size), np.uint8)
    for number, class_id in _INSTANCE_CLASSES:
        mask = mots_class == number
        if not mask.any():
            continue
        if mots_id[mask].max() + 1 >= _MOTS_DIVISOR:
            raise DataError(
                f"instance {mots_id[mask].max()} of MOTS class {number} does not fit; "
                f"numbers go to {_MOTS_DIVISOR - 2}"
            )
        widened = cv2.dilate(mask.astype(np.uint8), kernel).astype(bool)
        classes[widened & ~mask & (classes == class_id)] = _VOID
        classes[mask] = class_id
        instances[mask] = mots_id[mask] + 1
    instances[classes == _VOID] = 0
    if is_mot:
        classes = _replace(classes, _MOT_NUMBERS)
    return classes * np.int32(_MOTS_DIVISOR) + instances


def encode_step_map(panoptic: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Encodes class * 1000 + instance as `[H, W, 3]` RGB: class, id / 256, id % 256."""
    semantic, instance = np.divmod(panoptic, _MOTS_DIVISOR)
    return np.stack([semantic, instance // 256, instance % 256], -1).astype(np.uint8)


def _replace(values: NDArray[np.int32], table: Mapping[int, int]) -> NDArray[np.int32]:
    replaced = values.copy()
    for old, new in table.items():
        replaced[values == old] = new
    return replaced
