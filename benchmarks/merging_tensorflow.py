"""Panoptic merging as one writes it down in TensorFlow, to be compared with.

Everything is done at full size: all logits are upsampled, softmax before argmax, the
distance of every pixel to every center, and a pass over the image for each instance and
class.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.panoptic import MergeSettings


def make_merge(
    canvas: tuple[int, int], settings: MergeSettings
) -> Callable[[Mapping[str, NDArray[np.float32]]], NDArray[np.int32]]:
    """Gives a function from heads `[h, w, C]` to the panoptic map of the canvas."""
    merge = merge_function(canvas, settings)

    def run(heads: Mapping[str, NDArray[np.float32]]) -> NDArray[np.int32]:
        found: NDArray[np.int32] = merge(
            heads[keys.SEMANTIC_LOGITS],
            heads[keys.CENTER_HEATMAP],
            heads[keys.OFFSET_MAP],
        ).numpy()
        return found

    return run


def merge_function(canvas: tuple[int, int], settings: MergeSettings) -> Any:
    """Gives a `tf.function` from logits, heatmap and offsets to the panoptic map."""
    import tensorflow as tf

    def resize(head: Any) -> Any:
        return tf.compat.v1.image.resize_bilinear(
            head[None], canvas, align_corners=True
        )

    def find_centers(heatmap: Any) -> Any:
        heat = resize(heatmap)
        heat = tf.where(heat > settings.center_score_threshold, heat, 0.0)
        pooled = tf.nn.max_pool2d(heat, settings.nms_kernel, 1, "SAME")
        return tf.where((heat == pooled) & (heat > 0))[:, 1:3]

    def group(offsets: Any, centers: Any) -> Any:
        growth = [
            (side - 1) / (size - 1)
            for side, size in zip(canvas, offsets.shape[:2], strict=True)
        ]
        rows, columns = tf.meshgrid(*map(tf.range, canvas), indexing="ij")
        place = tf.cast(tf.stack([rows, columns], axis=-1), tf.float32)
        votes = place + resize(offsets * tf.constant(growth, tf.float32))[0]
        votes = tf.reshape(votes, [1, -1, 2])
        distances = tf.norm(tf.cast(centers[:, None], tf.float32) - votes, axis=-1)
        return tf.reshape(tf.argmin(distances, output_type=tf.int32), canvas) + 1

    @tf.function
    def merge(logits: Any, heatmap: Any, offsets: Any) -> Any:
        probabilities = tf.nn.softmax(resize(logits))
        semantic = tf.argmax(probabilities, axis=-1, output_type=tf.int32)[0]
        instance = group(offsets, find_centers(heatmap))
        things = tf.constant(settings.thing_ids, tf.int32)
        is_thing = tf.reduce_any(semantic[..., None] == things, axis=-1)
        instance = tf.where(is_thing, instance, 0)
        num_classes = logits.shape[-1]
        panoptic = tf.fill(canvas, settings.ignore_label * settings.label_divisor)
        numbers = tf.zeros([num_classes], tf.int32)
        ids, _ = tf.unique(tf.reshape(instance, [-1]))
        for i in ids[ids > 0]:
            mask = instance == i
            votes = tf.math.bincount(semantic[mask], minlength=num_classes)
            winner = tf.argmax(votes, output_type=tf.int32)
            numbers += tf.one_hot(winner, num_classes, dtype=tf.int32)
            new_id = winner * settings.label_divisor + numbers[winner]
            panoptic = tf.where(mask, new_id, panoptic)
        for c in range(num_classes):
            if c in settings.thing_ids:
                continue
            mask = semantic == c
            if tf.reduce_sum(tf.cast(mask, tf.int32)) >= settings.stuff_area_limit:
                panoptic = tf.where(mask, c * settings.label_divisor, panoptic)
        return panoptic

    return merge
