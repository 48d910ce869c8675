"""Panoptic maps of the STEP data sets, made of class maps and MOTS instance maps.

KITTI-STEP and MOTChallenge-STEP are published as class maps; their instances come from
the MOTS annotations. Both are merged into PNGs with R class, 256 G + B instance.

Source: Weber et al., STEP: Segmenting and Tracking Every Pixel, NeurIPS 2021.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.datasets.labels import LabelMaps, label_problems
from deeplab2_edge.datasets.registry import get_dataset
from deeplab2_edge.errors import DataError, UsageError
from deeplab2_edge.files import ensure_output_dir
from deeplab2_edge.images import list_images, read_label_png, write_png
from deeplab2_edge.progress import progress

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


def write_step_maps(
    semantic_dir: str | os.PathLike[str],
    instance_dir: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    *,
    dataset: str,
    kernel_size: int = KERNEL_SIZE,
    quiet: bool = False,
) -> int:
    """Merges two folders of `<sequence>/<frame>.png` into one of panoptic maps.

    Maps that are there already are written again.

    Args:
        semantic_dir: 8-bit gray, train ids.
        instance_dir: 16-bit gray, MOTS class * 1000 + id.
        output_dir: For 8-bit RGB maps of the same names; made if missing.
        dataset: As for `merge_step_maps`.
        kernel_size: As for `merge_step_maps`.
        quiet: Show no progress.

    Returns:
        The number of maps.

    Raises:
        UsageError: As `merge_step_maps`.
        DataError: If a map is missing, damaged, of another mode or size, or holds
            what the data set does not have; the file is named.
        OutputError: If a map cannot be written.
    """
    semantic_dir, instance_dir = Path(semantic_dir), Path(instance_dir)
    for folder in (semantic_dir, instance_dir):
        if not folder.is_dir():
            raise DataError(
                f"{folder}: no such folder; expected one of <sequence>/<frame>.png"
            )
    info = get_dataset(dataset)
    output = ensure_output_dir(output_dir)
    paths = list_images(semantic_dir)
    for name, path in progress(
        paths.items(), total=len(paths), label="merging", quiet=quiet
    ):
        instance_path = instance_dir / f"{name}.png"
        semantic = _read_map(path, np.uint8, "8-bit gray with train ids")
        instance = _read_map(
            instance_path, np.uint16, "16-bit gray with MOTS class * 1000 + id"
        )
        try:
            panoptic = merge_step_maps(
                semantic, instance, dataset=dataset, kernel_size=kernel_size
            )
        except DataError as error:
            raise DataError(f"{instance_path}: {error}") from None
        maps = LabelMaps(*np.divmod(panoptic, _MOTS_DIVISOR))
        if problems := label_problems(maps, info):
            raise DataError(f"{path}: the merged map is wrong: {problems[0]}")
        target = output / f"{name}.png"
        ensure_output_dir(target.parent)
        write_png(target, encode_step_map(panoptic))
    return len(paths)


def encode_step_map(panoptic: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Encodes class * 1000 + instance as `[H, W, 3]` RGB: class, id / 256, id % 256."""
    semantic, instance = np.divmod(panoptic, _MOTS_DIVISOR)
    return np.stack([semantic, instance // 256, instance % 256], -1).astype(np.uint8)


def _read_map(path: Path, dtype: type[np.integer], mode: str) -> NDArray[np.integer]:
    stored: NDArray[np.integer] = read_label_png(path)
    if stored.ndim != 2 or stored.dtype != dtype:
        shape = "x".join(map(str, stored.shape))
        raise DataError(f"{path}: must be {mode}, found {shape} {stored.dtype}")
    return stored


def _replace(values: NDArray[np.int32], table: Mapping[int, int]) -> NDArray[np.int32]:
    replaced = values.copy()
    for old, new in table.items():
        replaced[values == old] = new
    return replaced
