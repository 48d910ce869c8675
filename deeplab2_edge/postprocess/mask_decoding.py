"""From the masks and classes of a mask transformer to panoptic maps."""

from typing import Any

import numpy as np

from deeplab2_edge.errors import UsageError
from deeplab2_edge.optional import require
from deeplab2_edge.panoptic.mask_decoding import class_order
from deeplab2_edge.panoptic.mask_settings import MaskSettings, MaskwiseSettings
from deeplab2_edge.postprocess.resize import map_bands

tf: Any = require("tensorflow", extra="train")


def decode_masks(
    mask_logits: Any,
    class_logits: Any,
    *,
    canvas: tuple[int, int],
    settings: MaskSettings,
) -> dict[str, Any]:
    """Computes the panoptic segmentation of a canvas from masks and their classes.

    The rules are those of `deeplab2_edge.panoptic.decode_masks`. All shapes are
    static; logits are resized a band of rows at a time.

    Args:
        mask_logits: `[h, w, N]`, static sizes.
        class_logits: `[N, K + 1]`, classes in the order of `class_order`, void last.
        canvas: (H, W) of the network input.
        settings: How to decode; `settings.maskwise` chooses the rules.

    Returns:
        The attributes of `deeplab2_edge.panoptic.MaskMaps` by name, with equal integers
        and scores that differ by rounding.

    Raises:
        UsageError: If mask ids do not fit below the divisor.
    """
    if mask_logits.shape[-1] >= settings.label_divisor:
        raise UsageError(
            f"label_divisor is {settings.label_divisor}; it must be above the number "
            f"of masks, {mask_logits.shape[-1]}"
        )
    probabilities = tf.nn.softmax(tf.cast(class_logits, tf.float32))[:, :-1]
    class_index = tf.argmax(probabilities, axis=1, output_type=tf.int32)
    order = class_order(
        probabilities.shape[1], settings.thing_ids, settings.ignore_label
    )
    masks = {
        "ids": tf.gather(order, class_index),
        "is_thing": class_index < len(settings.thing_ids),
        "confidence": tf.reduce_max(probabilities, axis=1),
    }
    if settings.maskwise is None:
        return _pixelwise(mask_logits, masks, canvas, settings)
    return _maskwise(mask_logits, masks, canvas, settings, settings.maskwise)


def _pixelwise(
    mask_logits: Any,
    masks: dict[str, Any],
    canvas: tuple[int, int],
    settings: MaskSettings,
) -> dict[str, Any]:
    is_detected = masks["confidence"] >= settings.transformer_class_confidence_threshold
    has_any = tf.reduce_any(is_detected)

    def decide(logits: Any) -> Any:
        detected = tf.where(is_detected, logits, tf.float32.min)
        top = tf.reduce_max(detected, axis=-1)
        share = tf.reduce_sum(tf.exp(detected - top[..., tf.newaxis]), axis=-1)
        return (
            tf.argmax(logits, axis=-1, output_type=tf.int32),
            tf.argmax(detected, axis=-1, output_type=tf.int32),
            1 / share,
            top == tf.reduce_max(logits, axis=-1),
        )

    best, winner, confidence, is_best = map_bands(decide, mask_logits, canvas)
    winner = tf.where(has_any, winner, 0)
    is_confident = (
        has_any & is_best & (confidence > settings.pixel_confidence_threshold)
    )
    return {
        "panoptic": _merge(winner, is_confident, masks, settings),
        "semantic": tf.gather(masks["ids"], best),
        "mask_id": winner + 1,
        "mask_semantic": tf.where(has_any, tf.gather(masks["ids"], winner), 0),
        "instance_scores": tf.where(has_any, confidence, 0.0),
        "semantic_scores": tf.where(
            has_any, tf.gather(masks["confidence"], winner), 0.0
        ),
    }


def _maskwise(
    mask_logits: Any,
    masks: dict[str, Any],
    canvas: tuple[int, int],
    settings: MaskSettings,
    rules: MaskwiseSettings,
) -> dict[str, Any]:
    num_masks = mask_logits.shape[-1]
    threshold = settings.pixel_confidence_threshold
    order = _pasting_order(mask_logits, masks["confidence"], threshold, rules)
    ranked = {name: tf.gather(x, order) for name, x in masks.items()}
    is_detected = ranked["confidence"] >= tf.where(
        ranked["is_thing"],
        np.float32(rules.transformer_class_confidence_threshold_thing),
        np.float32(rules.transformer_class_confidence_threshold_stuff),
    )
    # Probabilities sum to 1, so no more masks are above the threshold at one pixel.
    most = num_masks
    if threshold > 0:
        most = max(min(num_masks, int(1.00001 / threshold)), 1)

    def decide(logits: Any) -> Any:
        probabilities = tf.nn.softmax(tf.gather(logits, order, axis=-1))
        # The first masks above the threshold; `num_masks` where there is none left.
        turn = tf.where(probabilities > threshold, tf.range(num_masks, 0, -1), 0)
        return (
            tf.argmax(logits, axis=-1, output_type=tf.int32),
            tf.reduce_max(probabilities, axis=-1),
            num_masks - tf.math.top_k(turn, most).values,
        )

    best, confidence, candidates = map_bands(decide, mask_logits, canvas)
    winner = _paste(candidates, is_detected, np.float32(rules.overlapping_threshold))
    is_pasted = winner >= 0
    winner = tf.maximum(winner, 0)
    has_any = tf.reduce_any(is_detected)
    return {
        "panoptic": _merge(winner, is_pasted, ranked, settings),
        "semantic": tf.gather(masks["ids"], best),
        "mask_id": winner + 1,
        "mask_semantic": tf.where(has_any, tf.gather(ranked["ids"], winner), 0),
        "instance_scores": tf.where(has_any, confidence, 0.0),
        "semantic_scores": tf.where(
            is_pasted, tf.gather(ranked["confidence"], winner), 0.0
        ),
    }


def _pasting_order(
    mask_logits: Any, class_confidence: Any, threshold: float, rules: MaskwiseSettings
) -> Any:
    """Orders the masks by confidence in class and mask, at the stride of the masks."""
    probabilities = tf.reshape(
        tf.nn.softmax(tf.cast(mask_logits, tf.float32)), [-1, mask_logits.shape[-1]]
    )
    is_mask = probabilities > threshold
    area_px = tf.reduce_sum(tf.cast(is_mask, tf.float32), axis=0)
    total = tf.reduce_sum(tf.where(is_mask, probabilities, 0.0), axis=0)
    score = tf.pow(class_confidence, rules.reorder_class_weight)
    score *= tf.pow(total / tf.maximum(area_px, 1.0), rules.reorder_mask_weight)
    return tf.argsort(score, direction="DESCENDING", stable=True)


def _paste(candidates: Any, is_detected: Any, overlapping_threshold: np.float32) -> Any:
    """Gives the rank of the mask that takes each pixel, -1 where none does.

    Args:
        candidates: `[H, W, M]` ranks of the masks that want the pixel.
        is_detected: `[N]` which masks may be pasted.
        overlapping_threshold: Part of a mask that must be free.
    """

    def step(rank: Any, winner: Any) -> Any:
        is_mask = tf.reduce_any(candidates == rank, axis=-1)
        is_free = is_mask & (winner < 0)
        area_px, free_px = (
            tf.cast(tf.math.count_nonzero(x, dtype=tf.int32), tf.float32)
            for x in (is_mask, is_free)
        )
        is_taken = is_detected[rank] & (free_px > overlapping_threshold * area_px)
        return rank + 1, tf.where(is_free & is_taken, rank, winner)

    num_masks = is_detected.shape[0]
    _, winner = tf.while_loop(
        lambda rank, _: rank < num_masks,
        step,
        (tf.constant(0), tf.fill(candidates.shape[:2], -1)),
        maximum_iterations=num_masks,
    )
    return winner


def _merge(
    winner: Any, is_confident: Any, masks: dict[str, Any], settings: MaskSettings
) -> Any:
    num_masks = masks["ids"].shape[0]
    ids, is_thing = masks["ids"], masks["is_thing"]
    area_px = tf.math.unsorted_segment_sum(
        tf.cast(tf.reshape(is_confident, [-1]), tf.int32),
        tf.reshape(winner, [-1]),
        num_masks,
    )
    stuff_area_px = tf.where(is_thing, 0, area_px)
    of_class = tf.where(ids[:, tf.newaxis] == ids, stuff_area_px, 0)
    is_kept = tf.where(
        is_thing,
        area_px >= settings.thing_area_limit,
        tf.reduce_sum(of_class, axis=1) >= settings.stuff_area_limit,
    )
    number = tf.where(is_thing, np.arange(1, num_masks + 1, dtype=np.int32), 0)
    void = settings.ignore_label * settings.label_divisor
    panoptic_of_mask = tf.where(is_kept, ids * settings.label_divisor + number, void)
    return tf.where(is_confident, tf.gather(panoptic_of_mask, winner), void)
