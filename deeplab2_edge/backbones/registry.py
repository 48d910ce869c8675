"""Backbones by name: the published ones, and those a user adds."""

from collections.abc import Mapping
from typing import Any, Protocol

from deeplab2_edge.backbones import max_deeplab, mobilenet_v3, resnet
from deeplab2_edge.config import BackboneOptions
from deeplab2_edge.config.backbones import add_backbone_name, require_backbone
from deeplab2_edge.errors import ConfigError
from deeplab2_edge.layers.defaults import LayerDefaults


class Builder(Protocol):
    """Builds an encoder."""

    def __call__(
        self, image: Any, options: BackboneOptions, *, defaults: LayerDefaults
    ) -> Mapping[str, Any]:
        """Returns the endpoints of an image `[B, H, W, C]` in -1..1.

        Layers are named by checkpoint path, all below `encoder/`. One endpoint has the
        output stride of `options`. What else of `options` is used is up to the builder.
        """


_own: dict[str, Builder] = {}


def register_backbone(name: str, build: Builder) -> None:
    """Makes a backbone of one's own usable in configurations.

    Registering a name again replaces its builder.

    Args:
        name: For `model_options.backbone.name`, in lower case.
        build: Called when a model is built.

    Raises:
        ConfigError: If the name is a published one or not in lower case.
    """
    add_backbone_name(name)
    _own[name] = build


def build_backbone(
    image: Any, options: BackboneOptions, *, defaults: LayerDefaults
) -> dict[str, Any]:
    """Builds the encoder a configuration names.

    Args:
        image: `[B, H, W, C]`, normalized.
        options: Name, output stride and variant.
        defaults: What all layers share.

    Returns:
        Endpoints by name.

    Raises:
        ConfigError: If the name is not known, or an option does not fit it.
    """
    name = require_backbone(options.name)
    if name in _own:
        endpoints = dict(_own[name](image, options, defaults=defaults))
        _refuse_other_strides(name, endpoints, image, options)
        return endpoints
    if name in mobilenet_v3.VARIANTS:
        return _build_mobilenet(image, name, options, defaults)
    if options.output_stride not in (4, 8, 16, 32):
        raise ConfigError(
            f"model_options.backbone.output_stride is {options.output_stride}; "
            "must be 4, 8, 16 or 32"
        )
    if name in max_deeplab.PRESETS:
        return max_deeplab.build_max_deeplab(
            image, max_deeplab.PRESETS[name], options, defaults=defaults
        )
    return resnet.build_resnet(image, resnet.PRESETS[name], options, defaults=defaults)


def _refuse_other_strides(
    name: str, endpoints: Mapping[str, Any], image: Any, options: BackboneOptions
) -> None:
    """Refuses a backbone of one's own without a feature at the output stride.

    Decoders would pool and dilate for another size than the feature has.
    """
    stride = options.output_stride
    wanted = tuple((side - 1) // stride + 1 for side in image.shape[1:3])
    maps = {
        key: tuple(x.shape[1:3]) for key, x in endpoints.items() if len(x.shape) == 4
    }
    if wanted not in maps.values():
        found = ", ".join(f"{key} {size}" for key, size in maps.items())
        raise ConfigError(
            f"model_options.backbone.output_stride is {stride}, but no feature of "
            f"{name!r} is {wanted} for an image of {tuple(image.shape[1:3])} pixels; "
            f"it gives {found or 'none'}"
        )


def _build_mobilenet(
    image: Any, name: str, options: BackboneOptions, defaults: LayerDefaults
) -> dict[str, Any]:
    if not options.use_squeeze_and_excite:
        raise ConfigError(
            "model_options.backbone.use_squeeze_and_excite is false; "
            "MobileNetV3 is defined with it: set it to true"
        )
    if options.output_stride not in (4, 8, 16, 32):
        raise ConfigError(
            f"model_options.backbone.output_stride is {options.output_stride}; "
            "must be 4, 8, 16 or 32"
        )
    return mobilenet_v3.build_mobilenet_v3(
        image,
        name,
        output_stride=options.output_stride,
        width_multiplier=options.backbone_width_multiplier,
        defaults=defaults,
    )
