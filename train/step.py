"""One optimization step as a compiled function."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from deeplab2_edge import keys
from deeplab2_edge.config import SolverOptions
from deeplab2_edge.layers.dropout import Replayable
from deeplab2_edge.models import resize_outputs
from deeplab2_edge.optional import require
from deeplab2_edge.train.losses.total import TOTAL_LOSS
from deeplab2_edge.train.optimizers import OptimizerGroup, clip_gradients

tf = require("tensorflow", extra="train")

# Name under which a step reports whether its update was left out.
SKIPPED = "skipped"


def make_train_step(
    model: Any,
    loss: Callable[[Mapping[str, Any], Mapping[str, Any]], Mapping[str, Any]],
    groups: Sequence[OptimizerGroup],
    global_step: Any,
    *,
    solver: SolverOptions,
) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Builds the function that learns from one batch.

    A step whose loss or gradient is not finite leaves weights and optimizer alone and
    is reported; the original trainer replaces such a loss by zero and loses the step
    silently.

    Args:
        model: See `build_model`.
        loss: Gives `[B]` values by name, `total_loss` among them.
        groups: Optimizers and their shares of the trainable variables.
        global_step: int64 variable, counted up by the step.
        solver: Says how gradients are clipped.

    Returns:
        From a batch of targets to the batch mean of every loss (unweighted mean, the
        weights of the terms applied) and `skipped`, 1.0 if the update was left out.
    """
    for layer in model.submodules:
        if isinstance(layer, Replayable):
            layer.seed_source = global_step.read_value
    size = tuple(model.input.shape[1:3])
    variables = [variable for group in groups for variable in group.variables]

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def step(batch: Mapping[str, Any]) -> dict[str, Any]:
        with tf.GradientTape() as tape:
            outputs = resize_outputs(model(batch[keys.IMAGE], training=True), size)
            values = {
                name: tf.reduce_mean(value)
                for name, value in loss(outputs, batch).items()
            }
        gradients = tape.gradient(values[TOTAL_LOSS], variables)
        gradients, norm = clip_gradients(gradients, solver)
        is_finite = tf.math.is_finite(values[TOTAL_LOSS]) & tf.math.is_finite(norm)
        if is_finite:
            remaining = iter(gradients)
            for group in groups:
                group.optimizer.apply_gradients(
                    [(next(remaining), variable) for variable in group.variables]
                )
        global_step.assign_add(1)
        values[SKIPPED] = 1.0 - tf.cast(is_finite, tf.float32)
        return values

    return step  # type: ignore[no-any-return]
