"""MaX-DeepLab: masks and classes learn from the labels they are matched with.

A slot of the network predicts one mask and its class. Slots and labelled masks are
matched so that the sum of their similarities, that of masks times that of classes, is
largest; then matched masks are pulled together (a differentiable form of panoptic
quality), and slots that got none learn to be void.

References:
    Wang et al., MaX-DeepLab, CVPR 2021, arXiv:2012.00759, section 3.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from deeplab2_edge import keys
from deeplab2_edge.optional import require
from deeplab2_edge.train.losses.focal import focal_cross_entropy
from deeplab2_edge.train.losses.instance_discrimination import (
    mask_discrimination,
    pixel_discrimination,
)
from deeplab2_edge.train.losses.mask_targets import (
    MaskClasses,
    MaskTargets,
    class_one_hot,
    mask_targets,
)
from deeplab2_edge.train.losses.masks import dice_loss, intersect, mask_similarity
from deeplab2_edge.train.losses.matching import match
from deeplab2_edge.train.losses.pixel import stride_to
from deeplab2_edge.train.losses.reduction import mean_of_hardest

tf: Any = require("tensorflow", extra="train")

# Names of the reported values.
CLASS_TERM = "pq_style_loss_class_term"
MASK_DICE_TERM = "pq_style_loss_mask_dice_term"
MASK_ID_TERM = "mask_id_cross_entropy_loss"
INSTANCE_TERM = "instance_discrimination_loss"

# Share of the loss that matched masks have; void has the rest.
_ALPHA = 0.75
# Logit of a slot that does not exist.
_NO_SLOT = -99999.0
# Weight of a match, or of void, that the network sees no sign of yet.
_SMALLEST_WEIGHT = 1e-5
_EPSILON = 1e-5


@dataclass(frozen=True)
class MaskTerm:
    """Says how much a term counts.

    Attributes:
        weight: Its factor; 0 leaves it out.
        top_k_fraction: Share of the pixels that are kept, where the term has pixels.
    """

    weight: float = 0.0
    top_k_fraction: float = 1.0


@dataclass(frozen=True)
class PixelSampling:
    """Says how many pixels instance discrimination compares with each other.

    Attributes:
        sample_k: 0 compares all pixels with masks instead.
        temperature: See `pixel_discrimination`.
        seed_source: See `pixel_discrimination`.
    """

    sample_k: int = 0
    temperature: float = 0.6
    seed_source: Callable[[], Any] | None = None


class _Heads(NamedTuple):
    """Holds one set of outputs, pixels in a row.

    Attributes:
        feature: `[B, P, D]` float32.
        mask_logits: `[B, P, S]` float32.
        masks: `[B, P, S]` float32, their softmax over slots.
        class_logits: `[B, S, K + 1]` float32, void last.
    """

    feature: Any
    mask_logits: Any
    masks: Any
    class_logits: Any


class _Matching(NamedTuple):
    """Holds what the slots of the main heads have to do with masks; no gradients.

    Attributes:
        slot: `[B, G]` int32 slot of a labelled mask, -1 without.
        is_match: `[B, G, S]` float32, 1 for matched pairs.
        class_likeness: `[B, G]` probability of a mask's class in its slot, else 0.
        mask_likeness: `[B, S]` similarity of a slot's mask to its match, else 0.
        void_share: `[B, S]` share of a slot's pixels that are void.
    """

    slot: Any
    is_match: Any
    class_likeness: Any
    mask_likeness: Any
    void_share: Any


class MaskTransformerLoss:
    """Computes the terms of MaX-DeepLab, all but that of the semantic head.

    Args:
        classes: Order of the class logits.
        pq_style: The two terms of panoptic quality.
        mask_id: Cross entropy of the slots of a pixel.
        instance: Instance discrimination.
        sampling: How instance discrimination is done.
        num_auxiliary: Number of further heads that get the same losses, by the
            matching of the main one; their terms are called `aux_<i><term>`.
    """

    def __init__(
        self,
        classes: MaskClasses,
        *,
        pq_style: MaskTerm,
        mask_id: MaskTerm,
        instance: MaskTerm,
        sampling: PixelSampling,
        num_auxiliary: int = 0,
    ) -> None:
        self._classes = classes
        self._pq_style = pq_style
        self._mask_id = mask_id
        self._instance = instance
        self._sampling = sampling
        self._prefixes = ("", *(f"aux_{i}" for i in range(num_auxiliary)))

    @property
    def names(self) -> tuple[str, ...]:
        """Gives the names of the reported values; terms of weight 0 have none."""
        terms = (
            (self._pq_style, (CLASS_TERM, MASK_DICE_TERM)),
            (self._mask_id, (MASK_ID_TERM,)),
            (self._instance, (INSTANCE_TERM,)),
        )
        return tuple(
            prefix + name
            for prefix in self._prefixes
            for term, names in terms
            if term.weight
            for name in names
        )

    def __call__(
        self, predictions: Mapping[str, Any], targets: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Compares predicted with labelled masks.

        Args:
            predictions: `pixel_space_normalized_feature [B, h, w, D]`,
                `pixel_space_mask_logits [B, h, w, S]` and `transformer_class_logits
                [B, S, K + 1]`; with auxiliary heads also `auxiliary_outputs`, a
                sequence of such dictionaries.
            targets: `semantic_gt [B, H, W]`, `thing_id_mask_gt [B, H, W]` and
                `thing_id_class_gt [B, T]`; pixels are strided down to the heads.

        Returns:
            `[B]` float32 under each of `names`, weights applied.

        Raises:
            ValueError: If sizes, or numbers of classes or of heads, do not fit.
        """
        outputs = [predictions, *predictions.get(keys.AUXILIARY_OUTPUTS, ())]
        if len(outputs) != len(self._prefixes):
            raise ValueError(
                f"there are {len(outputs) - 1} auxiliary outputs; expected "
                f"{len(self._prefixes) - 1}"
            )
        size = predictions[keys.PIXEL_SPACE_MASK_LOGITS].shape[1:3]
        labels = mask_targets(
            stride_to(targets[keys.SEMANTIC_GT], size),
            stride_to(targets[keys.THING_ID_MASK_GT], size),
            targets[keys.THING_ID_CLASS_GT],
            self._classes,
        )
        heads = [self._heads(output) for output in outputs]
        matching = _match(heads[0], labels)
        losses = {}
        for prefix, head in zip(self._prefixes, heads, strict=True):
            for name, value in self._terms(head, labels, matching).items():
                losses[prefix + name] = value
        return losses

    def _heads(self, outputs: Mapping[str, Any]) -> _Heads:
        class_logits = tf.cast(outputs[keys.TRANSFORMER_CLASS_LOGITS], tf.float32)
        num_classes = len(self._classes.ids)
        if class_logits.shape[-1] != num_classes + 1:
            raise ValueError(
                f"{keys.TRANSFORMER_CLASS_LOGITS} has {class_logits.shape[-1]} "
                f"channels; the data set needs {num_classes + 1}: "
                f"{num_classes} classes and void"
            )
        mask_logits = _pixels(outputs[keys.PIXEL_SPACE_MASK_LOGITS])
        return _Heads(
            feature=_pixels(outputs[keys.PIXEL_SPACE_NORMALIZED_FEATURE]),
            mask_logits=mask_logits,
            masks=tf.nn.softmax(mask_logits),
            class_logits=class_logits,
        )

    def _terms(
        self, heads: _Heads, labels: MaskTargets, matching: _Matching
    ) -> dict[str, Any]:
        losses = {}
        if weight := self._pq_style.weight:
            loss = _class_loss(heads, labels, matching, self._classes.ids)
            losses[CLASS_TERM] = weight * loss
            losses[MASK_DICE_TERM] = weight * _mask_loss(heads, labels, matching)
        if weight := self._mask_id.weight:
            losses[MASK_ID_TERM] = weight * _mask_id_loss(
                heads, labels, matching, self._mask_id.top_k_fraction
            )
        if weight := self._instance.weight:
            losses[INSTANCE_TERM] = weight * self._instance_loss(heads, labels)
        return losses

    def _instance_loss(self, heads: _Heads, labels: MaskTargets) -> Any:
        fraction = self._instance.top_k_fraction
        if not self._sampling.sample_k:
            return mask_discrimination(heads.feature, labels, top_k_fraction=fraction)
        return pixel_discrimination(
            heads.feature,
            labels,
            sample_k=self._sampling.sample_k,
            sample_temperature=self._sampling.temperature,
            top_k_fraction=fraction,
            seed_source=self._sampling.seed_source,
        )


def _pixels(maps: Any) -> Any:
    """Gives `[B, P, C]` float32 from `[B, h, w, C]`."""
    _, height, width, channels = maps.shape
    return tf.cast(tf.reshape(maps, [-1, height * width, channels]), tf.float32)


def _match(heads: _Heads, labels: MaskTargets) -> _Matching:
    masks = tf.stop_gradient(heads.masks)
    is_labelled = tf.cast(labels.is_labelled, tf.float32)[:, :, None]
    labelled_area = tf.reduce_sum(masks * is_labelled, axis=1)
    void_area = tf.reduce_sum(masks * (1.0 - is_labelled), axis=1)
    mask_likeness = mask_similarity(
        intersect(labels.masks, masks), labels.area, labelled_area
    )
    probability = tf.nn.softmax(tf.stop_gradient(heads.class_logits))
    class_likeness = tf.matmul(
        labels.class_one_hot, probability[..., :-1], transpose_b=True
    )
    slot = match(-mask_likeness * class_likeness, labels.is_present)
    # All 0 for -1.
    is_match = tf.one_hot(slot, masks.shape[2])
    return _Matching(
        slot=slot,
        is_match=is_match,
        class_likeness=tf.reduce_max(class_likeness * is_match, axis=2),
        mask_likeness=tf.reduce_max(mask_likeness * is_match, axis=1),
        void_share=void_area / (labelled_area + void_area + _EPSILON),
    )


def _mask_loss(heads: _Heads, labels: MaskTargets, matching: _Matching) -> Any:
    """Gives the dice loss of all present masks, by how well their class is known.

    Matched pairs are picked from the sums of all pairs, so no map is ever permuted.
    """
    has_mask = tf.cast(labels.mask_of >= 0, tf.float32)[:, :, None]
    shared = intersect(labels.masks, heads.masks) * matching.is_match
    predicted_area = tf.reduce_sum(heads.masks * has_mask, axis=1)
    loss = dice_loss(
        tf.reduce_sum(shared, axis=2),
        labels.area,
        tf.reduce_sum(predicted_area[:, None, :] * matching.is_match, axis=2),
    )
    weight = tf.maximum(matching.class_likeness, _SMALLEST_WEIGHT)
    weight *= tf.cast(labels.is_present, tf.float32)
    return _ALPHA / heads.masks.shape[2] * tf.reduce_sum(loss * weight, axis=1)


def _class_loss(
    heads: _Heads,
    labels: MaskTargets,
    matching: _Matching,
    class_ids: Sequence[int],
) -> Any:
    """Gives the cross entropy of slots' classes, by how well their mask fits."""
    # As in the published system, a mask without slot (there are too few) asks for its
    # class in the first one.
    target = slot_classes(
        tf.maximum(matching.slot, 0),
        labels.mask_class,
        class_ids,
        num_slots=heads.masks.shape[2],
    )
    is_matched = tf.reduce_max(target, axis=2) == 1.0
    likeness = tf.where(is_matched, matching.mask_likeness, matching.void_share)
    void = tf.cast(~is_matched, tf.float32)
    return focal_cross_entropy(
        tf.concat([target, void[:, :, None]], axis=2),
        heads.class_logits,
        tf.maximum(likeness, _SMALLEST_WEIGHT),
        alpha=_ALPHA,
        gamma=0.0,
    )


def slot_classes(
    slot: Any, mask_class: Any, class_ids: Sequence[int], *, num_slots: int
) -> Any:
    """Gives every slot the classes of the masks that it is matched with.

    Args:
        slot: `[B, G]` int32 slot of every mask.
        mask_class: `[B, G]` int32 class in the data set, -1 for absent masks.
        class_ids: The `K` classes in the order of the class logits.
        num_slots: `S`.

    Returns:
        `[B, S, K]` float32 counts; all 0 for a slot without.
    """
    classes = class_one_hot(mask_class, tuple(class_ids))
    return tf.matmul(tf.one_hot(slot, num_slots), classes, transpose_a=True)


def _mask_id_loss(
    heads: _Heads, labels: MaskTargets, matching: _Matching, top_k_fraction: float
) -> Any:
    """Gives the cross entropy of pixels' slots, over pixels with a mask.

    Crowds, which have a class but no mask, have no loss. They do have a gradient, as
    in the published system: it keeps any slot from being sure of them.
    """
    slot = tf.gather(matching.slot, tf.maximum(labels.mask_of, 0), batch_dims=1)
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(
        tf.maximum(slot, 0), heads.mask_logits
    )
    total = tf.reduce_logsumexp(heads.mask_logits, axis=2)
    entropy = tf.where(slot >= 0, entropy, total - _NO_SLOT)
    # Exactly 0, with the gradient of the first.
    entropy = tf.where(labels.mask_of >= 0, entropy, total - tf.stop_gradient(total))
    entropy = tf.where(labels.is_labelled, entropy, 0.0)
    return mean_of_hardest(entropy, top_k_fraction)
