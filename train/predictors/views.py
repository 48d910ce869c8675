"""Test-time augmentation: several looks at one canvas, averaged.

A view is the canvas at another scale, perhaps mirrored. What a network says about a
view is brought back to the canvas; the heads of all views are averaged, and what
follows the network runs once, on the averages.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.checkpoints import load_weights
from deeplab2_edge.config import ExperimentOptions
from deeplab2_edge.errors import ConfigError
from deeplab2_edge.layers.resize import resize_bilinear as resize_batch
from deeplab2_edge.layers.resize import scaled_side, strided_side
from deeplab2_edge.models.build import aspp_pool_size, build_model
from deeplab2_edge.optional import require
from deeplab2_edge.panoptic import resize_bilinear

tf = require("tensorflow", extra="train")

# A probability that was rounded to 0 still has a logarithm.
_SMALLEST_PROBABILITY = np.float32(1e-30)


@dataclass(frozen=True, eq=False)
class View:
    """Is one way to look at a canvas.

    Attributes:
        model: The network, built for the size of this view.
        is_flipped: Whether left and right are swapped.
    """

    model: Any
    is_flipped: bool

    def of(self, canvas: NDArray[np.generic]) -> Any:
        """Gives what the network sees of a `[H, W, C]` canvas: `[1, h, w, C]`."""
        seen = tf.cast(canvas[np.newaxis], tf.float32)
        seen = resize_batch(seen, self.model.input_shape[1:3])
        return tf.reverse(seen, [2]) if self.is_flipped else seen


def views_of(
    config: ExperimentOptions, checkpoint: str | Path, model: Any
) -> tuple[View, ...]:
    """Lists the views an experiment asks for: each scale, then the same mirrored.

    Args:
        config: `evaluator_options.eval_scales` (none means 1) and
            `add_flipped_images` count.
        checkpoint: Weights of the networks of other scales.
        model: The network at the size of the canvas, with its weights.

    Raises:
        ConfigError: As `require_averageable`, or if a scale is too small for the
            network.
    """
    require_averageable(config)
    height, width = model.input_shape[1:3]
    options = config.evaluator_options
    views = []
    for scale in options.eval_scales or (1.0,):
        size = scaled_side(height, scale), scaled_side(width, scale)
        scaled = model
        if size != (height, width):
            scaled = build_model(
                config,
                input_size=size,
                batch_size=1,
                pool_size=_pool_size(config, (height, width), scale),
            )
            load_weights(scaled, checkpoint)
        views.append(View(scaled, is_flipped=False))
        if options.add_flipped_images:
            views.append(View(scaled, is_flipped=True))
    return tuple(views)


def require_averageable(config: ExperimentOptions) -> None:
    """Refuses test-time augmentation of masks: those of two views have no common order.

    Raises:
        ConfigError: If the model is a MaX-DeepLab and more than one view is asked for,
            or a scale is not above 0.
    """
    options = config.evaluator_options
    is_of_masks = config.model_options.max_deeplab is not None
    if is_of_masks and options.add_flipped_images:
        raise ConfigError(
            "evaluator_options.add_flipped_images is true; masks of max_deeplab cannot "
            "be averaged, so remove it"
        )
    if is_of_masks and tuple(options.eval_scales) not in ((), (1.0,)):
        raise ConfigError(
            f"evaluator_options.eval_scales is {list(options.eval_scales)}; masks of "
            "max_deeplab cannot be averaged, so remove it"
        )
    if not all(scale > 0 for scale in options.eval_scales):
        raise ConfigError(
            f"evaluator_options.eval_scales is {list(options.eval_scales)}; expected "
            "numbers above 0"
        )


def average(
    views: Sequence[View],
    heads_of_views: Sequence[Mapping[str, NDArray[np.float32]]],
    canvas: tuple[int, int],
) -> dict[str, NDArray[np.float32]]:
    """Averages what the networks of all views say about one canvas.

    Heads are resized to the canvas with aligned corners; offsets grow with them, and
    those of a mirrored view change the sign of dx. Classes are averaged as
    probabilities.

    Args:
        views: One or more.
        heads_of_views: Of each view, `[h, w, C]` by name at its own stride.
        canvas: (H, W).

    Returns:
        `[H, W, C]` by name. The `semantic_logits` are logarithms of the averaged
        probabilities; their softmax gives these.
    """
    averaged: dict[str, NDArray[np.float32]] = {}
    for name in heads_of_views[0]:
        total = np.zeros((), np.float32)
        for view, heads in zip(views, heads_of_views, strict=True):
            total = total + _on_canvas(name, heads[name], view, canvas)
        averaged[name] = total / np.float32(len(views))
    if keys.SEMANTIC_LOGITS in averaged:
        probabilities = averaged[keys.SEMANTIC_LOGITS]
        averaged[keys.SEMANTIC_LOGITS] = np.log(
            np.maximum(probabilities, _SMALLEST_PROBABILITY)
        )
    return averaged


def _on_canvas(
    name: str, head: NDArray[np.float32], view: View, canvas: tuple[int, int]
) -> NDArray[np.float32]:
    found = resize_bilinear(head, canvas)
    if name == keys.SEMANTIC_LOGITS:
        found = np.exp(found - found.max(axis=-1, keepdims=True))
        found /= found.sum(axis=-1, keepdims=True)
    if view.is_flipped:
        found = found[:, ::-1]
    if "offset" in name:
        dy, dx = (
            (large - 1) / (small - 1)
            for large, small in zip(canvas, head.shape[:2], strict=True)
        )
        found = found * np.array([dy, -dx if view.is_flipped else dx], np.float32)
    return found


def _pool_size(
    config: ExperimentOptions, canvas: tuple[int, int], scale: float
) -> tuple[int, int]:
    """Scales the window of the ASPP pooling branch as the input is scaled."""
    stride = config.model_options.backbone.output_stride
    height, width = (
        min(
            scaled_side(window, scale),
            strided_side(scaled_side(side, scale), stride),
        )
        for window, side in zip(aspp_pool_size(config, canvas), canvas, strict=True)
    )
    return height, width
