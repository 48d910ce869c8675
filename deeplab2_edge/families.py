"""The families of models: what each takes, what it gives, and what follows it.

All architectures fall into five families by what makes a result of their heads: the
best class alone, a merge of classes and instances, a set of masks, and two that keep
the ids of instances over a video.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from deeplab2_edge import keys
from deeplab2_edge.config import ExperimentOptions
from deeplab2_edge.errors import ConfigError

SEMANTIC = "semantic"
PANOPTIC = "panoptic"
MASKS = "masks"
MOTION = "motion"
TWO_FRAMES = "two_frames"

PANOPTIC_HEADS = (keys.SEMANTIC_LOGITS, keys.CENTER_HEATMAP, keys.OFFSET_MAP)
# The raw heads that a result is made of. Models of two frames also give what they want
# to see again with the next frame, and perhaps depth.
HEADS: Mapping[str, tuple[str, ...]] = {
    SEMANTIC: (keys.SEMANTIC_LOGITS,),
    PANOPTIC: PANOPTIC_HEADS,
    MASKS: (keys.PIXEL_SPACE_MASK_LOGITS, keys.TRANSFORMER_CLASS_LOGITS),
    MOTION: (*PANOPTIC_HEADS, keys.FRAME_OFFSET_MAP),
    TWO_FRAMES: (*PANOPTIC_HEADS, keys.NEXT_OFFSET_MAP),
}
FAMILIES = tuple(HEADS)
# Those that look at two frames and keep the ids of instances over a video.
OF_VIDEOS = (MOTION, TWO_FRAMES)

# Architectures that look at two frames; the others look at one image.
_OF_VIDEOS = ("motion_deeplab", "vip_deeplab")


@dataclass(frozen=True)
class Abilities:
    """Says what a model gives beside classes.

    Attributes:
        has_instances: Things, each with an id.
        has_depth: Meters for each pixel.
        keeps_ids: It looks at two frames, and instances keep their ids over a video.
    """

    has_instances: bool
    has_depth: bool
    keeps_ids: bool


def family_of(config: ExperimentOptions) -> str:
    """Returns the family of an experiment's model.

    Raises:
        ConfigError: As `abilities_of`.
    """
    options = config.model_options
    if not abilities_of(config).has_instances:
        return SEMANTIC
    if options.max_deeplab is not None:
        return MASKS
    if options.motion_deeplab is not None:
        return MOTION
    return PANOPTIC if options.vip_deeplab is None else TWO_FRAMES


def abilities_of(config: ExperimentOptions) -> Abilities:
    """Finds out what the model of an experiment gives.

    Raises:
        ConfigError: If there is no model, or it is one of videos without instances or
            without the head that sees the second frame.
    """
    options = config.model_options
    name = options.meta_architecture
    if name is None:
        raise ConfigError("model_options: the meta-architecture is missing")
    panoptic = options.panoptic_deeplab or options.motion_deeplab or options.vip_deeplab
    has_centers = panoptic is not None and panoptic.instance.enable
    if name in _OF_VIDEOS and not has_centers:
        raise ConfigError(
            f"model_options.{name}.instance.enable is false; a model of videos keeps "
            "the ids of instances, and needs them"
        )
    vip = options.vip_deeplab
    if vip is not None and vip.instance.next_regression_head is None:
        raise ConfigError(
            "model_options.vip_deeplab.instance.next_regression_head is missing; ids "
            "are kept from frame to frame by it"
        )
    return Abilities(
        has_instances=has_centers or options.max_deeplab is not None,
        has_depth=vip is not None and vip.depth_head is not None,
        keeps_ids=name in _OF_VIDEOS,
    )
