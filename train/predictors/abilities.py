"""What a model of each family gives, told by its experiment alone."""

from dataclasses import dataclass

from deeplab2_edge.config import ExperimentOptions
from deeplab2_edge.errors import ConfigError

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
