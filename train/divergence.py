"""Losses that are not finite: training stops at them, and their cause is named."""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from deeplab2_edge import keys
from deeplab2_edge.checkpoints import variable_paths
from deeplab2_edge.errors import DeepLabEdgeError
from deeplab2_edge.models import resize_outputs
from deeplab2_edge.optional import require
from deeplab2_edge.train.losses import TOTAL_LOSS
from deeplab2_edge.train.run_state import RunState
from deeplab2_edge.train.step import GRADIENT_NORM, SKIPPED, LossFunction

tf: Any = require("tensorflow", extra="train")
tf_keras: Any = require("tf_keras", extra="train")


@dataclass(frozen=True)
class Suspect:
    """Is a step that may have to be explained.

    Attributes:
        step: Its number.
        losses: What it gave.
        batch: What this process learnt from; None if another machine took the step.
    """

    step: int
    losses: Mapping[str, Any]
    batch: Mapping[str, Any] | None


def refuse_divergence(suspect: Suspect, state: RunState, loss: LossFunction) -> None:
    """Stops at a step that could not be learnt from.

    With float16 such steps are part of finding the scale of the loss, until the
    scale can sink no further.

    Args:
        suspect: The step.
        state: Of the run.
        loss: Of the run, to compute the step again.

    Raises:
        DeepLabEdgeError: If it could not. The message names the step, the terms of the
            loss, the first tensor that was not finite, and the checkpoint to go on
            from.
    """
    if not float(suspect.losses[SKIPPED]):
        return
    if state.loss_scale is not None and not state.loss_scale.is_smallest():
        return
    culprits = [
        name
        for name, value in suspect.losses.items()
        if name not in (TOTAL_LOSS, GRADIENT_NORM) and not np.isfinite(value)
    ]
    what = " and ".join(culprits) or "the gradient of a finite loss"
    cause = _cause(suspect, state, loss)
    raise DeepLabEdgeError(
        f"step {suspect.step}: {what} {'are' if len(culprits) > 1 else 'is'} not "
        "finite, so nothing was learnt from it; "
        f"{cause}. Lower solver_options.base_learning_rate or set "
        "use_gradient_clipping, then start again: training resumes from "
        f"{state.last_checkpoint() or 'the beginning'}"
    )


def _cause(suspect: Suspect, state: RunState, loss: LossFunction) -> str:
    if suspect.batch is None:
        return "its batch is on the machine that took the step"
    # The step drew its random numbers by the steps done before it.
    state.global_step.assign(suspect.step - 1)
    # Batch statistics of several replicas are had only by all of them together.
    is_alone = state.num_replicas == 1
    try:
        return find_cause(state.model, loss, suspect.batch, training=is_alone)
    except Exception as error:  # the search must not hide what it is for
        return f"the search for the first such tensor failed ({error!r:.200})"


def find_cause(
    model: Any, loss: LossFunction, batch: Mapping[str, Any], *, training: bool = True
) -> str:
    """Computes a step again, piece by piece, and names what is first not finite.

    Args:
        model: As it was before the step; its statistics are changed.
        loss: Gives the losses.
        batch: What the step learnt from.
        training: Whether batch norm takes the statistics of the batch.

    Returns:
        A clause such as `the first tensor with such values is the output of layer
        encoder/_stem/_conv: 3 of 120`.
    """
    for place, value in _places(model, loss, batch, training):
        bad = _count_not_finite(value)
        if bad:
            size = int(np.prod(value.shape))
            return f"the first tensor with such values is {place}: {bad} of {size}"
    return (
        "computed again in this process, operation by operation, all its tensors are "
        "finite: look at the other processes, or at compilation and device"
    )


def _places(
    model: Any, loss: LossFunction, batch: Mapping[str, Any], training: bool
) -> Iterator[tuple[str, Any]]:
    """Gives tensors in the order in which they are computed, with what they are."""
    for name, value in batch.items():
        yield f"{name} of the batch, which the data gave", value
    for path, variable in variable_paths(model).items():
        yield f"the weight {path}", variable
    with tf.GradientTape() as tape:
        with _watched_layers(model) as outputs:
            raw = model(batch[keys.IMAGE], training=training)
        tape.watch(raw)
        predictions = resize_outputs(raw, tuple(model.input.shape[1:3]))
        values = loss(predictions, batch)
        target = tf.reduce_mean(values[TOTAL_LOSS])
    yield from outputs
    for name, value in predictions.items():
        yield f"the output {name}, resized", value
    for name, value in values.items():
        yield f"{name}, computed from finite outputs and labels", value
    paths = {p: v for p, v in variable_paths(model).items() if v.trainable}
    gradients = tape.gradient(target, [raw, list(paths.values())])
    for name, value in gradients[0].items():
        if value is not None:
            yield f"the gradient of the output {name}", value
    # The last layers come first in the backward pass.
    for path, value in reversed([*zip(paths, gradients[1], strict=True)]):
        if value is not None:
            yield f"the gradient of the weight {path}", tf.convert_to_tensor(value)


@contextlib.contextmanager
def _watched_layers(model: Any) -> Iterator[list[tuple[str, Any]]]:
    """Collects, inside, what layers give as the first that is not finite does.

    Only the output of that layer is kept: those of all would not fit into memory.
    """
    found: list[tuple[str, Any]] = []
    layers = [
        layer
        for layer in model.submodules
        if isinstance(layer, tf_keras.layers.Layer)
        and not isinstance(layer, tf_keras.Model)
    ]
    for layer in layers:
        layer.call = _watching(layer, found)
    try:
        yield found
    finally:
        for layer in layers:
            del layer.call


def _watching(layer: Any, found: list[tuple[str, Any]]) -> Callable[..., Any]:
    call = layer.call

    def watch(*args: Any, **kwargs: Any) -> Any:
        outputs = call(*args, **kwargs)
        if not found:
            for number, output in enumerate(tf.nest.flatten(outputs)):
                if _count_not_finite(output):
                    which = f"output {number} of" if number else "the output of"
                    found.append((f"{which} layer {layer.name}", output))
                    break
        return outputs

    # Wrappers look at the arguments of what they wrap.
    watch.__signature__ = inspect.signature(call)  # type: ignore[attr-defined]
    return watch


def _count_not_finite(value: Any) -> int:
    if not value.dtype.is_floating:
        return 0
    is_bad = ~tf.math.is_finite(tf.convert_to_tensor(value))
    return int(tf.math.count_nonzero(is_bad))
