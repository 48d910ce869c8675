"""Test-time augmentation: several looks at one canvas, averaged.

A view is the canvas at another scale, perhaps mirrored. What a network says about a
view is brought back to the canvas; the heads of all views are averaged, and what
follows the network runs once, on the averages.
"""

import dataclasses
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
from deeplab2_edge.model_file import OutputSpec
from deeplab2_edge.models.build import aspp_pool_size, build_model
from deeplab2_edge.models.engine import KerasEngine, load_engine
from deeplab2_edge.models.inference import InferenceNetwork
from deeplab2_edge.optional import require
from deeplab2_edge.panoptic import resize_bilinear
from deeplab2_edge.runtime.engine import Engine

tf = require("tensorflow", extra="train")

# A probability that was rounded to 0 still has a logarithm.
_SMALLEST_PROBABILITY = np.float32(1e-30)


@dataclass(frozen=True, eq=False)
class View:
    """Is one way to look at a canvas.

    Attributes:
        network: Built for the size of this view.
        size: That size, (height, width).
        is_flipped: Whether left and right are swapped.
    """

    network: Any
    size: tuple[int, int]
    is_flipped: bool

    def of(self, picture: NDArray[np.generic]) -> Any:
        """Gives what the network sees of `[H, W, C]`: `[1, h, w, C]`."""
        seen = resize_batch(tf.cast(picture[np.newaxis], tf.float32), self.size)
        return tf.reverse(seen, [2]) if self.is_flipped else seen


class AveragingEngine:
    """Runs every view of a canvas and gives the averages of `average`.

    Features for the next frame are those of each view; they mean nothing to others.

    Args:
        engine: The network at the size of the canvas.
        views: One or more.
    """

    is_integer = False

    def __init__(self, engine: KerasEngine, views: Sequence[View]) -> None:
        self.views = tuple(views)
        canvas = engine.metadata.canvas
        self.metadata = dataclasses.replace(
            engine.metadata,
            outputs={
                name: OutputSpec(name, (*canvas, spec.shape[-1]))
                for name, spec in engine.metadata.outputs.items()
            },
        )
        networks = {id(view.network): view.network for view in views}
        self._functions = {
            key: tf.function(network, autograph=False)
            for key, network in networks.items()
        }

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Runs the networks; see `runtime.engine.Engine`."""
        heads: list[dict[str, NDArray[np.float32]]] = []
        features: dict[str, list[Any]] = {}
        for index, view in enumerate(self.views):
            seen = {
                name: _features(value, index, view.network.inputs[name].shape)
                if name.startswith(keys.PREVIOUS_FEATURES)
                else view.of(value)
                for name, value in inputs.items()
            }
            outputs = self._functions[id(view.network)](seen)
            heads.append({})
            for name, value in outputs.items():
                if name.startswith(keys.FEATURES):
                    features.setdefault(name, []).append(value)
                else:
                    heads[-1][name] = value.numpy()[0]
        return {**average(self.views, heads, self.metadata.canvas), **features}


def load_evaluation_engine(
    config: ExperimentOptions,
    checkpoint: str | Path,
    *,
    canvas: Sequence[int] | None = None,
) -> Engine:
    """Loads a checkpoint as an experiment evaluates it.

    Args:
        config: `evaluator_options.eval_scales` (none means 1) and
            `add_flipped_images` count.
        checkpoint: See `models.engine.load_engine`.
        canvas: See `models.engine.load_engine`.

    Raises:
        CheckpointError: If the checkpoint does not fit the experiment.
        ConfigError: As `load_engine` and `require_averageable`, or if a scale is too
            small for the network.
    """
    require_averageable(config)
    engine = load_engine(config, checkpoint, canvas=canvas)
    options = config.evaluator_options
    scales = tuple(options.eval_scales) or (1.0,)
    if scales == (1.0,) and not options.add_flipped_images:
        return engine
    height, width = engine.metadata.canvas
    views = []
    for scale in scales:
        size = scaled_side(height, scale), scaled_side(width, scale)
        network = engine.network
        if size != (height, width):
            model = build_model(
                config,
                input_size=size,
                batch_size=1,
                pool_size=_pool_size(config, (height, width), scale),
            )
            load_weights(model, checkpoint)
            network = InferenceNetwork(model, config)
        views.append(View(network, size, is_flipped=False))
        if options.add_flipped_images:
            views.append(View(network, size, is_flipped=True))
    return AveragingEngine(engine, views)


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


def _features(given: Any, view: int, shape: Any) -> Any:
    """Gives the features of a view: its own, or none at the beginning of a video."""
    return given[view] if isinstance(given, list) else tf.zeros(shape)


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
