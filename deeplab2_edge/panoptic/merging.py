"""Merging: one panoptic map from the semantic and the instance map."""

from collections.abc import Collection
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import UsageError

MergeSemantics = Literal["tf", "op"]

# Larger ids are replaced by their rank, so that histograms stay small.
_MAX_DENSE_ID = 4096


def merge_semantic_and_instance(
    semantic: NDArray[np.integer],
    instance: NDArray[np.integer],
    *,
    thing_ids: Collection[int],
    label_divisor: int,
    stuff_area_limit: int,
    void_label: int,
    merge_semantics: MergeSemantics = "tf",
) -> NDArray[np.int32]:
    """Merges a semantic and an instance map into a panoptic map.

    An instance takes the class most frequent among its thing pixels (ties: the
    smaller class), and the next number of that class, counted from 1 in the order in
    which ids first appear in `instance`, in raster order. A stuff class is kept where
    no instance claims it if it has at least `stuff_area_limit` such pixels. All else
    is void: thing pixels without an instance, small stuff, and instances beyond the
    `label_divisor - 1` that a class can number.

    These are the rules by which the published figures were made. The compiled
    operator of the same system, the default of its configuration files, differs; with
    `merge_semantics="op"`
    * instances are numbered by ascending id (the operator: in no defined order on a
      CPU);
    * id 0 is an instance like any other, so that without centers all thing pixels
      become one instance of their most frequent class;
    * a stuff class counts all its pixels, claimed or not, and is dropped if
      `stuff_area_limit` is above 0 and they are not more than that.

    Args:
        semantic: `[H, W]` class ids, 0 or more.
        instance: `[H, W]` class-agnostic instance ids, 0 for none.
        thing_ids: Classes that have instances.
        label_divisor: Panoptic ids are `class * label_divisor + number`.
        stuff_area_limit: Smallest area of a stuff class, in pixels.
        void_label: Void is `void_label * label_divisor`.
        merge_semantics: Whose rules are followed where the published ones disagree.

    Returns:
        `[H, W]` panoptic ids.

    Raises:
        UsageError: If the shapes differ, an id is negative or there are no such rules.

    References:
        Cheng et al., Panoptic-DeepLab, CVPR 2020, arXiv:1911.10194. One pass of
        histograms: O(H * W + N * C) time, O(H * W) memory.
    """
    if merge_semantics not in get_args(MergeSemantics):
        raise UsageError(
            f"merge_semantics is {merge_semantics!r}; expected 'tf' or 'op'"
        )
    if semantic.shape != instance.shape or semantic.ndim != 2:
        raise UsageError(
            f"semantic has shape {semantic.shape}, instance {instance.shape}; "
            "expected the same [H, W]"
        )
    if not semantic.size:
        return np.zeros(semantic.shape, np.int32)
    if min(int(semantic.min()), int(instance.min())) < 0:
        raise UsageError("semantic and instance ids must be 0 or more")

    classes, ids = semantic.reshape(-1), instance.reshape(-1)
    num_classes = int(classes.max()) + 1
    is_thing = np.isin(np.arange(num_classes), list(thing_ids))
    area_px = _count(classes, num_classes)
    if merge_semantics == "op":
        claimed = np.flatnonzero(is_thing[classes])
        is_small = (stuff_area_limit > 0) & (area_px <= stuff_area_limit)
    else:
        claimed = np.flatnonzero(ids)
        area_px -= _count(classes[claimed], num_classes)
        is_small = area_px < stuff_area_limit
    void = void_label * label_divisor
    panoptic_of_class = np.where(
        is_thing | is_small, void, np.arange(num_classes) * label_divisor
    )
    panoptic: NDArray[np.int32] = panoptic_of_class.astype(np.int32)[classes]
    if claimed.size:
        index, order = _in_order_of_appearance(ids[claimed])
        claimed_classes = classes[claimed]
        on_thing = is_thing[claimed_classes]
        panoptic_of_instance = _number_instances(
            claimed_classes[on_thing],
            index[on_thing],
            np.sort(order) if merge_semantics == "op" else order,
            num_classes,
            label_divisor,
        )
        panoptic_of_instance[panoptic_of_instance < 0] = void
        panoptic[claimed] = np.where(on_thing, panoptic_of_instance[index], void)
    return panoptic.reshape(semantic.shape)


def _count(classes: NDArray[np.integer], num_classes: int) -> NDArray[np.intp]:
    """Counts the pixels of each class."""
    # As wide as addresses: `bincount` takes nothing wider, and ARM may have 32 bits.
    return np.bincount(classes.astype(np.intp, copy=False), minlength=num_classes)


def _in_order_of_appearance(
    ids: NDArray[np.integer],
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Lists the ids of `[M]` pixels in the order in which they first appear.

    Returns:
        `[M]` indices of small range that stand for the ids, and the indices present.
    """
    index = ids.astype(np.intp)
    if int(index.max()) > _MAX_DENSE_ID:
        index = np.unique(index, return_inverse=True)[1].reshape(-1)
    # Written backwards, so that the first pixel of an id is written last.
    first_pixel = np.full(int(index.max()) + 1, -1, np.intp)
    first_pixel[index[::-1]] = np.arange(index.size)[::-1]
    present = np.flatnonzero(first_pixel >= 0)
    return index, present[np.argsort(first_pixel[present])]


def _number_instances(
    classes: NDArray[np.integer],
    index: NDArray[np.intp],
    order: NDArray[np.intp],
    num_classes: int,
    label_divisor: int,
) -> NDArray[np.int64]:
    """Gives the panoptic id of every instance index, -1 where it has none.

    Args:
        classes: `[M]` classes of the thing pixels.
        index: `[M]` instance indices of the same pixels.
        order: Instance indices in the order in which they are numbered.
        num_classes: Above every class.
        label_divisor: No class numbers more than `label_divisor - 1` instances.
    """
    num_ids = int(order.max()) + 1
    votes = _count(index * num_classes + classes, num_ids * num_classes)
    votes = votes.reshape(num_ids, num_classes)
    winner = votes.argmax(axis=1)
    order = order[votes.sum(axis=1)[order] > 0]
    panoptic_id = np.full(num_ids, -1, np.int64)
    for class_id in np.unique(winner[order]):
        members = order[winner[order] == class_id][: label_divisor - 1]
        panoptic_id[members] = class_id * label_divisor + 1 + np.arange(members.size)
    return panoptic_id
