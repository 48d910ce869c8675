"""Labels as masks: one for every thing of the image and for every stuff class."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from deeplab2_edge.datasets.registry import DatasetInfo
from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="train")

# Class of a mask that the image does not have.
ABSENT = -1


@dataclass(frozen=True)
class MaskClasses:
    """Orders the classes of masks: things, then stuff; void comes after them.

    Attributes:
        thing_ids: Classes with a mask per instance.
        stuff_ids: Classes with one mask per image.
        ignore_label: Semantic id of void.
    """

    thing_ids: tuple[int, ...]
    stuff_ids: tuple[int, ...]
    ignore_label: int

    @classmethod
    def of(cls, dataset: DatasetInfo) -> "MaskClasses":
        """Returns the classes of a data set."""
        ids = range(dataset.num_classes)
        # An ignore label just above the classes takes the place of the last one, as
        # in the published system.
        if dataset.ignore_label == dataset.num_classes:
            ids = range(dataset.num_classes - 1)
        without_masks = {*dataset.thing_ids, dataset.ignore_label}
        return cls(
            dataset.thing_ids,
            tuple(i for i in ids if i not in without_masks),
            dataset.ignore_label,
        )

    @property
    def ids(self) -> tuple[int, ...]:
        """The data set's classes in the order of the network's class logits."""
        return (*self.thing_ids, *self.stuff_ids)


class MaskTargets(NamedTuple):
    """Holds `G` labelled masks over `P` pixels; of those not there, all is 0.

    Crowds have a class but no mask.

    Attributes:
        mask_of: `[B, P]` int32 mask of a pixel, -1 without one.
        masks: `[B, G, P]` float32, 1 on the pixels of a mask.
        is_thing: `[B, P]` bool, pixels of a thing with a mask.
        is_labelled: `[B, P]` bool, pixels that are not void.
        area: `[B, G]` float32, in pixels.
        mask_class: `[B, G]` int32 class in the data set, `ABSENT` without.
        is_present: `[B, G]` bool.
        class_one_hot: `[B, G, K]` float32, in the order of `MaskClasses.ids`.
    """

    mask_of: Any
    masks: Any
    is_thing: Any
    is_labelled: Any
    area: Any
    mask_class: Any
    is_present: Any
    class_one_hot: Any

    def inverse_area(self) -> Any:
        """Gives `[B, P]` float32: the image's area over that of a pixel's mask."""
        area = tf.gather(self.area, tf.maximum(self.mask_of, 0), batch_dims=1)
        area = tf.where(self.mask_of >= 0, area, 0.0)
        return self.mask_of.shape[1] / tf.maximum(area, 1.0)


def mask_targets(
    semantic: Any, thing_id: Any, thing_class: Any, classes: MaskClasses
) -> MaskTargets:
    """Makes masks from labels at the network's output resolution.

    Things are the first `T` masks, stuff classes the others.

    Args:
        semantic: `[B, h, w]` int32 classes.
        thing_id: `[B, h, w]` int32 masks of things, -1 elsewhere.
        thing_class: `[B, T]` class of every thing, -1 after the last.
        classes: Their order.
    """
    num_things = thing_class.shape[1]
    num_stuff = len(classes.stuff_ids)
    num_pixels = semantic.shape[1] * semantic.shape[2]
    semantic = tf.reshape(tf.cast(semantic, tf.int32), [-1, num_pixels])
    thing_id = tf.reshape(tf.cast(thing_id, tf.int32), [-1, num_pixels])
    stuff_ids = tf.constant(classes.stuff_ids, tf.int32, [num_stuff])

    stuff_masks = num_things + tf.range(num_stuff)
    is_stuff = semantic[:, :, None] == stuff_ids
    mask_of = tf.reduce_max(tf.where(is_stuff, stuff_masks, -1), axis=2)
    is_thing = thing_id != -1
    has_mask = is_thing & (thing_id < num_things)
    mask_of = tf.where(has_mask, thing_id, tf.maximum(mask_of, -1))
    index = tf.range(num_things + num_stuff)
    masks = tf.cast(mask_of[:, None, :] == index[:, None], tf.float32)
    area = tf.reduce_sum(masks, axis=2)

    mask_class = tf.concat(
        [
            tf.cast(thing_class, tf.int32),
            tf.tile(stuff_ids[None], [tf.shape(semantic)[0], 1]),
        ],
        axis=1,
    )
    mask_class = tf.where(area > 0.5, mask_class, ABSENT)
    return MaskTargets(
        mask_of=mask_of,
        masks=masks,
        is_thing=is_thing,
        is_labelled=semantic != classes.ignore_label,
        area=area,
        mask_class=mask_class,
        is_present=mask_class != ABSENT,
        class_one_hot=class_one_hot(mask_class, classes.ids),
    )


def class_one_hot(mask_class: Any, class_ids: tuple[int, ...]) -> Any:
    """Gives `[..., K]` float32 from classes of a data set; absent ones are all 0."""
    ids = tf.constant(class_ids, tf.int32, [len(class_ids)])
    return tf.cast(mask_class[..., None] == ids, tf.float32)
