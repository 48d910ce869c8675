"""Panoptic copy-paste: segments of a second image replace pixels of a first.

References:
    Ghiasi et al., Simple Copy-Paste, CVPR 2021, arXiv:2012.07177; for all kinds of
    segments as the published mask transformers use it.
"""

from dataclasses import dataclass
from typing import Any

from deeplab2_edge.config import PanopticCopyPasteOptions
from deeplab2_edge.datasets.registry import DatasetInfo
from deeplab2_edge.errors import ConfigError
from deeplab2_edge.optional import require
from deeplab2_edge.train.data.draws import Draws, Event
from deeplab2_edge.train.data.instances import is_any_of
from deeplab2_edge.train.data.preprocessing import View
from deeplab2_edge.train.data.traced_checks import check

tf = require("tensorflow", extra="train")

_CHOICES = ("random", "none", "all")


@dataclass(frozen=True)
class CopyPasteSettings:
    """Says which segments of a second image are pasted.

    Each is `all`, `none` or `random`: a random number of random segments.

    Attributes:
        things: Choice for thing classes, crowds included.
        stuff: Choice for stuff classes.
        void: Choice for ignored regions.

    Raises:
        ConfigError: On creation, if a choice is none of the three.
    """

    things: str = "random"
    stuff: str = "random"
    void: str = "none"

    def __post_init__(self) -> None:
        choices = {"thing": self.things, "stuff": self.stuff, "void": self.void}
        for kind, choice in choices.items():
            if choice not in _CHOICES:
                raise ConfigError(
                    f"augmentations.panoptic_copy_paste: panoptic_copy_paste_{kind}"
                    f"_option is {choice!r}; expected one of {', '.join(_CHOICES)}"
                )

    @classmethod
    def from_options(cls, options: PanopticCopyPasteOptions) -> "CopyPasteSettings":
        """Reads the settings from the augmentation options of a configuration."""
        return cls(
            things=options.panoptic_copy_paste_thing_option,
            stuff=options.panoptic_copy_paste_stuff_option,
            void=options.panoptic_copy_paste_void_option,
        )


def pasted_label_fill(info: DatasetInfo) -> int:
    """Gives the label of padded pixels of a second image, which are never pasted.

    It differs from that of void pixels, which may be.
    """
    return info.ignored_panoptic_id + 1


def paste_segments(
    view: View,
    second: View,
    info: DatasetInfo,
    settings: CopyPasteSettings,
    draws: Draws,
) -> View:
    """Pastes segments of a second image into a first.

    Pasted instances get ids from the top of the range, `label_divisor - 1 - id`, so
    that they stay apart from those of the first image.

    Args:
        view: The first image, label `[H, W, 1]`.
        second: The second image of the same size, padded with `pasted_label_fill`.
        info: Gives divisor, ignored label and thing classes.
        settings: Which segments are pasted.
        draws: Decides where the settings say random.

    Raises:
        tf.errors.InvalidArgumentError: When run, if an instance id is not below half
            of the divisor.
    """
    divisor = info.label_divisor
    label = second.label
    highest = tf.maximum(
        tf.reduce_max(view.label % divisor), tf.reduce_max(label % divisor)
    )
    check(
        2 * highest < divisor,
        "augmentations.panoptic_copy_paste is set, but an image holds instance id ",
        highest,
        f"; ids must be below {divisor / 2:g}, half of the label divisor of "
        f"{info.name}",
    )
    ids, pixel_to_id = tf.unique(tf.reshape(label, [-1]))
    is_pasted = _choose(ids, info, settings, draws)
    mask = tf.reshape(tf.gather(is_pasted, pixel_to_id), tf.shape(label))
    instance = label % divisor
    raised = label - instance + (divisor - 1 - instance)
    return view._replace(
        image=tf.where(mask, second.image, view.image),
        label=tf.where(mask, tf.where(instance > 0, raised, label), view.label),
    )


def _choose(
    ids: Any, info: DatasetInfo, settings: CopyPasteSettings, draws: Draws
) -> Any:
    """Decides for every panoptic id whether it is pasted: `[U]` bool."""
    num_ids = tf.size(ids)
    count = draws.integer(Event.PASTED_COUNT, num_ids + 1)
    shuffled = tf.argsort(draws.uniform(Event.PASTED_IDS, [num_ids]))
    # Where a permutation puts an id is as random as the permutation.
    is_drawn = shuffled < count

    classes = ids // info.label_divisor
    is_void = classes == info.ignore_label
    is_thing = is_any_of(classes, info.thing_ids) & ~is_void
    is_stuff = ~is_thing & ~is_void
    chosen = tf.zeros_like(is_void)
    for members, choice in (
        (is_thing, settings.things),
        (is_stuff, settings.stuff),
        (is_void, settings.void),
    ):
        if choice == "all":
            chosen |= members
        elif choice == "random":
            chosen |= members & is_drawn
    return chosen & (ids != pasted_label_fill(info))
