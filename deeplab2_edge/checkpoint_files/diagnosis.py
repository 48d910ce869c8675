"""What a checkpoint is, and why it does not fit a model, in words.

Everything is read off the paths and shapes of variables, so a checkpoint and a model
are described by the same functions and compared by their descriptions.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from deeplab2_edge.config.backbones import backbone_info

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

# Root items that only this family has, the most telling family first.
_FAMILIES = (
    ("max_deeplab", "MaX-DeepLab", r"transformer_(class|mask)_head|pixel_space_"),
    ("vip_deeplab", "ViP-DeepLab", r"next_instance_|depth_head_"),
    ("motion_deeplab", "Motion-DeepLab", r"motion_regression_head_"),
    ("deeplab_v3_plus", "DeepLabv3+", r"deeplab_v3plus_"),
    ("deeplab_v3", "DeepLabv3", r"deeplab_v3_aspp|classifier_conv_bn_act"),
    ("panoptic_deeplab", "Panoptic-DeepLab", r"(semantic|instance)_decoder"),
)
_ENCODER = "encoder/"
# The two spellings of the layer that gives one number per class.
SEMANTIC_LAST_LAYERS = ("semantic_last_layer", "semantic_last_layer/_conv")
_CLASS_HEAD_KERNEL = "transformer_class_head/_conv/kernel"
_BLOCK = re.compile(r"encoder/_stage(\d+)/_block(\d+)/")
_SHOWN = 2
_STAGE5_CHANNELS = 2048  # of all published backbones with stages
_BLOCKS, _WIDE_BLOCKS = (3, 4, 6, 3), (3, 6, 3, 3)
_BACKBONE_STACK = re.compile(r"encoder/_decoder_stage\d+/")
# Which blocks attend: none, all, or those that see a stride of 16.
_ATTENTION = ("none", "all", "late")
_WIDE_NAME = "wide_resnet41 or swidernet"
# By stem, attention, memory, and stacks of decoders within the backbone.
_RESIDUAL = {
    ("plain", "none", False, False): "resnet50",
    ("beta", "none", False, False): "resnet50_beta",
    ("wide", "none", False, False): _WIDE_NAME,
    ("plain", "all", False, False): "axial_resnet",
    ("beta", "all", False, False): "axial_deeplab",
    ("wide", "late", False, False): "axial_swidernet",
    ("beta", "late", False, False): "max_deeplab_s_backbone",
    ("beta", "late", True, False): "max_deeplab_s",
    ("wide", "late", False, True): "max_deeplab_l_backbone",
    ("wide", "late", True, True): "max_deeplab_l",
}
# Rows -> size, and channels of the last one.
_MOBILENETS = {13: ("small", 576), 17: ("large", 960)}
_CHANNEL_STEP = 8  # to whose multiples MobileNetV3 rounds
# Kernels that see the image, by kind of backbone.
_FIRST_KERNELS = (
    "encoder/_stem/_conv/kernel",
    "encoder/_stem/_conv1_bn_act/_conv/kernel",
    "encoder/_blocks/0/_conv/kernel",
)
_RESTORE_FLAG = (
    "model_options.restore_semantic_last_layer_from_initial_checkpoint=false"
)


@dataclass(frozen=True)
class Identity:
    """Says what network a set of variables belongs to.

    Attributes:
        family: Meta-architecture as configurations name it, None if there is nothing
            but an encoder, or nothing known.
        family_title: The same for readers.
        encoder: The backbone in words, None if there is none.
        num_classes: Of the semantic last layer or the mask classifier.
        input_channels: Of the first convolution.
        telling_items: Root items that gave the family away.
    """

    family: str | None
    family_title: str | None
    encoder: str | None
    num_classes: int | None
    input_channels: int | None
    telling_items: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [self.family_title or "no known head", self.encoder or "no encoder"]
        if self.num_classes is not None:
            parts.append(f"{self.num_classes} classes")
        if self.input_channels not in (None, 3):
            parts.append(f"{self.input_channels} input channels")
        return ", ".join(parts)


def identify(shapes: Shapes, backbone: str | None = None) -> Identity:
    """Tells from paths and shapes what network variables belong to.

    Args:
        shapes: Of the variables, by path.
        backbone: Name of the backbone by a configuration, if one is known: variables
            do not tell the name of one's own.
    """
    items = sorted(_items(shapes))
    family = title = None
    telling: list[str] = []
    for name, words, pattern in _FAMILIES:
        telling = [item for item in items if re.match(pattern, item)]
        if telling:
            family, title = name, words
            break
    first = first_kernel(shapes)
    encoder = describe_encoder(shapes)
    if encoder and backbone and backbone_info(backbone) is None:
        encoder = backbone
    return Identity(
        family=family,
        family_title=title,
        encoder=encoder,
        num_classes=_num_classes(shapes),
        input_channels=shapes[first][2] if first else None,
        telling_items=tuple(telling),
    )


def first_kernel(shapes: Shapes) -> str | None:
    """Returns the path of the kernel that sees the image."""
    return next((p for p in _FIRST_KERNELS if len(shapes.get(p, ())) == 4), None)


def semantic_last_layer(shapes: Shapes) -> str | None:
    """Returns the path of the layer that gives one number per class."""
    return next((p for p in SEMANTIC_LAST_LAYERS if f"{p}/kernel" in shapes), None)


def describe_encoder(shapes: Shapes) -> str | None:
    """Returns the backbone in words, None if there is none.

    A published one is named only if its blocks and widths are all there.
    """
    paths = [path for path in shapes if path.startswith(_ENCODER)]
    if not paths:
        return None
    rows = {path.split("/")[2] for path in paths if path.startswith("encoder/_blocks/")}
    if rows:
        found = _describe_mobilenet(shapes, len(rows))
        return found or f"an unknown encoder ({len(rows)} rows)"
    kinds = _block_kinds(paths)
    if not kinds:
        return f"an unknown encoder ({min(paths)}, ...)"
    counts = ", ".join(str(len(kinds[stage])) for stage in sorted(kinds))
    return _describe_resnet(shapes, paths) or f"an unknown encoder ({counts} blocks)"


def explain(
    wanted: Shapes, stored: Shapes, *, is_foreign: bool = False
) -> tuple[str, ...]:
    """Says in a few sentences why variables of a checkpoint do not fit a model.

    Args:
        wanted: Shapes of the model's variables, by path.
        stored: The same of the checkpoint.
        is_foreign: See `CheckpointContents`.

    Returns:
        What is different and what the user would do, empty if nothing telling is.
    """
    model, checkpoint = identify(wanted), identify(stored)
    if not stored:
        return (
            "it holds no variable under a key of a TensorFlow 2 object checkpoint; was "
            "it written by TensorFlow 1?",
        )
    if model.encoder and checkpoint.encoder and model.encoder != checkpoint.encoder:
        return (
            f"its encoder is {checkpoint.encoder}, the configuration asks for "
            f"{model.encoder}: give the configuration of the checkpoint, or set "
            "model_options.backbone",
        )
    has_heads = checkpoint.family is not None or checkpoint.num_classes is not None
    if checkpoint.encoder and not has_heads and _items(wanted) != {"encoder"}:
        origin = "from another trainer" if is_foreign else "from ImageNet?"
        return (
            f"it holds an encoder alone ({origin}); give it as "
            "model_options.initial_checkpoint of a training",
        )
    notes = []
    missing = sorted(_items(wanted) - _items(stored))
    if missing:
        notes.append(_explain_items(model, checkpoint, missing))
        if "encoder" not in missing:
            notes.append(
                "only heads are missing: `import-checkpoint --partial` writes the "
                "rest, to start a training from"
            )
    if _differ(model.input_channels, checkpoint.input_channels):
        notes.append(_explain_input(model, checkpoint))
    if _differ(model.num_classes, checkpoint.num_classes):
        notes.append(_explain_classes(model, checkpoint))
    return tuple(notes)


def _items(shapes: Shapes) -> set[str]:
    """Returns the root items that paths begin with."""
    return {path.split("/")[0] for path in shapes}


def _explain_items(model: Identity, checkpoint: Identity, missing: list[str]) -> str:
    if checkpoint.family is not None and model.family != checkpoint.family:
        return (
            f"it holds {checkpoint.family} items ({_shown(checkpoint.telling_items)}), "
            f"the configuration asks for {model.family}: give the configuration of the "
            "checkpoint, or train from it as model_options.initial_checkpoint"
        )
    text = f"it lacks {_shown(missing)}"
    if "instance_decoder" in missing:
        return (
            f"{text}: a semantic model, set "
            f"model_options.{model.family}.instance.enable=false"
        )
    return text


def _shown(items: Sequence[str]) -> str:
    return ", ".join(items[:_SHOWN]) + (", ..." if len(items) > _SHOWN else "")


def _explain_input(model: Identity, checkpoint: Identity) -> str:
    found, expected = checkpoint.input_channels, model.input_channels
    text = (
        f"its first convolution takes {found} channels, the configuration's {expected}"
    )
    if found == 3:
        return f"{text}: `import-checkpoint --widen-first-layer` adds channels of zeros"
    return text


def _explain_classes(model: Identity, checkpoint: Identity) -> str:
    found, expected = checkpoint.num_classes, model.num_classes
    text = f"it has {found} classes, the configuration {expected}"
    if model.family == "max_deeplab":
        return (
            f"{text}: set model_options.max_deeplab.auxiliary_semantic_head."
            f"output_channels={found}; MaX-DeepLab always takes its mask classifier"
        )
    field = {
        "deeplab_v3": "deeplab_v3.num_classes",
        "deeplab_v3_plus": "deeplab_v3_plus.num_classes",
    }.get(model.family or "", f"{model.family}.semantic_head.output_channels")
    can_choose = found is not None and expected is not None and expected < found
    keep = f"`import-checkpoint --keep-classes N,...` keeps {expected}, or "
    return (
        f"{text}: set model_options.{field}={found} to use it as it is; to train other "
        f"classes from it, {keep if can_choose else ''}set {_RESTORE_FLAG}"
    )


def _differ(left: int | None, right: int | None) -> bool:
    return left is not None and right is not None and left != right


def _num_classes(shapes: Shapes) -> int | None:
    last = semantic_last_layer(shapes)
    kernel = shapes.get(f"{last}/kernel") or shapes.get(_CLASS_HEAD_KERNEL)
    return kernel[-1] if kernel else None


def _describe_mobilenet(shapes: Shapes, num_rows: int) -> str | None:
    """Returns the published network with these rows, None if there is none.

    Rows and the widths of the first and the last must be those of the paper, times one
    multiplier.
    """
    size, last_channels = _MOBILENETS.get(num_rows, ("", 0))
    first = shapes.get("encoder/_blocks/0/_conv/kernel", ())
    last = shapes.get(f"encoder/_blocks/{num_rows - 1}/_conv/kernel", ())
    if not size or len(first) != 4 or len(last) != 4:
        return None
    width = last[3] / last_channels
    wanted = ((first[3], 16 * width), (last[2], last_channels / 6 * width))
    if any(abs(found - exact) > _CHANNEL_STEP for found, exact in wanted):
        return None
    kernels = [
        shape
        for path, shape in shapes.items()
        if path.startswith("encoder/_blocks/") and path.endswith("/depthwise_kernel")
    ]
    is_minimalistic = kernels and all(shape[:2] == (3, 3) for shape in kernels)
    name = f"mobilenet_v3_{size}{'_minimalistic' if is_minimalistic else ''}"
    if last[3] == last_channels:
        return name
    return f"{name} with {last[3]} channels at its end, not {last_channels}"


def _describe_resnet(shapes: Shapes, paths: list[str]) -> str | None:
    """Returns the published residual network, None if it is none of them."""
    kinds = _block_kinds(paths)
    counts = [len(kinds.get(stage, {})) for stage in range(2, 6)]
    stem = _stem(shapes)
    is_wide = stem == "wide"
    published = _WIDE_BLOCKS if is_wide else _BLOCKS
    width = _width(shapes)
    is_whole = set(kinds) == {*((1,) if is_wide else ()), 2, 3, 4, 5}
    if not is_whole or width is None or not _is_multiple(counts, published):
        return None
    attention = next((a for a in _ATTENTION if kinds == _layout(kinds, stem, a)), "")
    has_memory = "encoder/memory_feature" in shapes
    has_stacks = any(_BACKBONE_STACK.match(path) for path in paths)
    name = _RESIDUAL.get((stem, attention, has_memory, has_stacks))
    if name is None:
        return None
    if name == _WIDE_NAME and any("/_switch/" in path for path in paths):
        name = "swidernet with switchable atrous convolution"
    notes = []
    if counts != list(published):
        notes.append(f"{', '.join(map(str, counts))} blocks")
    if width != 1:
        notes.append(f"{width:g} times as wide")
    return name + (f" ({'; '.join(notes)})" if notes else "")


def _stem(shapes: Shapes) -> str:
    if "encoder/_stem/_conv1_bn_act/_conv/kernel" in shapes:
        return "beta"
    kernel = shapes.get("encoder/_stem/_conv/kernel", ())
    return {7: "plain", 3: "wide"}.get(kernel[0], "") if kernel else ""


def _block_kinds(paths: Iterable[str]) -> dict[int, dict[int, str]]:
    """Returns the kinds of the blocks by stage and number."""
    edges: dict[tuple[int, int], set[str]] = {}
    for path in paths:
        if match := _BLOCK.match(path):
            place = int(match[1]), int(match[2])
            edges.setdefault(place, set()).add(path[match.end() :])
    kinds: dict[int, dict[int, str]] = {}
    for (stage, block), inner in edges.items():
        kind = "basic"
        if any(edge.startswith("_attention/") for edge in inner):
            is_axial = any(edge.startswith("_attention/_height_") for edge in inner)
            kind = "axial" if is_axial else "global"
        elif any(edge.startswith("_conv3_bn/") for edge in inner):
            kind = "bottleneck"
        kinds.setdefault(stage, {})[block] = kind
    return kinds


def _layout(
    found: Mapping[int, Mapping[int, str]], stem: str, attention: str
) -> dict[int, dict[int, str]]:
    """Returns the published kinds of blocks for the stages and numbers found."""

    def kind(stage: int, block: int) -> str:
        is_late = stage == 5 or (stage == 4 and block > 1)
        if attention == "all" or (attention == "late" and is_late):
            return "axial"
        return "basic" if stem == "wide" and stage < 5 else "bottleneck"

    return {
        stage: {block: kind(stage, block) for block in blocks}
        for stage, blocks in found.items()
    }


def _width(shapes: Shapes) -> float | None:
    """Returns the width multiplier, None if widths do not double from stage to stage"""
    channels = [
        shapes.get(f"encoder/_stage{stage}/_block1/_shortcut/_conv/kernel", (0,))[-1]
        for stage in range(2, 6)
    ]
    width = channels[3] / _STAGE5_CHANNELS
    for found, published in zip(channels, (256, 512, 1024, 2048), strict=True):
        # Four times a number that was rounded.
        if not found or abs(found - published * width) > 4:
            return None
    return width


def _is_multiple(counts: Sequence[int], published: Sequence[int]) -> bool:
    """Says if one factor, with what follows the point cut off, explains all counts."""
    pairs = list(zip(counts, published, strict=True))
    lowest = max(count / number for count, number in pairs)
    return lowest < min((count + 1) / number for count, number in pairs)
