"""Backbones by name: the published ones, and those a user adds."""

import functools
import inspect
import traceback
from collections.abc import Mapping
from typing import Any, Protocol

from deeplab2_edge.backbones import max_deeplab, mobilenet_v3, resnet
from deeplab2_edge.config import BackboneOptions
from deeplab2_edge.config.backbones import (
    add_backbone_name,
    backbone_info,
    require_backbone,
)
from deeplab2_edge.errors import ConfigError, DeepLabEdgeError
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
        ConfigError: If the name is a published one or not in lower case, or `build`
            cannot be called like that.
    """
    _require_builder(name, build)
    add_backbone_name(name)
    _own[name] = build


def build_backbone(
    image: Any,
    options: BackboneOptions,
    *,
    defaults: LayerDefaults,
    feature_key: str | None = None,
) -> dict[str, Any]:
    """Builds the encoder a configuration names.

    Args:
        image: `[B, H, W, C]`, normalized.
        options: Name, output stride and variant.
        defaults: What all layers share.
        feature_key: Endpoint that a decoder reads at the output stride, which is
            checked for a backbone of one's own; None: any may have it.

    Returns:
        Endpoints by name.

    Raises:
        ConfigError: If the name is not known, or an option does not fit it, or the
            builder of a backbone of one's own fails.
    """
    name = require_backbone(options.name)
    if name in _own:
        endpoints = _build_own(name, image, options, defaults)
        _refuse_other_strides(name, endpoints, image, options, feature_key)
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


def _build_own(
    name: str, image: Any, options: BackboneOptions, defaults: LayerDefaults
) -> dict[str, Any]:
    build = _own[name]
    try:
        endpoints = build(image, options, defaults=defaults)
    except DeepLabEdgeError:
        raise
    except Exception as error:
        # Keras writes several lines.
        text = " ".join(str(error).split())
        raise ConfigError(
            f"backbone {name!r}, {_place(build, error)}: {type(error).__name__}: {text}"
        ) from error
    where = f"backbone {name!r}, {_place(build)}"
    if not isinstance(endpoints, Mapping):
        hint = ""
        if endpoints is None:
            hint = "; is `return` missing?"
        elif isinstance(endpoints, tuple):
            hint = "; build_network returns them and the memory"
        raise ConfigError(
            f"{where}: the builder returned {_kind(endpoints)}; expected a dictionary "
            f"of endpoints{hint}"
        )
    for key, feature in endpoints.items():
        if not isinstance(key, str) or not hasattr(feature, "shape"):
            raise ConfigError(
                f"{where}: the builder returned {_kind(feature)} as endpoint {key!r}; "
                "expected a feature by name"
            )
    return dict(endpoints)


def _require_builder(name: str, build: Any) -> None:
    """Refuses what cannot be called as a `Builder`."""
    if not callable(build):
        raise ConfigError(
            f"backbone {name!r}: the builder is {_kind(build)}; expected a function"
        )
    try:
        signature = inspect.signature(build)
    except ValueError:  # some that are written in C tell nothing
        return
    try:
        signature.bind("image", "options", defaults="defaults")
    except TypeError as error:
        raise ConfigError(
            f"backbone {name!r}, {_place(build)}: the builder takes {signature}: "
            f"{error}; expected (image, options, *, defaults)"
        ) from error


def _kind(value: Any) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"


def _place(build: Any, error: Exception | None = None) -> str:
    """Returns the file and line of a builder, or of where in its file it failed."""
    while isinstance(build, functools.partial):
        build = build.func
    build = inspect.unwrap(build)
    if not hasattr(build, "__code__"):
        build = getattr(build, "__call__", build)  # noqa: B004
    code = getattr(build, "__code__", None)
    if code is None:
        return f"builder {build!r}"
    line = code.co_firstlineno
    if error is not None:
        for frame in traceback.extract_tb(error.__traceback__):
            if frame.filename == code.co_filename:
                line = frame.lineno or line
    return f"{code.co_filename}:{line}"


def _refuse_other_strides(
    name: str,
    endpoints: Mapping[str, Any],
    image: Any,
    options: BackboneOptions,
    feature_key: str | None,
) -> None:
    """Refuses a backbone of one's own without the feature at the output stride.

    Decoders would pool and dilate for another size than the feature has.
    """
    wanted = options.output_stride
    size = image.shape[1:3]
    maps = {key: x.shape[1:3] for key, x in endpoints.items() if len(x.shape) == 4}
    fitting = [key for key in maps if _has_stride(maps[key], size, wanted)]
    if feature_key not in maps:  # also unknown ones: the decoder tells what there is
        feature_key = None
    if feature_key in fitting or (feature_key is None and fitting):
        return
    strides = {key: _stride_of(feature, size) for key, feature in maps.items()}
    shown = ", ".join(f"{key} {stride}" for key, stride in strides.items())
    field = "model_options.backbone.output_stride"
    if feature_key is None:
        raise ConfigError(
            f"{field} is {wanted}, but no feature of {name!r} has this stride (it "
            f"gives {shown or 'none'}); set it to the stride of the one that "
            "feature_key names, or change the strides of the blocks"
        )
    others = f"decoder.feature_key to {' or '.join(fitting)}, or " if fitting else ""
    raise ConfigError(
        f"{field} is {wanted}, but {feature_key!r} of {name!r}, which "
        f"model_options.decoder.feature_key names, has stride {strides[feature_key]} "
        f"(strides: {shown}); set output_stride to {strides[feature_key]}, or {others}"
        "change the strides of the blocks"
    )


def _has_stride(feature: Any, image: Any, stride: int) -> bool:
    return tuple(feature) == tuple((side - 1) // stride + 1 for side in image)


def _stride_of(feature: Any, image: Any) -> str:
    for stride in (2**power for power in range(9)):
        if _has_stride(feature, image, stride):
            return str(stride)
    return f"of {'x'.join(map(str, feature))} pixels"


def _build_mobilenet(
    image: Any, name: str, options: BackboneOptions, defaults: LayerDefaults
) -> dict[str, Any]:
    info = backbone_info(name)
    assert info is not None
    if options.use_squeeze_and_excite != info.use_squeeze_and_excite:
        found, needed = "true", "without it: set it to false"
        if info.use_squeeze_and_excite:
            found, needed = "false", "with it: set it to true"
        raise ConfigError(
            f"model_options.backbone.use_squeeze_and_excite is {found}; "
            f"{name} is defined {needed}"
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
