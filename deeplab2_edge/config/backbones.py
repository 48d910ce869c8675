"""What a configuration may say about backbones, known without building one.

The published names are fixed. A backbone of one's own is made known with
`deeplab2_edge.backbones.register_backbone`, which adds its name here.
"""

import dataclasses
import difflib

from deeplab2_edge.errors import ConfigError

_LEVELS = tuple(f"res{level}" for level in range(1, 6))
_RESNET_ENDPOINTS = (*_LEVELS, *(f"stage{level}" for level in range(1, 6)))
_MAX_ENDPOINTS = (
    *_RESNET_ENDPOINTS,
    "backbone_output",
    "feature_panoptic",
    "feature_semantic",
)


@dataclasses.dataclass(frozen=True)
class BackboneInfo:
    """Says what is known of a published backbone.

    Attributes:
        family: `mobilenet_v3`, `resnet` (all residual encoders, also the axial ones) or
            `max` (the two encoders of MaX-DeepLab with their mask transformer).
        endpoints: Feature maps a decoder may read, by name.
        output_strides: Strides it is defined for.
        use_squeeze_and_excite: What the option of this name must be; None: either.
    """

    family: str
    endpoints: tuple[str, ...]
    output_strides: tuple[int, ...] = (4, 8, 16, 32)
    use_squeeze_and_excite: bool | None = None


_MOBILENET_V3 = BackboneInfo("mobilenet_v3", _LEVELS, use_squeeze_and_excite=True)
_MINIMALISTIC = dataclasses.replace(_MOBILENET_V3, use_squeeze_and_excite=False)
_RESNET = BackboneInfo("resnet", _RESNET_ENDPOINTS)
_MAX_BACKBONE = BackboneInfo("resnet", (*_RESNET_ENDPOINTS, "backbone_output"))
_MAX = BackboneInfo("max", _MAX_ENDPOINTS, (16, 32))

_PUBLISHED = {
    "mobilenet_v3_small": _MOBILENET_V3,
    "mobilenet_v3_large": _MOBILENET_V3,
    "mobilenet_v3_small_minimalistic": _MINIMALISTIC,
    "mobilenet_v3_large_minimalistic": _MINIMALISTIC,
    "resnet50": _RESNET,
    "resnet50_beta": _RESNET,
    "wide_resnet41": _RESNET,
    "swidernet": _RESNET,
    "axial_swidernet": _RESNET,
    "axial_resnet_s": _RESNET,
    "axial_resnet_l": _RESNET,
    "axial_deeplab_s": _RESNET,
    "axial_deeplab_l": _RESNET,
    "max_deeplab_s": _MAX,
    "max_deeplab_l": _MAX,
    "max_deeplab_s_backbone": _MAX_BACKBONE,
    "max_deeplab_l_backbone": _MAX_BACKBONE,
}
BACKBONES = tuple(_PUBLISHED)

# Later encoders: part of a name -> what it belongs to. Their files are read, not built.
_OUT_OF_SCOPE = {"kmax": "kMaX-DeepLab", "convnext": "ConvNeXt", "moat": "MOAT"}

_own_names: list[str] = []


def backbone_names() -> tuple[str, ...]:
    """Returns all names that may be used: the published ones, then one's own."""
    return (*BACKBONES, *_own_names)


def add_backbone_name(name: str) -> None:
    """Makes the name of a backbone of one's own known; again is fine.

    Raises:
        ConfigError: If the name is empty, not in lower case, or a published one.
    """
    if not name or name != name.lower().strip():
        raise ConfigError(
            f"backbone name {name!r}: expected text in lower case (names in files are "
            "compared in lower case)"
        )
    if name in BACKBONES:
        raise ConfigError(
            f"backbone name {name!r} is a published one; expected another name"
        )
    if name not in _own_names:
        _own_names.append(name)


def backbone_info(name: str) -> BackboneInfo | None:
    """Returns what is known of a backbone; None if it is not a published one."""
    return _PUBLISHED.get(name.lower())


def unknown_backbone(name: str) -> str:
    """Says why a name cannot be used, or returns "" if it can.

    Returns:
        What would be right, to stand after `name is '...'; `.
    """
    known, wanted = backbone_names(), name.lower()
    if wanted in known:
        return ""
    expected = f"expected one of {', '.join(known)}"
    if later := out_of_scope(wanted):
        return f"not supported: {later}; {expected}"
    near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.6)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"{expected}; a backbone of your own? add --import FILE{hint}"


def out_of_scope(name: str) -> str:
    """Says that a name belongs to a later system, or returns ""."""
    for part, system in _OUT_OF_SCOPE.items():
        if part in name.lower():
            return (
                f"{system} is outside this version's scope, which ends with MaX-DeepLab"
            )
    return ""


def require_backbone(name: str) -> str:
    """Returns the name in lower case, having made sure that it is known.

    Raises:
        ConfigError: If it is not.
    """
    if fault := unknown_backbone(name):
        raise ConfigError(f"model_options.backbone.name is {name!r}; {fault}")
    return name.lower()
