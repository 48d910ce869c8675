"""From the masks and classes of a mask transformer to panoptic maps."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import UsageError
from deeplab2_edge.panoptic.mask_settings import MaskSettings, MaskwiseSettings
from deeplab2_edge.panoptic.resize import resize_bilinear_in_bands


@dataclass(frozen=True, eq=False)
class MaskMaps:
    """Holds the panoptic segmentation of one canvas by masks.

    A pixel without a mask has `mask_id` 1, and where no mask at all is detected the
    scores are 0.

    Attributes:
        panoptic: `[H, W]` int32, `class * label_divisor + mask_id` on things,
            `class * label_divisor` on stuff.
        semantic: `[H, W]` int32, class of the mask with the highest logit, whatever
            its confidence; never void.
        mask_id: `[H, W]` int32, 1 + index of the mask that has the pixel. The maskwise
            rules count masks in their order of pasting.
        mask_semantic: `[H, W]` int32, class of that mask, 0 if no mask is detected.
        instance_scores: `[H, W]` float32, probability of the best mask of the pixel.
        semantic_scores: `[H, W]` float32, class probability of the mask that has the
            pixel; 0 where no mask was pasted.
    """

    panoptic: NDArray[np.int32]
    semantic: NDArray[np.int32]
    mask_id: NDArray[np.int32]
    mask_semantic: NDArray[np.int32]
    instance_scores: NDArray[np.float32]
    semantic_scores: NDArray[np.float32]


def decode_masks(
    mask_logits: NDArray[np.float32],
    class_logits: NDArray[np.float32],
    *,
    canvas: tuple[int, int],
    settings: MaskSettings,
) -> MaskMaps:
    """Computes the panoptic segmentation of a canvas from masks and their classes.

    Pixelwise, every pixel goes to the mask with the highest logit among those whose
    class is certain, if the pixel is certain too and no uncertain mask has a higher
    logit. Maskwise, masks are pasted in the order of their confidence onto what is
    still free. Logits are resized with aligned corners, a band of rows at a time.

    Args:
        mask_logits: `[h, w, N]`, masks at the stride of the network.
        class_logits: `[N, K + 1]`, classes in the order of `class_order`, void last.
        canvas: (H, W) of the network input.
        settings: How to decode; `settings.maskwise` chooses the rules.

    Raises:
        UsageError: If shapes do not fit, or mask ids do not fit below the divisor.

    References:
        Wang et al., MaX-DeepLab, CVPR 2021, arXiv:2012.00759 (pixelwise).
        Li et al., Panoptic SegFormer, CVPR 2022, arXiv:2109.03814 (maskwise).
    """
    check_logits(mask_logits, class_logits, settings)
    classes = classes_of_masks(class_logits, settings)
    decode = _pixelwise if settings.maskwise is None else _maskwise
    return decode(mask_logits, classes, canvas, settings)


def class_order(
    num_classes: int, thing_ids: Collection[int], ignore_label: int
) -> NDArray[np.int32]:
    """Lists the classes in the order of the class logits of a mask transformer.

    Args:
        num_classes: Classes of the logits, without their void.
        thing_ids: Classes that have instances; they come first, in this order.
        ignore_label: Never a class of the logits.

    Returns:
        `[num_classes]` class ids: things, then stuff in ascending order.

    Example:
        >>> class_order(5, (1, 3), 0)
        array([1, 3, 2, 4, 5], dtype=int32)
    """
    things = list(thing_ids)
    taken = {*things, ignore_label}
    free = (c for c in range(num_classes + len(taken)) if c not in taken)
    stuff = [c for c, _ in zip(free, range(num_classes - len(things)), strict=False)]
    return np.array(things + stuff, np.int32)


@dataclass(frozen=True, eq=False)
class MaskClasses:
    """Says what each of `N` masks is, and how sure that is.

    Attributes:
        ids: `[N]` int32 class ids.
        is_thing: `[N]` bool.
        confidence: `[N]` float32 class probabilities.
    """

    ids: NDArray[np.int32]
    is_thing: NDArray[np.bool_]
    confidence: NDArray[np.float32]

    def reordered(self, order: NDArray[np.intp]) -> "MaskClasses":
        """Gives the same masks in another order."""
        return MaskClasses(
            self.ids[order], self.is_thing[order], self.confidence[order]
        )

    def detected(self, settings: MaskSettings) -> NDArray[np.intp]:
        """Lists the masks whose class is certain by the pixelwise rules."""
        threshold = np.float32(settings.transformer_class_confidence_threshold)
        return np.flatnonzero(self.confidence >= threshold)


def classes_of_masks(
    class_logits: NDArray[np.float32], settings: MaskSettings
) -> MaskClasses:
    """Finds the best class of each mask; void does not count.

    Args:
        class_logits: `[N, K + 1]`, void last.
        settings: Names the things.
    """
    probabilities = _softmax(class_logits.astype(np.float32))[:, :-1]
    class_index = probabilities.argmax(axis=1)
    order = class_order(
        probabilities.shape[1], settings.thing_ids, settings.ignore_label
    )
    return MaskClasses(
        ids=order[class_index],
        is_thing=class_index < len(settings.thing_ids),
        confidence=probabilities.max(axis=1),
    )


def confidence_of_best(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Computes the largest softmax probability along the last axis of `[..., N]`."""
    top = logits.max(axis=-1, keepdims=True)
    confidence: NDArray[np.float32] = 1 / np.exp(logits - top).sum(axis=-1)
    return confidence


def panoptic_of_masks(
    area_px: NDArray[np.integer], classes: MaskClasses, settings: MaskSettings
) -> NDArray[np.int32]:
    """Gives the panoptic id of each mask; void where areas are below their limits.

    Args:
        area_px: `[N]` pixels of each mask.
        classes: Of the masks.
        settings: Limits and divisor.
    """
    stuff_area_px = np.bincount(classes.ids, weights=area_px * ~classes.is_thing)
    is_kept = np.where(
        classes.is_thing,
        area_px >= settings.thing_area_limit,
        stuff_area_px[classes.ids] >= settings.stuff_area_limit,
    )
    number = np.where(classes.is_thing, np.arange(1, len(area_px) + 1), 0)
    void = settings.ignore_label * settings.label_divisor
    return np.where(
        is_kept, classes.ids * settings.label_divisor + number, void
    ).astype(np.int32)


def check_logits(
    mask_logits: NDArray[np.generic],
    class_logits: NDArray[np.generic],
    settings: MaskSettings,
) -> None:
    """Checks that logits of any type fit each other and the settings.

    Raises:
        UsageError: If not.
    """
    if mask_logits.ndim != 3 or 0 in mask_logits.shape:
        raise UsageError(f"mask_logits has shape {mask_logits.shape}; expected [h,w,N]")
    num_masks, num_things = mask_logits.shape[-1], len(settings.thing_ids)
    if (
        class_logits.ndim != 2
        or class_logits.shape[0] != num_masks
        or class_logits.shape[1] < max(num_things + 1, 2)
    ):
        raise UsageError(
            f"class_logits has shape {class_logits.shape}; expected [{num_masks}, K+1] "
            f"beside {num_masks} masks and with K of at least {max(num_things, 1)}"
        )
    if num_masks >= settings.label_divisor:
        raise UsageError(
            f"label_divisor is {settings.label_divisor}; it must be above the number "
            f"of masks, {num_masks}"
        )


def _pixelwise(
    mask_logits: NDArray[np.float32],
    classes: MaskClasses,
    canvas: tuple[int, int],
    settings: MaskSettings,
) -> MaskMaps:
    detected = classes.detected(settings)
    best = np.zeros(canvas, np.int32)
    winner = np.zeros(canvas, np.int32)
    confidence = np.zeros(canvas, np.float32)
    is_confident = np.zeros(canvas, np.bool_)
    for rows, logits in resize_bilinear_in_bands(mask_logits, canvas):
        best[rows] = logits.argmax(axis=-1)
        if not detected.size:
            continue
        top_of_all = logits.max(axis=-1)
        if detected.size < logits.shape[-1]:
            # In C order, which decides the order of sums.
            logits = np.take(logits, detected, axis=-1)
        winner[rows] = detected[logits.argmax(axis=-1)]
        confidence[rows] = confidence_of_best(logits)
        is_confident[rows] = logits.max(axis=-1) == top_of_all
    is_confident &= confidence > np.float32(settings.pixel_confidence_threshold)
    return MaskMaps(
        panoptic=_merge(winner, is_confident, classes, settings),
        semantic=classes.ids[best],
        mask_id=winner + np.int32(1),
        mask_semantic=_where_detected(detected.size > 0, classes.ids[winner]),
        instance_scores=confidence,
        semantic_scores=_where_detected(detected.size > 0, classes.confidence[winner]),
    )


def _maskwise(
    mask_logits: NDArray[np.float32],
    classes: MaskClasses,
    canvas: tuple[int, int],
    settings: MaskSettings,
) -> MaskMaps:
    rules = settings.maskwise
    assert rules is not None
    threshold = np.float32(settings.pixel_confidence_threshold)
    order = _pasting_order(mask_logits, classes.confidence, threshold, rules)
    ranked = classes.reordered(order)
    is_detected = ranked.confidence >= np.where(
        ranked.is_thing,
        np.float32(rules.transformer_class_confidence_threshold_thing),
        np.float32(rules.transformer_class_confidence_threshold_stuff),
    )

    best = np.zeros(canvas, np.int32)
    confidence = np.zeros(canvas, np.float32)
    # Few masks can be above the threshold at one pixel, so these lists stay short.
    pixels, ranks = [], []
    for rows, logits in resize_bilinear_in_bands(mask_logits[..., order], canvas):
        # Of equal logits the mask that the network lists first wins.
        top = logits.max(axis=-1)
        best[rows] = np.where(
            logits == top[..., np.newaxis], order.astype(np.int32), len(order)
        ).min(axis=-1)
        probabilities = _softmax(logits)
        confidence[rows] = probabilities.max(axis=-1)
        above = np.flatnonzero(probabilities > threshold)
        pixel, rank = np.divmod(above, len(order))
        pixels.append(pixel + rows.start * canvas[1])
        ranks.append(rank)
    winner = _paste(
        np.concatenate(pixels),
        np.concatenate(ranks),
        is_detected,
        canvas,
        np.float32(rules.overlapping_threshold),
    )
    is_pasted = winner >= 0
    winner = np.maximum(winner, 0)
    has_any = bool(is_detected.any())
    return MaskMaps(
        panoptic=_merge(winner, is_pasted, ranked, settings),
        semantic=classes.ids[np.minimum(best, len(order) - 1)],
        mask_id=winner + np.int32(1),
        mask_semantic=_where_detected(has_any, ranked.ids[winner]),
        instance_scores=_where_detected(has_any, confidence),
        semantic_scores=np.where(is_pasted, ranked.confidence[winner], np.float32(0)),
    )


def _pasting_order(
    mask_logits: NDArray[np.float32],
    class_confidence: NDArray[np.float32],
    threshold: np.float32,
    rules: MaskwiseSettings,
) -> NDArray[np.intp]:
    """Orders the masks by confidence in class and mask, at the stride of the masks."""
    probabilities = _softmax(mask_logits.astype(np.float32)).reshape(
        -1, mask_logits.shape[-1]
    )
    is_mask = probabilities > threshold
    area_px = is_mask.sum(axis=0)
    total = np.where(is_mask, probabilities, np.float32(0)).sum(axis=0)
    mask_confidence = total / np.maximum(area_px, 1).astype(np.float32)
    score = np.power(class_confidence, np.float32(rules.reorder_class_weight))
    score *= np.power(mask_confidence, np.float32(rules.reorder_mask_weight))
    return np.argsort(-score, kind="stable")


def _paste(
    pixels: NDArray[np.intp],
    ranks: NDArray[np.intp],
    is_detected: NDArray[np.bool_],
    canvas: tuple[int, int],
    overlapping_threshold: np.float32,
) -> NDArray[np.int32]:
    """Gives the rank of the mask that takes each pixel, -1 where none does.

    Args:
        pixels: `[M]` raster indices of the pixels of all masks.
        ranks: `[M]` to which mask they belong.
        is_detected: `[N]` which masks may be pasted.
        canvas: (H, W).
        overlapping_threshold: Part of a mask that must be free.
    """
    winner = np.full(canvas[0] * canvas[1], -1, np.int32)
    pixels = pixels[np.argsort(ranks, kind="stable")]
    ends = np.cumsum(np.bincount(ranks, minlength=len(is_detected)))
    for rank, mask in enumerate(np.split(pixels, ends[:-1])):
        if not is_detected[rank]:
            continue
        free = mask[winner[mask] < 0]
        if np.float32(free.size) > overlapping_threshold * np.float32(mask.size):
            winner[free] = rank
    return winner.reshape(canvas)


def _merge(
    winner: NDArray[np.int32],
    is_confident: NDArray[np.bool_],
    classes: MaskClasses,
    settings: MaskSettings,
) -> NDArray[np.int32]:
    area_px = np.bincount(winner[is_confident], minlength=len(classes.ids))
    panoptic_of_mask = panoptic_of_masks(area_px, classes, settings)
    void = settings.ignore_label * settings.label_divisor
    return np.where(is_confident, panoptic_of_mask[winner], void).astype(np.int32)


def _where_detected(is_any: bool, x: NDArray[np.generic]) -> NDArray:  # type: ignore[type-arg]
    return x if is_any else np.zeros_like(x)


def _softmax(x: NDArray[np.float32]) -> NDArray[np.float32]:
    result: NDArray[np.float32] = np.exp(x - x.max(axis=-1, keepdims=True))
    result /= result.sum(axis=-1, keepdims=True)
    return result
