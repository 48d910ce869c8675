"""The loss of a model: its terms, weighted and summed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from deeplab2_edge import keys
from deeplab2_edge.config import LossOptions, SingleLossOptions
from deeplab2_edge.datasets.registry import DatasetInfo
from deeplab2_edge.errors import ConfigError
from deeplab2_edge.optional import require
from deeplab2_edge.train.losses import pixel

tf = require("tensorflow", extra="train")

TOTAL_LOSS = "total_loss"


@dataclass(frozen=True)
class _Term:
    """Names the entries that one loss term compares and the functions it may use."""

    target: str
    prediction: str
    weight: str
    functions: tuple[str, ...]


# Option of `loss_options`, which is also the name of the reported value.
_TERMS = {
    "semantic_loss": _Term(
        keys.SEMANTIC_GT,
        keys.SEMANTIC_LOGITS,
        keys.SEMANTIC_LOSS_WEIGHT,
        ("softmax_cross_entropy",),
    ),
    "center_loss": _Term(
        keys.INSTANCE_CENTER_GT,
        keys.CENTER_HEATMAP,
        keys.CENTER_LOSS_WEIGHT,
        ("mse", "l1"),
    ),
    "regression_loss": _Term(
        keys.INSTANCE_REGRESSION_GT,
        keys.OFFSET_MAP,
        keys.REGRESSION_LOSS_WEIGHT,
        ("l1", "mse"),
    ),
}


class PanopticLoss:
    """Computes the loss of a semantic or Panoptic-DeepLab model.

    The terms are those that `loss_options` sets: `semantic_loss` (softmax cross
    entropy), `center_loss` and `regression_loss` (mse, l1).

    Args:
        loss_options: The `LossOptions` of a configuration.
        dataset: Names the label that is ignored.

    Raises:
        ConfigError: If no term is set, one belongs to another kind of model, or has
            an unknown name.

    References:
        Cheng et al., Panoptic-DeepLab, CVPR 2020, arXiv:1911.10194; the hard-pixel
        mining is that of DeeperLab, arXiv:1902.05093.
    """

    def __init__(self, loss_options: LossOptions, dataset: DatasetInfo) -> None:
        self._terms: dict[str, tuple[_Term, Callable[..., Any], float]] = {}
        for name in loss_options.present():
            if name not in _TERMS:
                raise ConfigError(
                    f"trainer_options.loss_options.{name} is set; this model can be "
                    f"trained with {', '.join(_TERMS)}"
                )
            term, options = _TERMS[name], getattr(loss_options, name)
            function = _loss_function(name, term, options, dataset.ignore_label)
            self._terms[name] = (term, function, float(options.weight))
        if not self._terms:
            raise ConfigError(
                "trainer_options.loss_options sets no loss; a semantic model needs "
                "semantic_loss, a panoptic model also center_loss and regression_loss"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Gives the names of the reported values, the total last."""
        return (*self._terms, TOTAL_LOSS)

    def __call__(
        self, predictions: Mapping[str, Any], targets: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Compares predictions with targets.

        Args:
            predictions: Heads resized to the crop: `semantic_logits [B, H, W, C]`,
                `center_heatmap [B, H, W]` or `[B, H, W, 1]`, `offset_map
                [B, H, W, 2]` in crop pixels.
            targets: What `train.data.targets` makes, with a batch axis.

        Returns:
            `[B]` float32 under each of `names`: the terms with their weight applied,
            and `total_loss`, their sum.
        """
        losses = {}
        for name, (term, function, weight) in self._terms.items():
            target = targets[term.target]
            prediction = tf.cast(predictions[term.prediction], tf.float32)
            if term.prediction == keys.CENTER_HEATMAP and prediction.shape.rank == 4:
                prediction = tf.squeeze(prediction, axis=-1)
            losses[name] = weight * function(target, prediction, targets[term.weight])
        losses[TOTAL_LOSS] = tf.add_n(list(losses.values()))
        return losses


def _loss_function(
    name: str, term: _Term, options: SingleLossOptions, ignore_label: int
) -> Callable[..., Any]:
    field = f"trainer_options.loss_options.{name}"
    if options.name not in term.functions:
        raise ConfigError(
            f"{field}.name is {options.name!r}; it must be "
            f"{' or '.join(repr(known) for known in term.functions)}"
        )
    fraction = float(options.top_k_percent)
    if not 0.0 <= fraction <= 1.0:
        raise ConfigError(
            f"{field}.top_k_percent is {fraction:g}; despite its name it is a "
            "fraction in 0..1"
        )
    function: Callable[..., Any] = partial(
        getattr(pixel, options.name), top_k_fraction=fraction
    )
    if options.name == "softmax_cross_entropy":
        function = partial(function, ignore_label=ignore_label)
    return function
