"""Optimizers of the published configurations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deeplab2_edge.config import SolverOptions
from deeplab2_edge.errors import ConfigError
from deeplab2_edge.optional import require
from deeplab2_edge.train.schedules import build_schedule

tf = require("tensorflow", extra="train")
tf_keras = require("tf_keras", extra="train")

# The published training used these and has no option for them.
_SGD_MOMENTUM = 0.9
_ADAM = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}

# Parts of an encoder that no pretraining on images has seen.
_NEW_PARTS = ("transformer", "extra", "memory_feature")

# Names of variables that AdamW does not decay: all but kernels and weights.
_NOT_DECAYED = r"^(?!.*(kernel|weight):0$)"


def build_optimizer(options: SolverOptions, *, multiplier: float = 1.0) -> Any:
    """Builds the optimizer of a configuration with its learning-rate schedule.

    `adamw` decays, before the Adam update, variables whose name ends in `kernel:0` or
    `weight:0` by `rate * adamw_weight_decay`. The option `weight_decay` has no effect:
    the published training never added it to its loss either.

    Args:
        options: Names the optimizer and its rates.
        multiplier: Scales the base learning rate.

    Returns:
        A `tf_keras` optimizer.

    Raises:
        ConfigError: If the optimizer or the learning policy is unknown.
    """
    schedule = build_schedule(options, multiplier=multiplier)
    if options.optimizer == "adam":
        return tf_keras.optimizers.Adam(schedule, **_ADAM)
    if options.optimizer == "sgd":
        return tf_keras.optimizers.SGD(schedule, momentum=_SGD_MOMENTUM)
    if options.optimizer == "adamw":
        optimizer = tf_keras.optimizers.AdamW(
            schedule, weight_decay=options.adamw_weight_decay, **_ADAM
        )
        optimizer.exclude_from_weight_decay(var_names=[_NOT_DECAYED])
        return optimizer
    raise ConfigError(
        f"solver_options.optimizer is {options.optimizer!r}; it must be 'adam', "
        "'adamw' or 'sgd'"
    )


@dataclass(frozen=True, eq=False)
class OptimizerGroup:
    """Pairs an optimizer with the variables it moves.

    Attributes:
        name: Root item in checkpoints.
        optimizer: Built for the variables.
        variables: Trainable variables of one part of the model.
    """

    name: str
    optimizer: Any
    variables: tuple[Any, ...]


def build_optimizer_groups(
    options: SolverOptions, variables: Mapping[str, Any]
) -> tuple[OptimizerGroup, ...]:
    """Divides the trainable variables among optimizers.

    There is one group, unless `backbone_learning_rate_multiplier` is set: then the
    encoder has an optimizer of its own, also at 1.0, as in published checkpoints.
    Transformers, the memory and what lies behind the backbone are new in such a
    network, and stay with the rest.

    Args:
        options: See `build_optimizer`.
        variables: Of the model, by checkpoint path; not trainable ones are left out.
    """
    trainable = {path: v for path, v in variables.items() if v.trainable}
    parts = {"optimizer": (1.0, tuple(trainable.values()))}
    if options.has("backbone_learning_rate_multiplier"):
        encoder = {
            path: variable
            for path, variable in trainable.items()
            if path.startswith("encoder/") and not any(p in path for p in _NEW_PARTS)
        }
        rest = tuple(v for p, v in trainable.items() if p not in encoder)
        multiplier = options.backbone_learning_rate_multiplier
        parts = {
            "optimizer": (1.0, rest),
            "backbone_optimizer": (multiplier, tuple(encoder.values())),
        }
    groups = []
    for name, (multiplier, members) in parts.items():
        optimizer = build_optimizer(options, multiplier=multiplier)
        optimizer.build(members)
        groups.append(OptimizerGroup(name, optimizer, members))
    return tuple(groups)


def clip_gradients(
    gradients: Sequence[Any], options: SolverOptions
) -> tuple[list[Any], Any]:
    """Scales gradients down so that their global norm does not pass the limit.

    Args:
        gradients: Of all variables, before they are split between optimizers. None
            (a variable the loss does not reach) stays None.
        options: `clip_gradient_norm` limits if `use_gradient_clipping` is set.

    Returns:
        The gradients, and their global norm before clipping.
    """
    norm = tf.linalg.global_norm(gradients)
    if not options.use_gradient_clipping:
        return list(gradients), norm
    clipped, _ = tf.clip_by_global_norm(
        gradients, options.clip_gradient_norm, use_norm=norm
    )
    return clipped, norm
