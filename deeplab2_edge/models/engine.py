"""Runs a Keras model the way devices run its converted file.

`KerasEngine` is an engine of the runtime, so that a network before and after conversion
shares preprocessing, what follows its heads, evaluation and drawing.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.checkpoints import load_weights
from deeplab2_edge.config import ExperimentOptions
from deeplab2_edge.datasets.registry import DatasetInfo, get_dataset
from deeplab2_edge.errors import ConfigError
from deeplab2_edge.families import HEADS, MASKS, family_of
from deeplab2_edge.model_file import (
    InputSpec,
    ModelMetadata,
    OutputSpec,
    ResizeRule,
    is_picture,
)
from deeplab2_edge.models.build import build_model
from deeplab2_edge.models.inference import InferenceNetwork
from deeplab2_edge.optional import require
from deeplab2_edge.panoptic import MaskSettings, MergeSettings

tf = require("tensorflow", extra="train")

_SMALLEST_NMS_KERNEL = 3


class KerasEngine:
    """Runs a float model; see `runtime.engine.Engine`.

    Args:
        model: A model of `build_model` with `batch_size=1`.
        config: Its experiment.
        provenance: See `ModelMetadata`.

    Attributes:
        network: What runs.
        metadata: What `describe_model` says about it.
        is_integer: Never.

    Raises:
        ConfigError: As `describe_model`.
    """

    is_integer = False

    def __init__(
        self,
        model: Any,
        config: ExperimentOptions,
        *,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self.network = InferenceNetwork(model, config)
        self._function = tf.function(self.network, autograph=False)
        self.metadata = describe_model(config, self.network, provenance=provenance)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs the network; see `runtime.engine.Engine`."""
        self.metadata.check_inputs(inputs)
        outputs = self._function(
            {name: tf.constant(value[np.newaxis]) for name, value in inputs.items()}
        )
        return {name: value.numpy()[0] for name, value in outputs.items()}


def load_engine(
    config: ExperimentOptions,
    checkpoint: str | Path,
    *,
    canvas: Sequence[int] | None = None,
) -> KerasEngine:
    """Builds the float model of a checkpoint behind the interface of an engine.

    Args:
        config: The experiment.
        checkpoint: See `checkpoints.resolve_checkpoint`.
        canvas: (height, width) in pixels; by default the evaluation crop.

    Raises:
        CheckpointError: If the checkpoint does not fit the experiment.
        ConfigError: If there is no canvas, or as `describe_model`.
    """
    family_of(config)  # refuses what has no results before anything is built
    dataset_of(config)
    return KerasEngine(load_network(config, checkpoint, canvas=canvas), config)


def load_network(
    config: ExperimentOptions,
    checkpoint: str | Path,
    *,
    canvas: Sequence[int] | None = None,
) -> Any:
    """Builds the float model of a checkpoint, of any architecture, for one image.

    Args:
        config: The experiment.
        checkpoint: See `checkpoints.resolve_checkpoint`.
        canvas: (height, width) in pixels; by default the evaluation crop.

    Raises:
        CheckpointError: If the checkpoint does not fit the experiment.
        ConfigError: If there is no canvas.
    """
    size = tuple(canvas or config.eval_dataset_options.crop_size)
    if len(size) != 2:
        raise ConfigError(
            "eval_dataset_options.crop_size is not set; it is the canvas of the "
            "evaluation: set it, or give a size (--input-size HxW)"
        )
    model = build_model(config, input_size=size, batch_size=1)
    load_weights(model, checkpoint)
    return model


def dataset_of(config: ExperimentOptions) -> DatasetInfo:
    """Returns the data set whose classes the model of an experiment predicts.

    Raises:
        ConfigError: If the experiment names none, names an unknown one, or its
            semantic head does not have one channel per class.
    """
    name = config.eval_dataset_options.dataset or config.train_dataset_options.dataset
    if not name:
        raise ConfigError(
            "eval_dataset_options.dataset is missing; it gives the classes of the "
            "model, for example cityscapes_panoptic or the path of a dataset.json"
        )
    info = get_dataset(name)
    field, num_classes = _class_count(config)
    if num_classes != info.num_classes:
        raise ConfigError(
            f"{field} is {num_classes}; data set {info.name!r} has "
            f"{info.num_classes} classes"
        )
    return info


def _class_count(config: ExperimentOptions) -> tuple[str, int]:
    """Returns where a configuration sets the classes of its model, and the number."""
    options = config.model_options
    path = f"model_options.{options.meta_architecture}"
    semantic = options.deeplab_v3 or options.deeplab_v3_plus
    if semantic is not None:
        return f"{path}.num_classes", semantic.num_classes
    if options.max_deeplab is not None:
        name, head = (
            "auxiliary_semantic_head",
            options.max_deeplab.auxiliary_semantic_head,
        )
    else:
        panoptic = (
            options.panoptic_deeplab or options.motion_deeplab or options.vip_deeplab
        )
        if panoptic is None:
            raise ConfigError("model_options: the meta-architecture is missing")
        name, head = "semantic_head", panoptic.semantic_head
    if head is None:
        raise ConfigError(f"{path}.{name} is missing; it gives the number of classes")
    return f"{path}.{name}.output_channels", head.output_channels


def describe_model(
    config: ExperimentOptions,
    network: InferenceNetwork,
    *,
    name: str | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> ModelMetadata:
    """Collects what is needed to use a model, from its configuration.

    `nms_kernel` and area limits count pixels of the evaluation crop. If the canvas of
    the model has another size, the kernel grows with its side (and stays odd, at least
    3), areas with its area, and the resize rule with each axis.

    Args:
        config: The experiment.
        network: The network, built for the canvas.
        name: Short name; by default the experiment's, or the backbone's.
        provenance: See `ModelMetadata`.

    Returns:
        Metadata; the tensors go by the names in `keys`.

    Raises:
        ConfigError: As `dataset_of`, or if there are no classes of things for masks.
    """
    info = dataset_of(config)
    _, height, width, _ = network.inputs[keys.IMAGE].shape
    canvas = (int(height), int(width))
    backbone = config.model_options.backbone
    has_centers = keys.CENTER_HEATMAP in HEADS[network.family]
    return ModelMetadata(
        name=name or config.experiment_name or backbone.name,
        family=network.family,
        meta_architecture=str(config.model_options.meta_architecture),
        backbone=backbone.name,
        output_stride=backbone.output_stride,
        canvas=canvas,
        inputs={
            name: InputSpec(
                name,
                tuple(int(side) for side in spec.shape[1:]),
                dtype=spec.dtype.name,
                range=(0.0, 255.0) if is_picture(name) else (0.0, 1.0),
            )
            for name, spec in network.inputs.items()
        },
        outputs={
            head: OutputSpec(head, shape) for head, shape in network.outputs.items()
        },
        class_names=info.class_names,
        colors=info.colors,
        thing_ids=tuple(info.thing_ids),
        label_divisor=info.label_divisor,
        ignore_label=info.ignore_label,
        merge=merge_settings(config, info, canvas) if has_centers else None,
        masks=mask_settings(config, info, canvas) if network.family == MASKS else None,
        resize=resize_rule(config, canvas),
        provenance=dict(provenance or {}),
    )


def mask_settings(
    config: ExperimentOptions, info: DatasetInfo, canvas: tuple[int, int]
) -> MaskSettings:
    """Takes the settings of an experiment, scaled from its crop to a canvas."""
    settings = MaskSettings.from_options(config.evaluator_options, info)
    growth = canvas_growth(config, canvas)
    return dataclasses.replace(
        settings,
        stuff_area_limit=round(settings.stuff_area_limit * growth),
        thing_area_limit=round(settings.thing_area_limit * growth),
    )


def canvas_growth(config: ExperimentOptions, canvas: tuple[int, int]) -> float:
    """Returns the area of a canvas over that of the evaluation crop."""
    crop = _pair(config.eval_dataset_options.crop_size) or canvas
    return canvas[0] * canvas[1] / (crop[0] * crop[1])


def merge_settings(
    config: ExperimentOptions, info: DatasetInfo, canvas: tuple[int, int]
) -> MergeSettings:
    """Takes the settings of an experiment, scaled from its crop to a canvas."""
    options = config.evaluator_options
    nms_kernel, area_limit = options.nms_kernel, options.stuff_area_limit
    if canvas != (_pair(config.eval_dataset_options.crop_size) or canvas):
        growth = canvas_growth(config, canvas)
        half = round((nms_kernel * math.sqrt(growth) - 1) / 2)
        nms_kernel = max(2 * half + 1, _SMALLEST_NMS_KERNEL)
        area_limit = round(area_limit * growth)
    return MergeSettings(
        thing_ids=info.thing_ids,
        label_divisor=info.label_divisor,
        ignore_label=info.ignore_label,
        center_score_threshold=options.center_score_threshold,
        nms_kernel=nms_kernel,
        keep_k_centers=options.keep_k_centers,
        stuff_area_limit=area_limit,
    )


def resize_rule(config: ExperimentOptions, canvas: tuple[int, int]) -> ResizeRule:
    """Takes the resizing of an experiment, scaled from its crop to a canvas."""
    options = config.eval_dataset_options
    crop = _pair(options.crop_size) or canvas

    def on_canvas(values: tuple[int, ...]) -> tuple[int, int] | None:
        pair = _pair(values)
        if pair is None or canvas == crop:
            return pair
        height, width = (
            max(1, min(round(value * side / limit), side))
            for value, side, limit in zip(pair, canvas, crop, strict=True)
        )
        return height, width

    return ResizeRule(
        min=on_canvas(options.min_resize_value),
        max=on_canvas(options.max_resize_value),
        factor=max(options.resize_factor, 0),
    )


def _pair(values: tuple[int, ...]) -> tuple[int, int] | None:
    """Reads a size of the configuration: none, one value for both sides, or two."""
    if not values or any(value <= 0 for value in values):
        return None
    return values[0], values[-1]
