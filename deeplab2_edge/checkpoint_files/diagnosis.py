"""What a checkpoint is, and why it does not fit a model, in words.

Everything is read off the paths and shapes of variables, so a checkpoint and a model
are described by the same functions and compared by their descriptions.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
_AXIAL_BLOCK = re.compile(r"encoder/_stage(\d+)/_block\d+/_attention/")
_SHOWN = 2
_STAGE2_CHANNELS = 256  # of all published backbones with stages
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


def identify(shapes: Shapes) -> Identity:
    """Tells from paths and shapes what network variables belong to."""
    items = sorted(_items(shapes))
    family = title = None
    telling: list[str] = []
    for name, words, pattern in _FAMILIES:
        telling = [item for item in items if re.match(pattern, item)]
        if telling:
            family, title = name, words
            break
    first = first_kernel(shapes)
    return Identity(
        family=family,
        family_title=title,
        encoder=describe_encoder(shapes),
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
    """Returns the backbone in words, None if there is none."""
    paths = [path for path in shapes if path.startswith(_ENCODER)]
    if not paths:
        return None
    rows = {path.split("/")[2] for path in paths if path.startswith("encoder/_blocks/")}
    if rows:
        size = {13: "small", 17: "large"}.get(len(rows), f"of {len(rows)} rows")
        return f"mobilenet_v3_{size}{_mobilenet_width(shapes, len(rows))}"
    if not any(path.startswith("encoder/_stem/") for path in paths):
        return f"an unknown backbone with {min(paths)}"
    return _describe_resnet(shapes, paths)


def explain(wanted: Shapes, stored: Shapes, *, is_foreign: bool = False) -> str:
    """Says in a sentence or two why variables of a checkpoint do not fit a model.

    Args:
        wanted: Shapes of the model's variables, by path.
        stored: The same of the checkpoint.
        is_foreign: See `CheckpointContents`.

    Returns:
        What is different and what the user would do, `""` if nothing telling is.
    """
    model, checkpoint = identify(wanted), identify(stored)
    if not stored:
        return (
            "it holds no variable under a key of a TensorFlow 2 object checkpoint; was "
            "it written by TensorFlow 1?"
        )
    if model.encoder and checkpoint.encoder and model.encoder != checkpoint.encoder:
        return (
            f"its encoder is {checkpoint.encoder}, the configuration asks for "
            f"{model.encoder}: give the configuration of the checkpoint, or set "
            "model_options.backbone"
        )
    has_heads = checkpoint.family is not None or checkpoint.num_classes is not None
    if checkpoint.encoder and not has_heads and _items(wanted) != {"encoder"}:
        origin = "from another trainer" if is_foreign else "from ImageNet?"
        return (
            f"it holds an encoder alone ({origin}); give it as "
            "model_options.initial_checkpoint of a training"
        )
    notes = []
    missing = sorted(_items(wanted) - _items(stored))
    if missing:
        notes.append(_explain_items(model, checkpoint, missing))
    if _differ(model.input_channels, checkpoint.input_channels):
        notes.append(_explain_input(model, checkpoint))
    if _differ(model.num_classes, checkpoint.num_classes):
        notes.append(_explain_classes(model, checkpoint))
    return "; ".join(notes)


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
    return (
        f"{text}: set model_options.{field}={found} to use it as it is; to train other "
        f"classes from it, set {_RESTORE_FLAG}"
    )


def _differ(left: int | None, right: int | None) -> bool:
    return left is not None and right is not None and left != right


def _num_classes(shapes: Shapes) -> int | None:
    last = semantic_last_layer(shapes)
    kernel = shapes.get(f"{last}/kernel") or shapes.get(_CLASS_HEAD_KERNEL)
    return kernel[-1] if kernel else None


def _mobilenet_width(shapes: Shapes, num_rows: int) -> str:
    """Returns the width multiplier, if it is not 1, from the last convolution."""
    kernel = shapes.get(f"encoder/_blocks/{num_rows - 1}/_conv/kernel")
    published = {13: 576, 17: 960}.get(num_rows)
    if not kernel or published is None or kernel[-1] == published:
        return ""
    return f" with {kernel[-1]} channels at its end, not {published}"


def _describe_resnet(shapes: Shapes, paths: list[str]) -> str:
    blocks = {m.groups() for path in paths if (m := _BLOCK.match(path))}
    axial_stages = {m[1] for path in paths if (m := _AXIAL_BLOCK.match(path))}
    has_beta_stem = any(
        path.startswith("encoder/_stem/_conv1_bn_act") for path in paths
    )
    stem = shapes.get("encoder/_stem/_conv/kernel", ())
    is_wide = not has_beta_stem and stem[:1] == (3,)
    if "encoder/memory_feature" in shapes:
        return "max_deeplab_l" if is_wide else "max_deeplab_s"
    if is_wide:
        name = _wide_name(paths, axial_stages)
    elif axial_stages & {"2", "3"}:
        name = "axial_deeplab" if has_beta_stem else "axial_resnet"
    elif axial_stages:
        name = "max_deeplab_s_backbone"
    else:
        name = "resnet50_beta" if has_beta_stem else "resnet50"
    counts = Counter(stage for stage, _ in blocks)
    layers = [counts[str(stage)] for stage in range(2, 6)]
    notes = []
    if layers != ([3, 6, 3, 3] if is_wide else [3, 4, 6, 3]):
        notes.append(f"{', '.join(map(str, layers))} blocks")
    shortcut = shapes.get("encoder/_stage2/_block1/_shortcut/_conv/kernel")
    if shortcut and shortcut[-1] != _STAGE2_CHANNELS:
        notes.append(f"{shortcut[-1] / _STAGE2_CHANNELS:g} times as wide")
    return name + (f" ({'; '.join(notes)})" if notes else "")


def _wide_name(paths: list[str], axial_stages: set[str]) -> str:
    if any("/_decoder_stage" in path for path in paths):
        return "max_deeplab_l_backbone"
    if axial_stages:
        return "axial_swidernet"
    if any("/_switch/" in path for path in paths):
        return "swidernet with switchable atrous convolution"
    return "wide_resnet41 or swidernet"
