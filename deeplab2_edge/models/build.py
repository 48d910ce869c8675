"""Builds a network from an experiment configuration."""

import contextlib
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from deeplab2_edge import keys
from deeplab2_edge.backbones import build_backbone
from deeplab2_edge.config import ExperimentOptions
from deeplab2_edge.errors import ConfigError
from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.layers.resize import strided_side
from deeplab2_edge.models import (
    deeplab_v3,
    max_deeplab,
    motion_deeplab,
    panoptic_deeplab,
    vip_deeplab,
)
from deeplab2_edge.optional import require

tf_keras = require("tf_keras", extra="train")

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
# Pixels 0..255 become -1..1 inside every network.
_PIXEL_SCALE = 1 / 127.5

_HEADS: Mapping[str, Callable[..., dict[str, Any]]] = {
    "deeplab_v3": deeplab_v3.build_heads,
    "deeplab_v3_plus": deeplab_v3.build_heads,
    "panoptic_deeplab": panoptic_deeplab.build_heads,
    "motion_deeplab": motion_deeplab.build_heads,
    "max_deeplab": max_deeplab.build_heads,
    "vip_deeplab": vip_deeplab.build_heads,
}
_RGB = 3
_INPUT_CHANNELS = {"motion_deeplab": 2 * _RGB + 1, "vip_deeplab": 2 * _RGB}


def build_model(
    config: ExperimentOptions,
    *,
    input_size: Sequence[int],
    batch_size: int | None = None,
    pool_size: Sequence[int] | None = None,
    synchronize_batch_norm: bool = False,
    hard_swish: str = "fused",
    axial: str = "einsum",
    resize: str = "native",
    pool: str = "native",
    recompute: bool = False,
    precision: str = "float32",
    stretch_positions: bool = False,
) -> Any:
    """Builds a functional Keras model made of plain layers.

    Layer names are checkpoint paths; `checkpoints` relies on that.

    Args:
        config: The experiment.
        input_size: (height, width) of the image in pixels.
        batch_size: Fixed batch, or `None` to leave it open.
        pool_size: Window of the ASPP pooling branch in feature pixels; by default
            that of the training crop, limited to the feature map (see
            `aspp_pool_size`).
        synchronize_batch_norm: See `LayerDefaults`.
        hard_swish: See `LayerDefaults`.
        axial: See `LayerDefaults`; `"builtin"` is for inference.
        resize: See `LayerDefaults`.
        pool: See `LayerDefaults`.
        recompute: See `LayerDefaults`.
        precision: `"float32"`, `"mixed_bfloat16"` or `"mixed_float16"`. Variables,
            softmax, batch statistics and outputs stay float32.
        stretch_positions: Let relative positions of axial attention keep their meaning
            as parts of the training crop. By default they keep it in pixels; for an
            input much larger or smaller than the crop it is worth trying both.

    Returns:
        Model from `image`, float32 `[B, H, W, C]` in 0..255 (see `input_channels`),
        to a dictionary of raw heads as `build_heads` of the architecture describes
        them. Offset maps hold (dy, dx) in their own pixels.

    Raises:
        ConfigError: If the configuration asks for a network that is not known, or
            for one that cannot be built at this size.
    """
    _require_size(input_size)
    solver = config.trainer_options.solver_options
    defaults = LayerDefaults(
        batch_norm_momentum=solver.batchnorm_momentum,
        batch_norm_epsilon=solver.batchnorm_epsilon,
        synchronize_batch_norm=synchronize_batch_norm,
        hard_swish=hard_swish,
        axial=axial,
        resize=resize,
        pool=pool,
        recompute=recompute,
        position_stretch=(
            _position_stretch(config, input_size) if stretch_positions else None
        ),
    )
    with _keras_policy(precision):
        return _build(config, input_size, batch_size, pool_size, defaults)


def _build(
    config: ExperimentOptions,
    input_size: Sequence[int],
    batch_size: int | None,
    pool_size: Sequence[int] | None,
    defaults: LayerDefaults,
) -> Any:
    build_heads = _HEADS[_meta_architecture(config)]
    image = tf_keras.Input(
        (*input_size, input_channels(config)), batch_size=batch_size, name=keys.IMAGE
    )
    normalized = tf_keras.layers.Rescaling(
        _PIXEL_SCALE, offset=-1.0, name=vip_deeplab.NORMALIZE
    )(image)
    if config.model_options.vip_deeplab is not None:
        frames = _encode_two_frames(normalized, config, defaults)
    else:
        # Further channels belong to the one frame, also where they show another.
        frames = [_encode(normalized, config, defaults)]
    outputs = build_heads(
        *frames,
        config,
        pool_size=pool_size or aspp_pool_size(config, input_size),
        defaults=defaults,
    )
    _refuse_single_pixels(outputs, input_size)
    outputs = {name: _as_float32(output, name) for name, output in outputs.items()}
    model = tf_keras.Model(image, outputs, name=config.model_options.backbone.name)
    _keep_unread_layers(model, frames)
    return model


def input_channels(config: ExperimentOptions) -> int:
    """Returns the channels of the network's input.

    The first 3 are RGB of the frame. Motion-DeepLab adds RGB of the previous frame and
    the heat map of the centers found there, in 0..1: 7 in all. ViP-DeepLab adds RGB of
    the next frame: 6.

    Raises:
        ConfigError: If there is no meta-architecture.
    """
    return _INPUT_CHANNELS.get(_meta_architecture(config), _RGB)


def aspp_pool_size(
    config: ExperimentOptions, input_size: Sequence[int]
) -> tuple[int, int]:
    """Returns the window (height, width) of the ASPP pooling branch.

    It is the feature size of the training crop, whatever size is evaluated. An input
    smaller than the crop pools its whole feature map, per axis.

    Raises:
        ConfigError: If the training crop is not two numbers.
    """
    stride = config.model_options.backbone.output_stride
    crop = config.train_dataset_options.crop_size or tuple(input_size)
    if len(crop) != 2:
        raise ConfigError(
            f"train_dataset_options.crop_size is {list(crop)}; expected height and "
            "width"
        )
    height, width = (
        min(strided_side(side, stride), strided_side(limit, stride))
        for side, limit in zip(crop, input_size, strict=True)
    )
    return height, width


def _require_size(input_size: Any) -> None:
    try:
        sides = [operator.index(side) for side in input_size]
    except TypeError:
        sides = []
    if len(sides) != 2 or min(sides) < 1:
        raise ConfigError(
            f"input_size is {input_size!r}; expected (height, width) in pixels"
        )


def _meta_architecture(config: ExperimentOptions) -> str:
    name = config.model_options.meta_architecture
    if name is None or name not in _HEADS:
        raise ConfigError(
            f"model_options: the meta-architecture is {name or 'missing'}; expected "
            f"one of {', '.join(_HEADS)}"
        )
    return name


def _position_stretch(
    config: ExperimentOptions, input_size: Sequence[int]
) -> tuple[float, float]:
    crop = config.train_dataset_options.crop_size
    if len(crop) != 2:
        raise ConfigError(
            "train_dataset_options.crop_size is not set; relative positions are "
            "stretched from the size the weights were trained at"
        )
    height, width = (
        (trained - 1) / (side - 1)
        for trained, side in zip(crop, input_size, strict=True)
    )
    return height, width


@contextlib.contextmanager
def _keras_policy(name: str) -> Iterator[None]:
    """Makes a dtype policy that of all layers made inside."""
    if name not in PRECISIONS:
        raise ConfigError(
            f"precision is {name!r}; expected one of {', '.join(PRECISIONS)}"
        )
    before = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy(name)
    try:
        yield
    finally:
        tf_keras.mixed_precision.set_global_policy(before)


def _as_float32(output: Any, name: str) -> Any:
    if output.dtype == "float32":
        return output
    return tf_keras.layers.Activation(
        "linear", dtype="float32", name=f"{name}/float32"
    )(output)


def _encode(
    image: Any, config: ExperimentOptions, defaults: LayerDefaults
) -> dict[str, Any]:
    model = config.model_options
    # MaX-DeepLab decodes a feature that may be finer.
    key = None if model.max_deeplab is not None else model.decoder.feature_key
    return build_backbone(image, model.backbone, defaults=defaults, feature_key=key)


def _encode_two_frames(
    image: Any, config: ExperimentOptions, defaults: LayerDefaults
) -> list[dict[str, Any]]:
    """Calls one encoder on the current and then, `vip_deeplab` relies on it, the next.

    The encoder is a model inside the model; its layers keep their full names.
    """
    frame = tf_keras.Input((*image.shape[1:3], _RGB), batch_size=image.shape[0])
    features = _encode(frame, config, defaults)
    encoder = vip_deeplab.FrameEncoder(frame, features, name=vip_deeplab.ENCODER)
    return [encoder(image[..., :_RGB]), encoder(image[..., _RGB:], frame=1)]


def _refuse_single_pixels(
    outputs: Mapping[str, Any], input_size: Sequence[int]
) -> None:
    """Refuses offset maps that cannot be brought to another size."""
    for name, output in outputs.items():
        if "offset" in name and 1 in output.shape[1:3]:
            raise ConfigError(
                f"an input of {tuple(input_size)} pixels gives {name} only "
                f"{tuple(output.shape[1:3])} pixels, and offsets along an axis of one "
                "pixel have no unit; expected a larger input"
            )


def _keep_unread_layers(model: Any, frames: Sequence[Mapping[str, Any]]) -> None:
    """Makes the whole encoder part of the model, also what no head reads.

    Published checkpoints hold those variables (Axial-DeepLab on
    `max_deeplab_l_backbone` reads none of its stacked decoders), and so must ours.
    """
    kept = {id(part) for part in model.submodules}
    encoder = tf_keras.Model(model.input, list(frames))
    unread = [layer for layer in encoder.layers if id(layer) not in kept]
    if any(layer.weights for layer in unread):
        model.unread_layers = unread
