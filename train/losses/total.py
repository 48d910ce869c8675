"""The loss of a model: its terms, weighted and summed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from deeplab2_edge import keys
from deeplab2_edge.config import LossOptions, ModelOptions, SingleLossOptions
from deeplab2_edge.datasets.registry import DatasetInfo
from deeplab2_edge.errors import ConfigError
from deeplab2_edge.optional import require
from deeplab2_edge.train.losses.depth import depth_loss
from deeplab2_edge.train.losses.mask_targets import MaskClasses
from deeplab2_edge.train.losses.max_deeplab import (
    MaskTerm,
    MaskTransformerLoss,
    PixelSampling,
)
from deeplab2_edge.train.losses.pixel import l1, mse, softmax_cross_entropy

tf = require("tensorflow", extra="train")

TOTAL_LOSS = "total_loss"

# The terms that compare masks; any of them makes the loss that of MaX-DeepLab.
_MASK_TERMS = (
    "pq_style_loss",
    "mask_id_cross_entropy_loss",
    "instance_discrimination_loss",
)


class Terms(Protocol):
    """Computes a part of the terms of a loss."""

    @property
    def names(self) -> tuple[str, ...]:
        """Gives the names of the reported values."""

    def __call__(
        self, predictions: Mapping[str, Any], targets: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Gives `[B]` float32 under each of `names`, weights applied."""


class ModelLoss:
    """Computes the terms of a model's loss and their sum.

    Args:
        parts: The terms.
    """

    def __init__(self, parts: Sequence[Terms]) -> None:
        self._parts = tuple(parts)

    @property
    def names(self) -> tuple[str, ...]:
        """Gives the names of the reported values, the total last."""
        return (*(name for part in self._parts for name in part.names), TOTAL_LOSS)

    def __call__(
        self, predictions: Mapping[str, Any], targets: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Compares predictions with targets.

        Args:
            predictions: Heads by the names in `keys`, resized to the crop (those of
                MaX-DeepLab at their own stride), offsets in crop pixels; maps of one
                channel with or without their last axis.
            targets: What `train.data` makes, with a batch axis.

        Returns:
            `[B]` float32 under each of `names`: the terms with their weight applied,
            and `total_loss`, their sum.
        """
        losses: dict[str, Any] = {}
        for part in self._parts:
            losses.update(part(predictions, targets))
        losses[TOTAL_LOSS] = tf.add_n(list(losses.values()))
        return losses


def build_loss(
    loss_options: LossOptions,
    dataset: DatasetInfo,
    *,
    model_options: ModelOptions | None = None,
    num_auxiliary: int = 0,
    seed_source: Callable[[], Any] | None = None,
) -> ModelLoss:
    """Builds the loss of any model from the terms that its configuration sets.

    Args:
        loss_options: The terms. A mask term of weight 0 is left out, and so is the
            semantic one beside mask terms.
        dataset: Names the labels that are ignored and the classes of masks.
        model_options: Say how instance discrimination samples pixels.
        num_auxiliary: Auxiliary heads of masks, see `MaskTransformerLoss`.
        seed_source: Seeds random samples, see `pixel_discrimination`.

    Raises:
        ConfigError: If no term is left, or one has a name or share that does not fit.

    References:
        Cheng et al., Panoptic-DeepLab, CVPR 2020, arXiv:1911.10194; the hard-pixel
        mining is that of DeeperLab, arXiv:1902.05093.
    """
    parts: list[Terms] = []
    has_masks = any(loss_options.has(name) for name in _MASK_TERMS)
    if has_masks:
        masks = _mask_terms(
            loss_options, dataset, model_options, num_auxiliary, seed_source
        )
        parts.extend([masks] if masks.names else [])
    for name in loss_options.present():
        if name in _MASK_TERMS:
            continue
        options = getattr(loss_options, name)
        if options.weight or not has_masks:
            parts.append(_PixelTerm(name, options, dataset))
    if not parts:
        raise ConfigError(
            "trainer_options.loss_options sets no loss with a weight; a semantic model "
            "needs semantic_loss, a panoptic model also center_loss and "
            "regression_loss, MaX-DeepLab pq_style_loss and mask_id_cross_entropy_loss"
        )
    return ModelLoss(parts)


def _mask_terms(
    loss_options: LossOptions,
    dataset: DatasetInfo,
    model_options: ModelOptions | None,
    num_auxiliary: int,
    seed_source: Callable[[], Any] | None,
) -> MaskTransformerLoss:
    sampling = PixelSampling(seed_source=seed_source)
    if model_options is not None and model_options.max_deeplab is not None:
        head = model_options.max_deeplab
        sampling = PixelSampling(
            head.instance_discrimination_sample_k,
            head.instance_discrimination_sample_temperature,
            seed_source,
        )

    def term(name: str) -> MaskTerm:
        options = getattr(loss_options, name)
        if options is None:
            return MaskTerm()
        return MaskTerm(float(options.weight), _fraction(name, options))

    pq_style, mask_id, instance = (term(name) for name in _MASK_TERMS)
    return MaskTransformerLoss(
        MaskClasses.of(dataset),
        pq_style=pq_style,
        mask_id=mask_id,
        instance=instance,
        sampling=sampling,
        num_auxiliary=num_auxiliary,
    )


@dataclass(frozen=True)
class _Entries:
    """Names the entries that one loss term compares and the functions it may use."""

    target: str
    prediction: str
    weight: str | None
    functions: tuple[str, ...]


# Option of `loss_options`, which is also the name of the reported value.
_PIXEL_TERMS = {
    "semantic_loss": _Entries(
        keys.SEMANTIC_GT,
        keys.SEMANTIC_LOGITS,
        keys.SEMANTIC_LOSS_WEIGHT,
        ("softmax_cross_entropy",),
    ),
    "center_loss": _Entries(
        keys.INSTANCE_CENTER_GT,
        keys.CENTER_HEATMAP,
        keys.CENTER_LOSS_WEIGHT,
        ("mse", "l1"),
    ),
    "regression_loss": _Entries(
        keys.INSTANCE_REGRESSION_GT,
        keys.OFFSET_MAP,
        keys.REGRESSION_LOSS_WEIGHT,
        ("l1", "mse"),
    ),
    "motion_loss": _Entries(
        keys.FRAME_OFFSET_GT,
        keys.FRAME_OFFSET_MAP,
        keys.FRAME_REGRESSION_LOSS_WEIGHT,
        ("l1", "mse"),
    ),
    "next_regression_loss": _Entries(
        keys.NEXT_INSTANCE_REGRESSION_GT,
        keys.NEXT_OFFSET_MAP,
        keys.NEXT_REGRESSION_LOSS_WEIGHT,
        ("l1", "mse"),
    ),
    "depth_loss": _Entries(keys.DEPTH_GT, keys.DEPTH_PRED, None, ("depth_loss",)),
}


class _PixelTerm:
    """Compares one head with its target, pixel by pixel."""

    def __init__(
        self, name: str, options: SingleLossOptions, dataset: DatasetInfo
    ) -> None:
        self._name = name
        self._entries = _PIXEL_TERMS[name]
        self._function = _loss_function(name, options, dataset)
        self._weight = float(options.weight)

    @property
    def names(self) -> tuple[str, ...]:
        return (self._name,)

    def __call__(
        self, predictions: Mapping[str, Any], targets: Mapping[str, Any]
    ) -> dict[str, Any]:
        target = targets[self._entries.target]
        prediction = tf.cast(predictions[self._entries.prediction], tf.float32)
        if target.shape.rank == 3 and prediction.shape[3:] == [1]:
            prediction = tf.squeeze(prediction, axis=-1)
        arguments = [target, prediction]
        if self._entries.weight is not None:
            arguments.append(targets[self._entries.weight])
        return {self._name: self._weight * self._function(*arguments)}


def _loss_function(
    name: str, options: SingleLossOptions, dataset: DatasetInfo
) -> Callable[..., Any]:
    known = _PIXEL_TERMS[name].functions
    if options.name not in known:
        raise ConfigError(
            f"trainer_options.loss_options.{name}.name is {options.name!r}; it must be "
            f"{' or '.join(repr(function) for function in known)}"
        )
    fraction = _fraction(name, options)
    if options.name == "depth_loss":
        # Also where the data set does not say so, records hold 0 for unknown depth.
        return partial(depth_loss, ignore_depth=dataset.ignore_depth or 0.0)
    if options.name == "softmax_cross_entropy":
        return partial(
            softmax_cross_entropy,
            ignore_label=dataset.ignore_label,
            top_k_fraction=fraction,
        )
    return partial({"mse": mse, "l1": l1}[options.name], top_k_fraction=fraction)


def _fraction(name: str, options: SingleLossOptions) -> float:
    fraction = float(options.top_k_percent)
    if not 0.0 <= fraction <= 1.0:
        raise ConfigError(
            f"trainer_options.loss_options.{name}.top_k_percent is {fraction:g}; "
            "despite its name it is a fraction in 0..1"
        )
    return fraction
