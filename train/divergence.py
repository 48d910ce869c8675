"""Losses that are not finite: training stops at them, and they are named."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from deeplab2_edge.errors import DeepLabEdgeError
from deeplab2_edge.train.losses import TOTAL_LOSS
from deeplab2_edge.train.run_state import RunState
from deeplab2_edge.train.step import GRADIENT_NORM, SKIPPED


def refuse_divergence(losses: Mapping[str, Any], step: int, state: RunState) -> None:
    """Stops at a step that could not be learnt from.

    With float16 such steps are part of finding the scale of the loss, until the
    scale can sink no further.

    Args:
        losses: What the step gave; empty before the first.
        step: Its number.
        state: Of the run.

    Raises:
        DeepLabEdgeError: If it could not.
    """
    if not losses or not float(losses[SKIPPED]):
        return
    if state.loss_scale is not None and not state.loss_scale.is_smallest():
        return
    culprits = [
        name
        for name, value in losses.items()
        if name not in (TOTAL_LOSS, GRADIENT_NORM) and not np.isfinite(value)
    ]
    what = " and ".join(culprits) or "the gradient of a finite loss"
    raise DeepLabEdgeError(
        f"step {step}: {what} is not finite, so nothing was learnt from it; lower "
        "solver_options.base_learning_rate or set use_gradient_clipping, then "
        "start again: training resumes from "
        f"{state.latest_checkpoint() or 'the beginning'}"
    )
